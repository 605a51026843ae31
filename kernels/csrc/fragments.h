// Loops of rasterization with several fragments a pixel on the CPU: the nearest K that reach it, and their derivative.
#pragma once

#include <array>
#include <cstring>
#include <limits>

#include "blur.h"
#include "interpolation.h"

namespace facefit {

using FourFragments = FragmentOf<Four, FourTruths>;

// The vertices of each batch element on the screen, with their scales.
struct Screen {
  std::vector<Vertex> vertex;
  std::vector<float> scale;

  Screen(Team& team, const Operand<float, Floats>& clip, int64_t batch, float half_x, float half_y)
      : vertex(batch * clip.dim(0)), scale(batch * clip.dim(0)) {
    const int64_t V = clip.dim(0), parts = batch >= 8 ? 1 : 8;
    team.each(batch * parts, [&](int64_t task) {
      const int64_t b = task / parts, part = task % parts;
      for (int64_t i = V * part / parts; i < V * (part + 1) / parts; ++i) {
        vertex[b * V + i] = screen_vertex(clip.at(b) + 4 * i, half_x, half_y);
        scale[b * V + i] = vertex_scale(clip.at(b) + 4 * i);
      }
    });
  }
  // False where the triangle has no area as seen from here.
  bool fragment(int64_t first, const int32_t* k, float px, float py, Fragment* f) const {
    const Vertex* v = vertex.data() + first;
    float corner[3][4], scales[3];
    for (int j = 0; j < 3; ++j) {
      std::memcpy(corner[j], v + k[j], sizeof corner[j]);
      scales[j] = scale[first + k[j]];
    }
    return find_fragment(corner, scales, px, py, f) != 0;
  }
  void fragment(int64_t first, const int32_t* const k[4], Four px, Four py, FourFragments* f) const {
    Four corner[3][4], scales[3];
    for (int j = 0; j < 3; ++j) {
      for (int i = 0; i < 4; ++i) {
        corner[j][i] = load(&vertex[first + k[i][j]].x);
        scales[j][i] = scale[first + k[i][j]];
      }
      transpose(corner[j]);
    }
    find_fragment(corner, scales, px, py, f);
  }
};

// Lists of the nearest K fragments of some pixels, nearest first, and how many there are.
struct Lists {
  int32_t* count;
  int32_t* index;
  float *barycentric, *depth, *distance;
};

// One batch element, ready to be drawn in bands of rows.
struct Drawing {
  const int32_t* faces;
  int64_t face_count, first_vertex;
  const Screen& screen;
  const Bounds* boxes;
  int width;
  int64_t K;
  float blur_squared;

