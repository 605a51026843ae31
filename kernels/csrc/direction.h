// Vectors in space, and how a sum of triangles' normals becomes a unit normal.
#pragma once

#include "triangle.h"

namespace facefit {

// Squared lengths below this count as this: a zero normal stays zero and has a finite derivative.
constexpr float kShortestNormal = 1e-20f;

struct Direction {
  float x, y, z;
  FACEFIT_BOTH Direction operator-(const Direction& o) const { return {x - o.x, y - o.y, z - o.z}; }
  FACEFIT_BOTH Direction operator+(const Direction& o) const { return {x + o.x, y + o.y, z + o.z}; }
};
FACEFIT_BOTH Direction direction(const float* v) { return {v[0], v[1], v[2]}; }
FACEFIT_BOTH void add(float* to, const Direction& d) { to[0] += d.x, to[1] += d.y, to[2] += d.z; }
FACEFIT_BOTH Direction cross(const Direction& a, const Direction& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// n / |n|, and its derivative (which is its own transpose) applied to d.
FACEFIT_BOTH float squared_length(const Direction& n) { return n.x * n.x + n.y * n.y + n.z * n.z; }
FACEFIT_BOTH float to_unit(float squared) { return 1 / sqrtf(squared > kShortestNormal ? squared : kShortestNormal); }
FACEFIT_BOTH Direction unit(const Direction& n) {
  const float scale = to_unit(squared_length(n));
  return {n.x * scale, n.y * scale, n.z * scale};
}
FACEFIT_BOTH Direction unit_derivative(const Direction& n, const Direction& d) {
  const float squared = squared_length(n), scale = to_unit(squared);
  const Direction u = {n.x * scale, n.y * scale, n.z * scale};
  const float along = squared > kShortestNormal ? u.x * d.x + u.y * d.y + u.z * d.z : 0.0f;
  return {(d.x - along * u.x) * scale, (d.y - along * u.y) * scale, (d.z - along * u.z) * scale};
}

}  // namespace facefit
