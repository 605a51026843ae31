// Loops of rasterization with several fragments a pixel on the CPU: the nearest K that reach it, and their derivative.
#pragma once

#include <limits>

#include "blur.h"
#include "interpolation.h"

namespace facefit {

// vertices (V, 4), faces (F, 3), blur () -> face_index (H, W, K), barycentric (H, W, K, 3), depth and signed distance
// (H, W, K)
inline ffi::Error fragments(ffi::ThreadPool pool, Floats vertices, Ints faces, Floats blur, IntResult face_index,
                            FloatResult barycentric, FloatResult depth, FloatResult distance) {
  const Batch batch(*face_index, 3);
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const auto radius = operand<float>(blur, batch, 0);
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 3], width = (int)face_index->dimensions()[rank - 2];
  const int64_t K = face_index->dimensions()[rank - 1];
  const int64_t pixels = (int64_t)height * width, V = v.dim(0), F = f.dim(0), B = batch.count();
  if (pixels == 0 || B == 0 || K == 0) return ffi::Error::Success();
  const float half_x = 0.5f * width, half_y = 0.5f * height;

  const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
  const int64_t bands = std::min<int64_t>(height, B >= 4 * threads ? 1 : 4 * threads);
  std::vector<Vertex> screen(B * V);
  std::vector<Bounds> box(B * F);
  parallel_for(pool, B * bands, [&](int64_t task) {
    const int64_t b = task / bands, c = task % bands;
    for (int64_t i = V * c / bands; i < V * (c + 1) / bands; ++i)
      screen[b * V + i] = screen_vertex(v.at(b) + 4 * i, half_x, half_y);
  });
  parallel_for(pool, B * bands, [&](int64_t task) {
    const int64_t b = task / bands, c = task % bands;
    const Vertex* s = screen.data() + b * V;
    const int32_t* k;
    for (int64_t i = F * c / bands; i < F * (c + 1) / bands; ++i)
      box[b * F + i] = corners_of(f.at(b), F, V, i, &k)
                           ? bounds(s[k[0]], s[k[1]], s[k[2]], width, height, *radius.at(b))
                           : Bounds{1, 1, 0, 0};
  });
  // Each pixel's list is kept in the result, nearest first. Faces come in rising order, so that a strict comparison
  // leaves the lower index before the higher at equal depth.
  parallel_for(pool, B * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    const int first = (int)(height * band / bands), last = (int)(height * (band + 1) / bands) - 1;
    const int32_t* triangles = f.at(b);
    const float *clip = v.at(b), blur_squared = *radius.at(b) * *radius.at(b);
    const Vertex* s = screen.data() + b * V;
    const int64_t base = K * (b * pixels + (int64_t)first * width), end = K * (b * pixels + (int64_t)(last + 1) * width);
    int32_t* index = face_index->typed_data();
    float *z = depth->typed_data(), *weights = barycentric->typed_data(), *away = distance->typed_data();
    std::fill(index + base, index + end, -1);
    std::fill(z + base, z + end, std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < F; ++i) {
      const Bounds r = box[b * F + i];
      const int y0 = std::max<int>(r.first_y, first), y1 = std::min<int>(r.last_y, last);
      if (r.first_x > r.last_x || y0 > y1) continue;
      const Vertex p = s[triangles[3 * i]], q = s[triangles[3 * i + 1]], t = s[triangles[3 * i + 2]];
      const Edges edges = edges_of(p, q, t, blur_squared);
      for (int y = y0; y <= y1; ++y)
        for (int x = r.first_x; x <= r.last_x; ++x) {
          const float px = x + 0.5f, py = y + 0.5f;
          float d;
          if (!covers(p, q, t, px, py, &d) && !reaches(p, q, t, edges, blur_squared, px, py, &d)) continue;
          const int64_t at = K * (b * pixels + (int64_t)y * width + x);
          int64_t k = K;
          for (; k > 0 && d < z[at + k - 1]; --k)
            if (k < K) z[at + k] = z[at + k - 1], index[at + k] = index[at + k - 1];
          if (k < K) z[at + k] = d, index[at + k] = (int32_t)i;
        }
    }
    Fragment value;
    for (int64_t at = base; at < end; ++at) {
      const int32_t* k;
      const int64_t pixel = at / K - b * pixels;
      bool hit = corners_of(triangles, F, V, index[at], &k);
      if (hit) {
        const float* const corner[3] = {clip + 4 * k[0], clip + 4 * k[1], clip + 4 * k[2]};
        fragment_at(corner, pixel % width + 0.5f, pixel / width + 0.5f, half_x, half_y, &value);
      }
      for (int j = 0; j < 3; ++j) weights[3 * at + j] = hit ? value.surface.barycentric[j] : 0.0f;
      z[at] = hit ? value.surface.depth : 1.0f;
      away[at] = hit ? value.distance : 0.0f;
    }
  });
  return ffi::Error::Success();
}

// vertices, faces, face_index (H, W, K), gradients of barycentric, depth and signed distance -> gradient of vertices
inline ffi::Error fragments_backward(ffi::ThreadPool pool, Floats vertices, Ints faces, Ints face_index,
                                     Floats g_barycentric, Floats g_depth, Floats g_distance, FloatResult g_vertices) {
  const Batch batch(*g_vertices, 2);
  const auto v = operand<float>(vertices, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 3);
  const auto gb = operand<float>(g_barycentric, batch, 4);
  const auto gz = operand<float>(g_depth, batch, 3), gd = operand<float>(g_distance, batch, 3);
  float* result = g_vertices->typed_data();
  std::fill(result, result + g_vertices->element_count(), 0.0f);
  if (g_vertices->element_count() == 0 || index.size == 0) return ffi::Error::Success();
  const int64_t width = index.dim(1), K = index.dim(2);
  const float half_x = 0.5f * width, half_y = 0.5f * index.dim(0);
  Gather gather(batch.count(), v.size);
  every_fragment(pool, batch, gather.parts(), v.dim(0), faces, face_index,
                 [&](int64_t b, int64_t part, const int32_t* k, int64_t at) {
                   const float *clip = v.at(b), *weight = gb.at(b) + 3 * at, z = gz.at(b)[at], d = gd.at(b)[at];
                   if (weight[0] == 0 && weight[1] == 0 && weight[2] == 0 && z == 0 && d == 0) return;
                   const float* const corner[3] = {clip + 4 * k[0], clip + 4 * k[1], clip + 4 * k[2]};
                   const int64_t pixel = at / K;
                   Fragment value;
                   if (!fragment_at(corner, pixel % width + 0.5f, pixel / width + 0.5f, half_x, half_y, &value)) return;
                   float* g = gather.part(result, b, part);
                   float* const g_corner[3] = {g + 4 * k[0], g + 4 * k[1], g + 4 * k[2]};
                   fragment_vjp(value, weight, z, d, g_corner);
                 });
  gather.add(result);
  return ffi::Error::Success();
}

}  // namespace facefit