  // Fills the lists of rows first to last. Faces come in rising order, so that a strict comparison leaves the lower
  // index before the higher at equal depth.
  void band(int first, int last, const Lists& to) const {
    const int64_t pixels = (int64_t)width * (last - first + 1);
    std::fill(to.count, to.count + pixels, 0);
    // Beyond it nothing enters a pixel's list. Four are read at once, so up to three beyond the last.
    std::vector<float> farthest(pixels + 3, std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < face_count; ++i) {
      const Bounds box = boxes[i];
      const int y0 = std::max<int>(box.first_y, first), y1 = std::min<int>(box.last_y, last);
      if (box.first_x > box.last_x || y0 > y1) continue;
      const int32_t* corner = faces + 3 * i;
      const Vertex* s = screen.vertex.data() + first_vertex;
      const Vertex a = s[corner[0]], b = s[corner[1]], c = s[corner[2]];
      const float *m = screen.scale.data() + first_vertex, scale[3] = {m[corner[0]], m[corner[1]], m[corner[2]]};
      const auto triangle = BlurredTriangle<Four>::of(a, b, c, blur_squared);
      for (int y = y0; y <= y1; ++y) {
        const int64_t row = (int64_t)(y - first) * width;
        if (triangle.blurs) {
          for (int x = box.first_x; x <= box.last_x; x += 4) {
            float* const limit = farthest.data() + row + x;
            const Four px = Four{0.5f, 1.5f, 2.5f, 3.5f} + (float)x, py = Four{} + (y + 0.5f);
            Reach<Four> found;
            int there = bits(counts(triangle, px, py, load(limit), &found));
            there &= (1 << std::min(box.last_x - x + 1, 4)) - 1;
            if (!there) continue;
            Four weight[3] = {found.edge[0] * scale[0], found.edge[1] * scale[1], found.edge[2] * scale[2]};
            const Four total = (weight[0] + weight[1]) + weight[2];
            const Four inverse = choose(total != Four{}, 1.0f / total, Four{});
            for (int j = 0; j < 3; ++j) weight[j] *= inverse;
            for (int j = 0; j < 4; ++j)
              if (there >> j & 1)
                insert(to, row + x + j, i, found.depth[j], found.distance[j],
                       {weight[0][j], weight[1][j], weight[2][j]}, limit + j);
          }
          continue;
        }
        for (int x = box.first_x; x <= box.last_x; ++x) {
          float depth;
          if (!covers(a, b, c, x + 0.5f, y + 0.5f, &depth) || !(depth < farthest[row + x])) continue;
          Fragment value;
          screen.fragment(first_vertex, corner, x + 0.5f, y + 0.5f, &value);
          const float* weight = value.barycentric;
          insert(to, row + x, i, depth, value.distance, {weight[0], weight[1], weight[2]}, &farthest[row + x]);
        }
      }
    }
  }

 private:
  void insert(const Lists& to, int64_t pixel, int64_t face, float depth, float distance,
              std::array<float, 3> weight, float* farthest) const {
    const int64_t at = K * pixel;
    int32_t& count = to.count[pixel];
    int64_t k = at + (count < K ? count++ : K - 1);
    for (; k > at && depth < to.depth[k - 1]; --k) {
      to.depth[k] = to.depth[k - 1], to.index[k] = to.index[k - 1], to.distance[k] = to.distance[k - 1];
      for (int j = 0; j < 3; ++j) to.barycentric[3 * k + j] = to.barycentric[3 * k - 3 + j];
    }
    to.depth[k] = depth, to.index[k] = (int32_t)face, to.distance[k] = distance;
    for (int j = 0; j < 3; ++j) to.barycentric[3 * k + j] = weight[j];
    if (count == K) *farthest = to.depth[at + K - 1];
  }
};

// Calls each(b, drawing, first row, last row) for every band of every batch element of (H, W, K) results.
template <typename Each>
inline void every_band(Team& team, const Batch& batch, int height, int width, int64_t K,
                       const Floats& vertices, const Ints& faces, const Floats& blur, int64_t bands,
                       const Each& each) {
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const auto radius = operand<float>(blur, batch, 0);
  const int64_t V = v.dim(0), F = f.dim(0), B = batch.count();
  const Screen screen(team, v, B, 0.5f * width, 0.5f * height);
  std::vector<Bounds> boxes(B * F);
  team.each(B * bands, [&](int64_t task) {
    const int64_t b = task / bands, part = task % bands;
    const Vertex* s = screen.vertex.data() + b * V;
    const int32_t* k;
    for (int64_t i = F * part / bands; i < F * (part + 1) / bands; ++i)
      boxes[b * F + i] = corners_of(f.at(b), F, V, i, &k)
                             ? bounds(s[k[0]], s[k[1]], s[k[2]], width, height, *radius.at(b))
                             : Bounds{1, 1, 0, 0};
  });
  team.each(B * bands, [&](int64_t task) {
    const int64_t b = task / bands, part = task % bands;
    const Drawing drawing{f.at(b), F, b * V, screen, boxes.data() + b * F, width, K, *radius.at(b) * *radius.at(b)};
    each(b, drawing, (int)(height * part / bands), (int)(height * (part + 1) / bands) - 1);
  });
}

// vertices (V, 4), faces (F, 3), blur () -> face_index (H, W, K), barycentric (H, W, K, 3), depth and signed distance
// (H, W, K)
inline ffi::Error fragments(Team team, Floats vertices, Ints faces, Floats blur, IntResult face_index,
                            FloatResult barycentric, FloatResult depth, FloatResult distance) {
  const Batch batch(*face_index, 3);
  if (face_index->element_count() == 0) return ffi::Error::Success();
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 3], width = (int)face_index->dimensions()[rank - 2];
  const int64_t K = face_index->dimensions()[rank - 1], threads = team.threads();
  const int64_t bands = std::min<int64_t>(height, batch.count() >= 4 * threads ? 1 : 4 * threads);
  every_band(team, batch, height, width, K, vertices, faces, blur, bands,
             [&](int64_t b, const Drawing& drawing, int first, int last) {
               const int64_t pixels = (int64_t)width * (last - first + 1), base = K * width * (b * height + first);
               std::vector<int32_t> count(pixels);
               const Lists to = {count.data(), face_index->typed_data() + base, barycentric->typed_data() + 3 * base,
                                 depth->typed_data() + base, distance->typed_data() + base};
               drawing.band(first, last, to);
               for (int64_t at = 0; at < pixels; ++at)
                 for (int64_t k = K * at + count[at]; k < K * (at + 1); ++k) {
                   to.index[k] = -1, to.depth[k] = 1, to.distance[k] = 0;
                   for (int j = 0; j < 3; ++j) to.barycentric[3 * k + j] = 0;
                 }
             });
  return ffi::Error::Success();
}

