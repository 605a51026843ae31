// Loops of rasterization on the CPU: visible faces, then barycentric coordinates and depth with their derivatives.
#pragma once

#include <limits>
#include <type_traits>

#include "four.h"
#include "parallel.h"
#include "surface.h"

namespace facefit {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using FloatResult = ffi::Result<Floats>;
using IntResult = ffi::Result<Ints>;

// The screen vertices (B, V) of a batch.
template <typename Vertices>
inline Array<Vertex> screen_vertices(Team& team, const Vertices& v, int64_t B, float half_x,
                                           float half_y) {
  const int64_t V = v.dim(0), chunks = B >= 8 ? 1 : 8;
  Array<Vertex> screen(B * V);
  team.each(B * chunks, [&](int64_t task) {
    const int64_t b = task / chunks, c = task % chunks;
    for (int64_t i = V * c / chunks; i < V * (c + 1) / chunks; ++i)
      screen[b * V + i] = screen_vertex(v.at(b) + 4 * i, half_x, half_y);
  });
  return screen;
}

// Rows of a band that is to stay in a cache.
constexpr int64_t kBandRows = 32;

// Chunks of a batch element's faces that threads share out among them.
inline int64_t chunk_count(int64_t B) { return B >= 8 ? 1 : 8; }

// Bands of rows that threads share out among them: enough for all, and low enough for a cache to hold one.
inline int64_t band_count(int64_t H, int64_t B) {
  return std::min<int64_t>(H, std::max<int64_t>(B >= 8 ? 4 : 16, H / kBandRows));
}

// The rows at which `bands` bands of `rows` rows begin, each row `samples` rows high, and the end of the last.
inline std::vector<int> begins_of_bands(int64_t rows, int64_t bands, int64_t samples = 1) {
  std::vector<int> begins(bands + 1);
  for (int64_t k = 0; k <= bands; ++k) begins[k] = (int)(samples * (rows * k / bands));
  return begins;
}

// What `Windows` is given where faces end at their edges.
constexpr auto kNoBlur = [](int64_t) { return 0.0f; };

// What it is given to draw all faces that exist, or those of them that are not seen from behind.
inline auto all_faces(const Array<Vertex>& screen, int64_t V, bool cull) {
  return [&screen, V, cull](int64_t b) {
    return [s = screen.data() + b * V, cull](int64_t, const int32_t* k) {
      return k && !(cull && seen_from_behind(s[k[0]], s[k[1]], s[k[2]]));
    };
  };
}

// Where the faces of a batch may be seen, and which of them in each of several bands of rows. Band k begins at row
// begins[k], the last one ends before begins.back().
class Windows {
 public:
  // Faces reach blur(b) pixels beyond their edges. What `drawn(b)` returns tells of every face of batch element b, given its
  // corners, null where it names a vertex that does not exist, whether it is drawn.
  template <typename Faces, typename Blur, typename Drawn>
  Windows(Team& team, const Array<Vertex>& screen, const Faces& f, int64_t B, int64_t V, int width,
          const std::vector<int>& begins, const Blur& blur, const Drawn& drawn)
      : F_(f.dim(0)), chunks_(chunk_count(B)), bands_((int64_t)begins.size() - 1), box_(B * F_),
        faces_(B * chunks_ * bands_) {
    const int height = begins.back();
    std::vector<int32_t> band_of(height);
    for (int64_t k = 0; k < bands_; ++k) std::fill(band_of.begin() + begins[k], band_of.begin() + begins[k + 1], k);
    team.each(B * chunks_, [&](int64_t task) {
      const int64_t b = task / chunks_, c = task % chunks_, F = F_, first = F * c / chunks_, last = F * (c + 1) / chunks_;
      const Vertex* s = screen.data() + b * V;
      const int32_t *triangles = f.at(b), *band_at = band_of.data();
      Bounds* box = &box_[b * F_];
      const auto is_drawn = drawn(b);
#ifdef FACEFIT_FOUR_AT_ONCE
      const FourBounds all(width, height, blur(b));
      auto bounds_of = [&](const Vertex& p, const Vertex& q, const Vertex& r) { return all.of(p, q, r); };
#else
      auto bounds_of = [&, reach = blur(b)](const Vertex& p, const Vertex& q, const Vertex& r) {
        return bounds(p, q, r, width, height, reach);
      };
#endif
      std::vector<int32_t>* lists = &faces_[task * bands_];
      for (int64_t k = 0; k < bands_; ++k) lists[k].reserve(2 * (last - first) / bands_);
      for (int64_t i = first; i < last; ++i) {
        const int32_t* k;
        const bool there = corners_of(triangles, F, V, i, &k);
        if (!is_drawn(i, there ? k : nullptr)) continue;
        const Bounds r = box[i] = bounds_of(s[k[0]], s[k[1]], s[k[2]]);
        if (r.first_x > r.last_x || r.first_y > r.last_y) continue;
        for (int32_t band = band_at[r.first_y]; band <= band_at[r.last_y]; ++band) lists[band].push_back((int32_t)i);
      }
    });
  }

