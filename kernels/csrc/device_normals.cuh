// Vertex normals on CUDA: sums over adjacent triangles, made unit length, with both derivatives.
#pragma once

#include "device_rasterization.cuh"
#include "direction.h"

namespace facefit {

// Faces (F, 3) with vertices (V, 3).
struct Solid {
  Part<float> vertices;
  Part<int32_t> faces;
  int64_t V, F;

  __device__ bool corners(int64_t b, int64_t face, const int32_t** k) const {
    return corners_of(faces.at(b), F, V, face, k);
  }
};

inline Solid solid_of(const Batch& batch, const Floats& vertices, const Ints& faces) {
  return {batch.part<float>(vertices, 2), batch.part<int32_t>(faces, 2), axis(vertices, 1), axis(faces, 1)};
}

template <typename Sink>
__device__ void add_to(Sink& sink, int32_t vertex, const Direction& d) {
  sink(0, 3 * (int64_t)vertex, d.x), sink(0, 3 * (int64_t)vertex + 1, d.y), sink(0, 3 * (int64_t)vertex + 2, d.z);
}

// The triangles' normals.
struct FaceNormals {
  Solid of;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t face, Sink& sink) const {
    const int32_t* k;
    if (!of.corners(b, face, &k)) return;
    const float* v = of.vertices.at(b);
    const Direction a = direction(v + 3 * k[0]);
    const Direction n = cross(direction(v + 3 * k[1]) - a, direction(v + 3 * k[2]) - a);
    for (int j = 0; j < 3; ++j) add_to(sink, k[j], n);
  }
};

struct FaceNormalsForward {
  Solid of;
  Part<float> tangent;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t face, Sink& sink) const {
    const int32_t* k;
    if (!of.corners(b, face, &k)) return;
    const float *v = of.vertices.at(b), *d = tangent.at(b);
    const Direction a = direction(v + 3 * k[0]), da = direction(d + 3 * k[0]);
    const Direction p = direction(v + 3 * k[1]) - a, q = direction(v + 3 * k[2]) - a;
    const Direction dp = direction(d + 3 * k[1]) - da, dq = direction(d + 3 * k[2]) - da;
    const Direction n = cross(dp, q) + cross(p, dq);
    for (int j = 0; j < 3; ++j) add_to(sink, k[j], n);
  }
};

struct FaceNormalsBackward {
  Solid of;
  Part<float> sums, gradient;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t face, Sink& sink) const {
    const int32_t* k;
    if (!of.corners(b, face, &k)) return;
    const float *v = of.vertices.at(b), *s = sums.at(b), *g = gradient.at(b);
    Direction n = {0, 0, 0};
    for (int j = 0; j < 3; ++j) n = n + unit_derivative(direction(s + 3 * k[j]), direction(g + 3 * k[j]));
    const Direction a = direction(v + 3 * k[0]);
    const Direction gp = cross(direction(v + 3 * k[2]) - a, n), gq = cross(n, direction(v + 3 * k[1]) - a);
    add_to(sink, k[1], gp), add_to(sink, k[2], gq), add_to(sink, k[0], Direction{0, 0, 0} - (gp + gq));
  }
};

struct WriteNormals {
  Sums sums;
  float *normals, *before;
  __device__ void operator()(int64_t b, int64_t i) const {
    const int64_t at = b * sums.length + 3 * i;
    const Direction n = {sums.value(b, 3 * i), sums.value(b, 3 * i + 1), sums.value(b, 3 * i + 2)}, u = unit(n);
    normals[at] = u.x, normals[at + 1] = u.y, normals[at + 2] = u.z;
    before[at] = n.x, before[at + 1] = n.y, before[at + 2] = n.z;
  }
};

struct WriteNormalsForward {
  Sums moved;
  Part<float> sums;
  float* out;
  __device__ void operator()(int64_t b, int64_t i) const {
    const Direction d = {moved.value(b, 3 * i), moved.value(b, 3 * i + 1), moved.value(b, 3 * i + 2)};
    const Direction u = unit_derivative(direction(sums.at(b) + 3 * i), d);
    float* to = out + b * moved.length + 3 * i;
    to[0] = u.x, to[1] = u.y, to[2] = u.z;
  }
};

// vertices (V, 3), faces (F, 3) -> unit normals (V, 3), their sums before (V, 3)
inline ffi::Error normals(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                          FloatResult result, FloatResult before) {
  Call call(stream, scratch);
  const Batch batch(*result, 2);
  const Solid of = solid_of(batch, vertices, faces);
  const int64_t B = batch.count();
  if (result->element_count() == 0) return ffi::Error::Success();
  const SumsOf<1> sums = {{sums_of(call, B, 3 * of.V, 3 * of.F)}};
  add_up(call, of.F, B, sums, FaceNormals{of});
  every(call, of.V, B, WriteNormals{sums.group[0], result->typed_data(), before->typed_data()});
  return call.status(batch);
}

// vertices, faces, sums, tangent of vertices -> tangent of the normals
inline ffi::Error normals_forward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                                  Floats before, Floats tangent, FloatResult result) {
  Call call(stream, scratch);
  const Batch batch(*result, 2);
  const Solid of = solid_of(batch, vertices, faces);
  const int64_t B = batch.count();
  if (result->element_count() == 0) return ffi::Error::Success();
  const SumsOf<1> sums = {{sums_of(call, B, 3 * of.V, 3 * of.F)}};
  add_up(call, of.F, B, sums, FaceNormalsForward{of, batch.part<float>(tangent, 2)});
  every(call, of.V, B, WriteNormalsForward{sums.group[0], batch.part<float>(before, 2), result->typed_data()});
  return call.status(batch);
}

// vertices, faces, sums, gradient of the normals -> gradient of the vertices
inline ffi::Error normals_backward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                                   Floats before, Floats gradient, FloatResult result) {
  Call call(stream, scratch);
  const Batch batch(*result, 2);
  const Solid of = solid_of(batch, vertices, faces);
  const int64_t B = batch.count();
  if (result->element_count() == 0) return ffi::Error::Success();
  const SumsOf<1> sums = {{sums_of(call, B, 3 * of.V, 3 * of.F)}};
  add_up(call, of.F, B, sums, FaceNormalsBackward{of, batch.part<float>(before, 2), batch.part<float>(gradient, 2)});
  write(call, B, sums.group[0], result->typed_data());
  return call.status(batch);
}

}  // namespace facefit
