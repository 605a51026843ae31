// Interpolation on CUDA: vertex attributes at every fragment, with both derivatives.
#pragma once

#include "device_rasterization.cuh"

namespace facefit {

// Attributes (V, C) at fragments (H, W, K), counted by one index.
struct Interpolated {
  Part<float> attributes;
  Part<int32_t> faces, face_index;
  Part<float> barycentric;
  int64_t V, F, C, fragments;

  __device__ bool corners(int64_t b, int64_t at, const int32_t** k) const {
    return corners_of(faces.at(b), F, V, face_index.at(b)[at], k);
  }
};

inline Interpolated interpolated_of(const Batch& batch, const Floats& attributes, const Ints& faces,
                                    const Ints& face_index, const Floats& barycentric) {
  return {batch.part<float>(attributes, 2),  batch.part<int32_t>(faces, 2), batch.part<int32_t>(face_index, 3),
          batch.part<float>(barycentric, 4), axis(attributes, 1),           axis(faces, 1),
          axis(attributes, 0),               axis(face_index, 2) * axis(face_index, 1) * axis(face_index, 0)};
}

struct Interpolate {
  Interpolated of;
  float* out;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t C = of.C;
    const int32_t* k;
    const bool hit = of.corners(b, at, &k);
    const float *values = of.attributes.at(b), *w = of.barycentric.at(b) + 3 * at;
    float* to = out + C * (b * of.fragments + at);
    for (int64_t c = 0; c < C; ++c)
      to[c] = hit ? w[0] * values[C * k[0] + c] + w[1] * values[C * k[1] + c] + w[2] * values[C * k[2] + c] : 0.0f;
  }
};

struct InterpolateForward {
  Interpolated of;
  Part<float> d_attributes, d_barycentric;
  float* out;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t C = of.C;
    const int32_t* k;
    const bool hit = of.corners(b, at, &k);
    const float *values = of.attributes.at(b), *d_values = d_attributes.at(b);
    const float *w = of.barycentric.at(b) + 3 * at, *dw = d_barycentric.at(b) + 3 * at;
    float* to = out + C * (b * of.fragments + at);
    for (int64_t c = 0; c < C; ++c) {
      float sum = 0;
      if (hit)
        for (int j = 0; j < 3; ++j) sum += w[j] * d_values[C * k[j] + c] + dw[j] * values[C * k[j] + c];
      to[c] = sum;
    }
  }
};

struct InterpolateBackward {
  Interpolated of;
  Part<float> gradient;
  float* g_barycentric;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t at, Sink& sink) const {
    const int64_t C = of.C;
    const int32_t* k;
    const bool hit = of.corners(b, at, &k);
    const float *values = of.attributes.at(b), *w = of.barycentric.at(b) + 3 * at, *from = gradient.at(b) + C * at;
    float* to = g_barycentric + 3 * (b * of.fragments + at);
    for (int j = 0; j < 3; ++j) {
      float dot = 0;
      if (hit)
        for (int64_t c = 0; c < C; ++c) {
          dot += from[c] * values[C * k[j] + c];
          sink(0, C * k[j] + c, w[j] * from[c]);
        }
      to[j] = dot;
    }
  }
};

// attributes (V, C), faces (F, 3), face_index (H, W, K), barycentric (H, W, K, 3) -> (H, W, K, C)
inline ffi::Error interpolate(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats attributes, Ints faces,
                              Ints face_index, Floats barycentric, FloatResult out) {
  Call call(stream, scratch);
  const Batch batch(*out, 4);
  if (out->element_count() == 0) return ffi::Error::Success();
  const Interpolated of = interpolated_of(batch, attributes, faces, face_index, barycentric);
  every(call, of.fragments, batch.count(), Interpolate{of, out->typed_data()});
  return call.status(batch);
}

// As above with the tangents of attributes and barycentric -> tangent of the result
inline ffi::Error interpolate_forward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats attributes, Ints faces,
                                      Ints face_index, Floats barycentric, Floats d_attributes, Floats d_barycentric,
                                      FloatResult out) {
  Call call(stream, scratch);
  const Batch batch(*out, 4);
  if (out->element_count() == 0) return ffi::Error::Success();
  const Interpolated of = interpolated_of(batch, attributes, faces, face_index, barycentric);
  every(call, of.fragments, batch.count(),
        InterpolateForward{of, batch.part<float>(d_attributes, 2), batch.part<float>(d_barycentric, 4),
                           out->typed_data()});
  return call.status(batch);
}

// As `interpolate`, with the gradient of its result -> gradients of attributes and barycentric
inline ffi::Error interpolate_backward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats attributes, Ints faces,
                                       Ints face_index, Floats barycentric, Floats gradient, FloatResult g_attributes,
                                       FloatResult g_barycentric) {
  Call call(stream, scratch);
  const Batch batch(*g_attributes, 2);
  if (batch.count() == 0) return ffi::Error::Success();
  const Interpolated of = interpolated_of(batch, attributes, faces, face_index, barycentric);
  const int64_t B = batch.count();
  const SumsOf<1> sums = {{sums_of(call, B, of.C * of.V, 3 * of.fragments)}};
  add_up(call, of.fragments, B, sums,
         InterpolateBackward{of, batch.part<float>(gradient, 4), g_barycentric->typed_data()});
  write(call, B, sums.group[0], g_attributes->typed_data());
  return call.status(batch);
}

}  // namespace facefit
