// Loops of rasterization with several fragments a pixel on the CPU: the nearest K that reach it, and their derivative.
#pragma once

#include <limits>

#include "blur.h"
#include "interpolation.h"

namespace facefit {

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
  bool fragment(int64_t first, const int32_t* k, float px, float py, Fragment* f) const {
    const Vertex *v = vertex.data() + first, *const corner[3] = {v + k[0], v + k[1], v + k[2]};
    const float scales[3] = {scale[first + k[0]], scale[first + k[1]], scale[first + k[2]]};
    return fragment_at(corner, scales, px, py, f);
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
    std::fill(to.count, to.count + (int64_t)width * (last - first + 1), 0);
    int32_t* index = to.index;
    float *z = to.depth, *away = to.distance, *weights = to.barycentric;
    Fragment value;
    Reach found;
    for (int64_t i = 0; i < face_count; ++i) {
      const Bounds box = boxes[i];
      const int y0 = std::max<int>(box.first_y, first), y1 = std::min<int>(box.last_y, last);
      if (box.first_x > box.last_x || y0 > y1) continue;
      const int32_t* corner = faces + 3 * i;
      const Vertex* s = screen.vertex.data() + first_vertex;
      const Vertex a = s[corner[0]], b = s[corner[1]], c = s[corner[2]];
      const float *m = screen.scale.data() + first_vertex, scale[3] = {m[corner[0]], m[corner[1]], m[corner[2]]};
      const Edges edges = edges_of(a, b, c, blur_squared);
      for (int y = y0; y <= y1; ++y)
        for (int x = box.first_x; x <= box.last_x; ++x) {
          const float px = x + 0.5f, py = y + 0.5f;
          const int64_t pixel = (int64_t)(y - first) * width + x, at = K * pixel;
          int32_t& count = to.count[pixel];
          const float farthest = count == K ? z[at + K - 1] : std::numeric_limits<float>::infinity();
          if (!counts(a, b, c, edges, blur_squared, px, py, farthest, &found)) continue;
          float weight[3];
          if (edges.there) {
            for (int j = 0; j < 3; ++j) weight[j] = found.edge[j] * scale[j];
            const float total = (weight[0] + weight[1]) + weight[2], inverse = total != 0 ? 1 / total : 0;
            for (int j = 0; j < 3; ++j) weight[j] *= inverse;
          } else {
            screen.fragment(first_vertex, corner, px, py, &value);
            for (int j = 0; j < 3; ++j) weight[j] = value.barycentric[j];
            found.distance = value.distance;
          }
          int64_t k = at + (count < K ? count++ : K - 1);
          for (; k > at && found.depth < z[k - 1]; --k) {
            z[k] = z[k - 1], index[k] = index[k - 1], away[k] = away[k - 1];
            for (int j = 0; j < 3; ++j) weights[3 * k + j] = weights[3 * k - 3 + j];
          }
          z[k] = found.depth, index[k] = (int32_t)i, away[k] = found.distance;
          for (int j = 0; j < 3; ++j) weights[3 * k + j] = weight[j];
        }
    }
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
                   float* g = gather.part(b, part);
                   float* const g_corner[3] = {g + 4 * k[0], g + 4 * k[1], g + 4 * k[2]};
                   fragment_vjp(value, px, py, weight, z, d, g_corner);
                 });
  gather.add(team);
  for (int64_t i = 0; i < batch.count() * V; ++i) vertex_vjp(screen.scale[i], half_x, half_y, result + 4 * i);
  return ffi::Error::Success();
}

}  // namespace facefit