  // Calls each(face, bounds) for the faces that may be seen in a band, in rising order.
  template <typename Each>
  void every_face(int64_t b, int64_t band, const Each& each) const {
    for (int64_t c = 0; c < chunks_; ++c)
      for (const int64_t i : faces_[(b * chunks_ + c) * bands_ + band]) each(i, box_[b * F_ + i]);
  }

 private:
  int64_t F_, chunks_, bands_;
  Array<Bounds> box_;                         // (B, F)
  std::vector<std::vector<int32_t>> faces_;   // (B, chunks, bands): the faces are cut into chunks to be looked at
};

// The nearest face of every pixel of the band of rows `first` to `last`; `shown` begins at row `first`.
// Faces come in rising order, so that a strict comparison leaves the lower index at equal depth.
FACEFIT_FOR_AVX2_TOO inline void nearest_faces(const Vertex* s, const int32_t* triangles, const Windows& windows, int64_t b, int64_t band,
                          int first, int last, int width, int32_t* shown) {
  const int64_t pixels = (int64_t)(last + 1 - first) * width;
  // Four pixels are written at once, so up to three beyond the last: not in the result, where other rows go on.
  std::vector<int32_t> index(pixels + 3, -1);
  std::vector<float> z(pixels + 3, std::numeric_limits<float>::infinity());
  windows.every_face(b, band, [&](int64_t i, const Bounds& r) {
    const int y0 = std::max<int>(r.first_y, first), y1 = std::min<int>(r.last_y, last);
    const Vertex a = s[triangles[3 * i]], b = s[triangles[3 * i + 1]], c = s[triangles[3 * i + 2]];
    auto ask = [&](int x, int y) {
      const int64_t at = (int64_t)(y - first) * width + x;
      float d;
      if (covers(a, b, c, x + 0.5f, y + 0.5f, &d) && d < z[at]) z[at] = d, index[at] = (int32_t)i;
    };
#ifdef FACEFIT_FOUR_AT_ONCE
    auto look = [&](auto front) {
      for (int x = r.first_x; x <= r.last_x; x += 4) {
        const FourCenters<front> four(a, b, c, x + 0.5f, r.last_x - x + 1);
        for (int y = y0; y <= y1; ++y) {
          const int64_t at = (int64_t)(y - first) * width + x;
          int doubtful = four.keep_nearest(y + 0.5f, (int32_t)i, &z[at], &index[at]);
          for (; doubtful; doubtful &= doubtful - 1) ask(x + __builtin_ctz(doubtful), y);
        }
      }
    };
    if (a.w == 1.0f && b.w == 1.0f && c.w == 1.0f) return look(std::true_type());
    look(std::false_type());
#else
    for (int y = y0; y <= y1; ++y)
      for (int x = r.first_x; x <= r.last_x; ++x) ask(x, y);
#endif
  });
  std::copy(index.begin(), index.begin() + pixels, shown);
}

// vertices (V, 4), faces (F, 3) -> face_index (H, W), barycentric (H, W, 3), depth (H, W)
inline ffi::Error rasterize(Team team, Floats vertices, Ints faces, bool cull, IntResult face_index,
                            FloatResult barycentric, FloatResult depth) {
  const Batch batch(*face_index, 2);
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 2], width = (int)face_index->dimensions()[rank - 1];
  const int64_t pixels = (int64_t)height * width, V = v.dim(0), F = f.dim(0), B = batch.count();
  if (pixels == 0 || B == 0) return ffi::Error::Success();
  expect_large_results(face_index, barycentric, depth);
  const float half_x = 0.5f * width, half_y = 0.5f * height;

