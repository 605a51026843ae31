// Loops of interpolation on the CPU: vertex attributes at every fragment, with both derivatives.
#pragma once

#include <type_traits>

#include "rasterization.h"

namespace facefit {

// Calls f with the number of attributes: known to the compiler where there are three, the commonest case.
template <typename F>
inline void with_channels(int64_t C, const F& f) {
  if (C == 3) return f(std::integral_constant<int64_t, 3>());
  f(C);
}

// Calls each(b, part, corners, fragment) for every fragment that shows a face. face_index is (H, W, K).
template <typename Each>
inline void every_fragment(Team& team, const Batch& batch, int64_t parts, int64_t vertex_count,
                           const Ints& faces, const Ints& face_index, const Each& each) {
  const auto f = operand<int32_t>(faces, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 3);
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const int32_t *triangles = f.at(b), *shown = index.at(b), *k;
    for (int64_t at = index.size * part / parts; at < index.size * (part + 1) / parts; ++at)
      if (corners_of(triangles, f.dim(0), vertex_count, shown[at], &k)) each(b, part, k, at);
  });
}

// attributes (V, C), faces (F, 3), face_index (H, W, K), barycentric (H, W, K, 3) -> (H, W, K, C)
inline ffi::Error interpolate(Team team, Floats attributes, Ints faces, Ints face_index, Floats barycentric,
                              FloatResult out) {
  const Batch batch(*out, 4);
  const auto a = operand<float>(attributes, batch, 2);
  const auto w = operand<float>(barycentric, batch, 4);
  float* result = out->typed_data();
  std::fill(result, result + out->element_count(), 0.0f);
  if (out->element_count() == 0) return ffi::Error::Success();
  const int64_t C = a.dim(1), size = out->element_count() / batch.count();
  every_fragment(team, batch, 8, a.dim(0), faces, face_index, [&](int64_t b, int64_t, const int32_t* k, int64_t at) {
    const float *values = a.at(b), *weight = w.at(b) + 3 * at;
    float* to = result + b * size + C * at;
    for (int64_t c = 0; c < C; ++c)
      to[c] = weight[0] * values[C * k[0] + c] + weight[1] * values[C * k[1] + c] + weight[2] * values[C * k[2] + c];
  });
  return ffi::Error::Success();
}

// As above with the tangents of attributes and barycentric -> tangent of the result
inline ffi::Error interpolate_forward(Team team, Floats attributes, Ints faces, Ints face_index,
                                      Floats barycentric, Floats d_attributes, Floats d_barycentric,
                                      FloatResult out) {
  const Batch batch(*out, 4);
  const auto a = operand<float>(attributes, batch, 2), da = operand<float>(d_attributes, batch, 2);
  const auto w = operand<float>(barycentric, batch, 4), dw = operand<float>(d_barycentric, batch, 4);
  float* result = out->typed_data();
  std::fill(result, result + out->element_count(), 0.0f);
  if (out->element_count() == 0) return ffi::Error::Success();
  const int64_t C = a.dim(1), size = out->element_count() / batch.count();
  every_fragment(team, batch, 8, a.dim(0), faces, face_index, [&](int64_t b, int64_t, const int32_t* k, int64_t at) {
    const float *values = a.at(b), *d_values = da.at(b), *weight = w.at(b) + 3 * at, *d_weight = dw.at(b) + 3 * at;
    float* to = result + b * size + C * at;
    for (int64_t c = 0; c < C; ++c) {
      float sum = 0;
      for (int j = 0; j < 3; ++j)
        sum += weight[j] * d_values[C * k[j] + c] + d_weight[j] * values[C * k[j] + c];
      to[c] = sum;
    }
  });
  return ffi::Error::Success();
}

// As `interpolate`, with the gradient of its result -> gradients of attributes and barycentric
inline ffi::Error interpolate_backward(Team team, Floats attributes, Ints faces, Ints face_index,
                                       Floats barycentric, Floats gradient, FloatResult g_attributes,
                                       FloatResult g_barycentric) {
  const Batch batch(*g_attributes, 2);
  const auto a = operand<float>(attributes, batch, 2);
  const auto w = operand<float>(barycentric, batch, 4);
  const auto g = operand<float>(gradient, batch, 4);
  float *ga = g_attributes->typed_data(), *gw = g_barycentric->typed_data();
  Gather gather(team, ga, batch.count(), a.size);
  std::fill(gw, gw + g_barycentric->element_count(), 0.0f);
  if (g_attributes->element_count() == 0 || g.size == 0) return ffi::Error::Success();
  const int64_t C = a.dim(1);
  every_fragment(team, batch, gather.parts(), a.dim(0), faces, face_index,
                 [&](int64_t b, int64_t part, const int32_t* k, int64_t at) {
                   const float *values = a.at(b), *weight = w.at(b) + 3 * at, *from = g.at(b) + C * at;
                   float *sum = gather.part(b, part), *to = gw + b * w.size + 3 * at;
                   for (int j = 0; j < 3; ++j) {
                     float dot = 0;
                     for (int64_t c = 0; c < C; ++c) {
                       dot += from[c] * values[C * k[j] + c];
                       sum[C * k[j] + c] += weight[j] * from[c];
                     }
                     to[j] = dot;
                   }
                 });
  gather.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
