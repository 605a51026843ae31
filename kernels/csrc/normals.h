// Loops of vertex normals on the CPU: sums over adjacent triangles, made unit length, with both derivatives.
#pragma once

#include "direction.h"
#include "rasterization.h"

namespace facefit {

// Calls each(b, part, corners) for every triangle of a part of the batch's faces.
template <typename Faces, typename Each>
inline void every_face(Team& team, int64_t B, int64_t parts, const Faces& f, int64_t V, const Each& each) {
  team.each(B * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts, F = f.dim(0);
    const int32_t* k;
    for (int64_t i = F * part / parts; i < F * (part + 1) / parts; ++i)
      if (corners_of(f.at(b), F, V, i, &k)) each(b, part, k);
  });
}

// The sums of the triangles' normals around every vertex, before they are made unit length.
template <typename Vertices, typename Faces>
inline void normal_sums(Team& team, int64_t B, const Vertices& v, const Faces& f, float* sums) {
  Gather gather(team, sums, B, v.size);
  every_face(team, B, gather.parts(), f, v.dim(0), [&](int64_t b, int64_t part, const int32_t* k) {
    float* to = gather.part(b, part);
    const Direction a = direction(v.at(b) + 3 * k[0]);
    const Direction n = cross(direction(v.at(b) + 3 * k[1]) - a, direction(v.at(b) + 3 * k[2]) - a);
    for (int j = 0; j < 3; ++j) add(to + 3 * k[j], n);
  });
  gather.add(team);
}

// vertices (V, 3), faces (F, 3) -> unit normals (V, 3), their sums before (V, 3)
inline ffi::Error normals(Team team, Floats vertices, Ints faces, FloatResult result, FloatResult sums) {
  const Batch batch(*result, 2);
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  normal_sums(team, batch.count(), v, f, sums->typed_data());
  for (size_t i = 0; i + 2 < result->element_count(); i += 3) {
    const Direction u = unit(direction(sums->typed_data() + i));
    float* to = result->typed_data() + i;
    to[0] = u.x, to[1] = u.y, to[2] = u.z;
  }
  return ffi::Error::Success();
}

// vertices, faces, sums, tangent of vertices -> tangent of the normals
inline ffi::Error normals_forward(Team team, Floats vertices, Ints faces, Floats sums, Floats tangent,
                                  FloatResult result) {
  const Batch batch(*result, 2);
  const auto v = operand<float>(vertices, batch, 2), s = operand<float>(sums, batch, 2);
  const auto t = operand<float>(tangent, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  float* out = result->typed_data();
  Gather gather(team, out, batch.count(), v.size);
  every_face(team, batch.count(), gather.parts(), f, v.dim(0), [&](int64_t b, int64_t part, const int32_t* k) {
    float* to = gather.part(b, part);
    const Direction a = direction(v.at(b) + 3 * k[0]), da = direction(t.at(b) + 3 * k[0]);
    const Direction p = direction(v.at(b) + 3 * k[1]) - a, q = direction(v.at(b) + 3 * k[2]) - a;
    const Direction dp = direction(t.at(b) + 3 * k[1]) - da, dq = direction(t.at(b) + 3 * k[2]) - da;
    const Direction n = cross(dp, q) + cross(p, dq);
    for (int j = 0; j < 3; ++j) add(to + 3 * k[j], n);
  });
  gather.add(team);
  for (int64_t b = 0; b < batch.count(); ++b)
    for (int64_t i = 0; i < v.size; i += 3) {
      float* to = out + b * v.size + i;
      const Direction u = unit_derivative(direction(s.at(b) + i), direction(to));
      to[0] = u.x, to[1] = u.y, to[2] = u.z;
    }
  return ffi::Error::Success();
}

// vertices, faces, sums, gradient of the normals -> gradient of the vertices
inline ffi::Error normals_backward(Team team, Floats vertices, Ints faces, Floats sums, Floats gradient,
                                   FloatResult result) {
  const Batch batch(*result, 2);
  const auto v = operand<float>(vertices, batch, 2), s = operand<float>(sums, batch, 2);
  const auto g = operand<float>(gradient, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const int64_t B = batch.count();
  std::vector<float> by_sum(B * v.size);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t i = 0; i < v.size; i += 3) {
      const Direction u = unit_derivative(direction(s.at(b) + i), direction(g.at(b) + i));
      float* to = by_sum.data() + b * v.size + i;
      to[0] = u.x, to[1] = u.y, to[2] = u.z;
    }
  Gather gather(team, result->typed_data(), B, v.size);
  every_face(team, B, gather.parts(), f, v.dim(0), [&](int64_t b, int64_t part, const int32_t* k) {
    float* to = gather.part(b, part);
    const float* from = by_sum.data() + b * v.size;
    const Direction n = direction(from + 3 * k[0]) + direction(from + 3 * k[1]) + direction(from + 3 * k[2]);
    const Direction a = direction(v.at(b) + 3 * k[0]);
    const Direction gp = cross(direction(v.at(b) + 3 * k[2]) - a, n);
    const Direction gq = cross(n, direction(v.at(b) + 3 * k[1]) - a);
    add(to + 3 * k[1], gp), add(to + 3 * k[2], gq);
    add(to + 3 * k[0], Direction{0, 0, 0} - (gp + gq));
  });
  gather.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