// vertices, faces, face_index (H, W, K), gradients of barycentric, depth and signed distance -> gradient of vertices
inline ffi::Error fragments_backward(Team team, Floats vertices, Ints faces, Ints face_index,
                                     Floats g_barycentric, Floats g_depth, Floats g_distance, FloatResult g_vertices) {
  const Batch batch(*g_vertices, 2);
  const auto v = operand<float>(vertices, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 3);
  const auto gb = operand<float>(g_barycentric, batch, 4);
  const auto gz = operand<float>(g_depth, batch, 3), gd = operand<float>(g_distance, batch, 3);
  float* result = g_vertices->typed_data();
  Gather gather(team, result, batch.count(), v.size);
  if (g_vertices->element_count() == 0 || index.size == 0) return ffi::Error::Success();
  const int64_t width = index.dim(1), K = index.dim(2);
  const float half_x = 0.5f * width, half_y = 0.5f * index.dim(0);
  const int64_t V = v.dim(0);
  const Screen screen(team, v, batch.count(), half_x, half_y);
  every_fragment(team, batch, gather.parts(), v.dim(0), faces, face_index,
                 [&](int64_t b, int64_t part, const int32_t* k, int64_t at) {
                   const float *weight = gb.at(b) + 3 * at, z = gz.at(b)[at], d = gd.at(b)[at];
                   if (weight[0] == 0 && weight[1] == 0 && weight[2] == 0 && z == 0 && d == 0) return;
                   const int64_t pixel = at / K;
                   const float px = pixel % width + 0.5f, py = pixel / width + 0.5f;
                   Fragment value;
                   if (!screen.fragment(b * V, k, px, py, &value)) return;
                   float *g = gather.part(b, part), g_corner[3][4];
                   fragment_vjp(value, weight, z, d, g_corner);
                   for (int j = 0; j < 3; ++j)
                     for (int i = 0; i < 4; ++i) g[4 * k[j] + i] += g_corner[j][i];
                 });
  gather.add(team);
  for (int64_t i = 0; i < batch.count() * V; ++i) vertex_vjp(screen.scale[i], half_x, half_y, result + 4 * i);
  return ffi::Error::Success();
}

}  // namespace facefit