  const auto screen = screen_vertices(team, v, B, half_x, half_y);
  const auto begins = begins_of_bands(height, band_count(height, B));
  const int64_t bands = (int64_t)begins.size() - 1;
  const Windows windows(team, screen, f, B, V, width, begins, kNoBlur, all_faces(screen, V, cull));
  team.each(B * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    const int first = begins[band], last = begins[band + 1] - 1;
    const int32_t* triangles = f.at(b);
    const float* clip = v.at(b);
    const Vertex* s = screen.data() + b * V;
    int32_t* index = face_index->typed_data() + b * pixels;
    float* z = depth->typed_data() + b * pixels;
    float* weights = barycentric->typed_data() + 3 * b * pixels;
    nearest_faces(s, triangles, windows, b, band, first, last, width, index + (int64_t)first * width);
    Surface value;
    for (int y = first; y <= last; ++y)
      for (int x = 0; x < width; ++x) {
        const int64_t at = (int64_t)y * width + x;
        const int32_t* k;
        const bool hit = corners_of(triangles, F, V, index[at], &k);
        if (hit) {
          const float* const corner[3] = {clip + 4 * k[0], clip + 4 * k[1], clip + 4 * k[2]};
          surface_at(corner, x + 0.5f, y + 0.5f, half_x, half_y, &value);
        }
        for (int j = 0; j < 3; ++j) weights[3 * at + j] = hit ? value.barycentric[j] : 0.0f;
        z[at] = hit ? value.depth : 1.0f;
      }
  });
  return ffi::Error::Success();
}

// Calls each(b, part, corners, surface, pixel) for every pixel that shows a face.
template <typename Each>
inline void every_surface(Team& team, const Batch& batch, int64_t parts, const Floats& vertices,
                          const Ints& faces, const Ints& face_index, const Each& each) {
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 2);
  const int64_t height = index.dim(0), width = index.dim(1);
  const float half_x = 0.5f * width, half_y = 0.5f * height;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const int32_t *triangles = f.at(b), *shown = index.at(b), *k;
    const float* clip = v.at(b);
    Surface value;
    for (int64_t y = height * part / parts; y < height * (part + 1) / parts; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t at = y * width + x;
        if (!corners_of(triangles, f.dim(0), v.dim(0), shown[at], &k)) continue;
        const float* const corner[3] = {clip + 4 * k[0], clip + 4 * k[1], clip + 4 * k[2]};
        if (surface_at(corner, x + 0.5f, y + 0.5f, half_x, half_y, &value)) each(b, part, k, value, at);
      }
  });
}

// vertices (V, 4), faces (F, 3), face_index (H, W), tangent of vertices (V, 4) -> tangents of barycentric and depth
inline ffi::Error surface_forward(Team team, Floats vertices, Ints faces, Ints face_index, Floats tangent,
                                  FloatResult d_barycentric, FloatResult d_depth) {
  const Batch batch(*d_depth, 2);
  const auto t = operand<float>(tangent, batch, 2);
  const int64_t pixels = batch.count() ? d_depth->element_count() / batch.count() : 0;
  float *weights = d_barycentric->typed_data(), *z = d_depth->typed_data();
  std::fill(weights, weights + d_barycentric->element_count(), 0.0f);
  std::fill(z, z + d_depth->element_count(), 0.0f);
  if (pixels == 0) return ffi::Error::Success();
  every_surface(team, batch, 4, vertices, faces, face_index,
                [&](int64_t b, int64_t, const int32_t* k, const Surface& value, int64_t at) {
                  const float* d = t.at(b);
                  const float* const corner[3] = {d + 4 * k[0], d + 4 * k[1], d + 4 * k[2]};
                  surface_jvp(value, corner, weights + 3 * (b * pixels + at), z + b * pixels + at);
                });
  return ffi::Error::Success();
}

// vertices, faces, face_index, gradients of barycentric (H, W, 3) and depth (H, W) -> gradient of vertices (V, 4)
inline ffi::Error surface_backward(Team team, Floats vertices, Ints faces, Ints face_index,
                                   Floats g_barycentric, Floats g_depth, FloatResult g_vertices) {
  const Batch batch(*g_vertices, 2);
  const auto gb = operand<float>(g_barycentric, batch, 3);
  const auto gd = operand<float>(g_depth, batch, 2);
  if (g_vertices->element_count() == 0) return ffi::Error::Success();
  Gather gather(team, g_vertices->typed_data(), batch.count(), g_vertices->element_count() / batch.count());
  every_surface(team, batch, gather.parts(), vertices, faces, face_index,
                [&](int64_t b, int64_t part, const int32_t* k, const Surface& value, int64_t at) {
                  float* g = gather.part(b, part);
                  float* const corner[3] = {g + 4 * k[0], g + 4 * k[1], g + 4 * k[2]};
                  surface_vjp(value, gb.at(b) + 3 * at, gd.at(b)[at], corner);
                });
  gather.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
