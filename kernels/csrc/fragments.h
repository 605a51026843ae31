// Loops of rasterization with several fragments a pixel on the CPU: the nearest K that reach it, and their derivative.
#pragma once

#include <cstring>
#include <limits>

#include "blur.h"
#include "interpolation.h"

namespace facefit {

using FourFragments = FragmentOf<Four, FourTruths>;

// The vertices of each batch element on the screen, with their scales.
struct Screen {
  Array<Vertex> vertex;
  Array<float> scale;

  Screen(Team& team, const Operand<float, Floats>& clip, int64_t batch, float half_x, float half_y)
      : vertex(screen_vertices(team, clip, batch, half_x, half_y)), scale(batch * clip.dim(0)) {
    const int64_t V = clip.dim(0), parts = chunk_count(batch);
    team.each(batch * parts, [&](int64_t task) {
      const int64_t b = task / parts, part = task % parts;
      for (int64_t i = V * part / parts; i < V * (part + 1) / parts; ++i)
        scale[b * V + i] = vertex_scale(clip.at(b) + 4 * i);
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

// A fragment in a pixel's list: two rows of four numbers, which are moved whole.
struct Kept {
  float depth;
  int32_t face;
  float distance, unused;
  float barycentric[4];  // the last one is not used
};

// Four pixels of a window: in a row, or one below the other where the window is narrower.
struct Block {
  int columns, rows;
  Four x, y;
  int32_t across[4], down[4];
};
constexpr Block kBlocks[] = {
    {1, 4, {0, 0, 0, 0}, {0, 1, 2, 3}, {0, 0, 0, 0}, {0, 1, 2, 3}},
    {2, 2, {0, 1, 0, 1}, {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 0, 1, 1}},
    {4, 1, {0, 1, 2, 3}, {0, 0, 0, 0}, {0, 1, 2, 3}, {0, 0, 0, 0}},
};

// A band of rows of one batch element, and the lists of the nearest K fragments of its pixels, nearest first.
class Band {
 public:
  const int first, last, width;
  const int64_t K, pixels;

  Band(int first, int last, int width, int64_t K)
      : first(first), last(last), width(width), K(K), pixels((int64_t)width * (last + 1 - first)), count_(pixels, 0),
        kept_(K * pixels) {}

  int64_t count(int64_t pixel) const { return count_[pixel]; }
  const Kept& kept(int64_t pixel, int64_t k) const { return kept_[K * pixel + k]; }

  // Puts the face `i`, which may be seen in the pixels of `box`, into the lists. Faces come in rising order, so that a
  // strict comparison leaves the lower index before the higher at equal depth.
  FACEFIT_FOR_AVX2_TOO void draw(const Screen& screen, int64_t first_vertex, const int32_t* corner, int64_t i,
                                 const Bounds& box, float blur_squared) {
    const int y0 = std::max<int>(box.first_y, first), y1 = std::min<int>(box.last_y, last);
    const Vertex* s = screen.vertex.data() + first_vertex;
    const Vertex a = s[corner[0]], b = s[corner[1]], c = s[corner[2]];
    const auto triangle = BlurredTriangle<Four>::of(a, b, c, blur_squared);
    if (!triangle.blurs) {
      for (int y = y0; y <= y1; ++y)
        for (int x = box.first_x; x <= box.last_x; ++x) {
          Kept kept = {0, (int32_t)i};
          if (!covers(a, b, c, x + 0.5f, y + 0.5f, &kept.depth)) continue;
          Fragment value;
          screen.fragment(first_vertex, corner, x + 0.5f, y + 0.5f, &value);
          kept.distance = value.distance;
          std::copy(value.barycentric, value.barycentric + 3, kept.barycentric);
          insert((int64_t)(y - first) * width + x, kept);
        }
      return;
    }
    const float* m = screen.scale.data() + first_vertex;
    const float scale[3] = {m[corner[0]], m[corner[1]], m[corner[2]]};
    const int columns = box.last_x + 1 - box.first_x;
    const Block& block = kBlocks[columns > 2 ? 2 : columns - 1];
    const Four number = (Four)(FourTruths{} + (int32_t)i);  // the same bits
    const float beyond_x = box.last_x + 1, beyond_y = y1 + 1;
    for (int y = y0; y <= y1; y += block.rows)
      for (int x = box.first_x; x <= box.last_x; x += block.columns) {
        Reach<Four> found;
        const Four px = block.x + (x + 0.5f), py = block.y + (y + 0.5f);
        const FourTruths within = (px < beyond_x) & (py < beyond_y);
        int there = bits(counts(triangle, px, py, &found) & within);
        if (!there) continue;
        Four weight[4] = {found.edge[0] * scale[0], found.edge[1] * scale[1], found.edge[2] * scale[2]};
        const Four total = (weight[0] + weight[1]) + weight[2];
        const Four inverse = choose(total != Four{}, 1.0f / total, Four{});
        for (int j = 0; j < 3; ++j) weight[j] *= inverse;
        Four place[4] = {found.depth, number, found.distance};
        transpose(place), transpose(weight);
        for (; there; there &= there - 1) {
          const int j = __builtin_ctz(there);
          Kept kept;
          store(&kept.depth, place[j]), store(kept.barycentric, weight[j]);
          insert((int64_t)(y - first + block.down[j]) * width + x + block.across[j], kept);
        }
      }
  }

 private:
  void insert(int64_t pixel, const Kept& kept) {
    Kept* list = kept_.data() + K * pixel;
    int32_t& count = count_[pixel];
    if (count == K && !(kept.depth < list[K - 1].depth)) return;
    int64_t k = count < K ? count++ : K - 1;
    for (; k > 0 && kept.depth < list[k - 1].depth; --k) list[k] = list[k - 1];
    list[k] = kept;
  }

  std::vector<int32_t> count_;
  Array<Kept> kept_;
};

// Rows of a band of lists.
constexpr int64_t kListRows = 16;

// Calls each(b, band) for every band of every batch element of (H, W, K) results.
template <typename Each>
inline void every_band(Team& team, const Batch& batch, int height, int width, int64_t K,
                       const Floats& vertices, const Ints& faces, const Floats& blur, bool cull, const Each& each) {
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const auto radius = operand<float>(blur, batch, 0);
  const int64_t V = v.dim(0), B = batch.count(), bands = (height + kListRows - 1) / kListRows;
  const Screen screen(team, v, B, 0.5f * width, 0.5f * height);
  const auto begins = begins_of_bands(height, bands);
  const auto blur_of = [&](int64_t b) { return *radius.at(b); };
  const Windows windows(team, screen.vertex, f, B, V, width, begins, blur_of, all_faces(screen.vertex, V, cull));
  team.each(B * bands, [&](int64_t task) {
    const int64_t b = task / bands, k = task % bands;
    Band band(begins[k], begins[k + 1] - 1, width, K);
    windows.every_face(b, k, [&](int64_t i, const Bounds& box) {
      band.draw(screen, b * V, f.at(b) + 3 * i, i, box, blur_of(b) * blur_of(b));
    });
    each(b, band);
  });
}

// vertices (V, 4), faces (F, 3), blur () -> face_index (H, W, K), barycentric (H, W, K, 3), depth and signed distance
// (H, W, K)
inline ffi::Error fragments(Team team, Floats vertices, Ints faces, Floats blur, bool cull, IntResult face_index,
                            FloatResult barycentric, FloatResult depth, FloatResult distance) {
  const Batch batch(*face_index, 3);
  if (face_index->element_count() == 0) return ffi::Error::Success();
  expect_large_results(face_index, barycentric, depth, distance);
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 3], width = (int)face_index->dimensions()[rank - 2];
  const int64_t K = face_index->dimensions()[rank - 1];
  every_band(team, batch, height, width, K, vertices, faces, blur, cull, [&](int64_t b, const Band& band) {
    int64_t to = K * width * (b * height + band.first);
    for (int64_t pixel = 0; pixel < band.pixels; ++pixel)
      for (int64_t k = 0; k < K; ++k, ++to) {
        const Kept kept = k < band.count(pixel) ? band.kept(pixel, k) : Kept{1, -1, 0, 0, {0, 0, 0, 0}};
        face_index->typed_data()[to] = kept.face, depth->typed_data()[to] = kept.depth;
        distance->typed_data()[to] = kept.distance;
        std::copy(kept.barycentric, kept.barycentric + 3, barycentric->typed_data() + 3 * to);
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
