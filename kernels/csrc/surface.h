// Barycentric coordinates and depth of a known triangle at a pixel's centre, with both derivatives.
#pragma once

#include "triangle.h"

namespace facefit {

// The value at one pixel and what the derivatives need of it; at several pixels where a Real is several numbers. Corners
// are clip coordinates.
template <typename Real>
struct SurfaceOf {
  Real rx[3], ry[3];      // corners in homogeneous pixels, relative to the centre
  Real z[3], w[3];
  float half_x, half_y;   // half the picture's width and height
  Real from_x, from_y;    // d rx / d w, d ry / d w
  Real total_inverse, w_inverse;
  Real barycentric[3], depth;
};
using Surface = SurfaceOf<float>;

// Returns the triangle's area as seen from here; where that is zero every value is.
template <typename Real>
FACEFIT_BOTH Real find_surface(const Real corner[3][4], Real px, Real py, float half_x, float half_y,
                               SurfaceOf<Real>* s) {
  s->half_x = half_x, s->half_y = half_y;
  s->from_x = half_x - px, s->from_y = half_y - py;
  for (int k = 0; k < 3; ++k) {
    const Real* v = corner[k];
    s->rx[k] = half_x * v[0] + s->from_x * v[3];
    s->ry[k] = half_y * v[1] + s->from_y * v[3];
    s->z[k] = v[2], s->w[k] = v[3];
  }
  Real edge[3], total = {};
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    edge[k] = s->rx[a] * s->ry[b] - s->ry[a] * s->rx[b];
    total += edge[k];
  }
  const Real none = {};
  s->total_inverse = total != none ? 1.0f / total : none;
  Real z = {}, w = {};
  for (int k = 0; k < 3; ++k) {
    const Real b = edge[k] * s->total_inverse;
    s->barycentric[k] = b;
    z += b * s->z[k], w += b * s->w[k];
  }
  s->w_inverse = w != none ? 1.0f / w : none;
  s->depth = z * s->w_inverse;
  return total;
}

// False where the triangle has no area as seen from here.
FACEFIT_BOTH bool surface_at(const float* const corner[3], float px, float py, float half_x, float half_y,
                             Surface* s) {
  float v[3][4];
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < 4; ++i) v[k][i] = corner[k][i];
  return find_surface(v, px, py, half_x, half_y, s) != 0;
}

// The gradient for the corners' rx and ry, given that for the barycentric coordinates.
template <typename Real>
FACEFIT_BOTH void barycentric_vjp(const SurfaceOf<Real>& s, const Real g_barycentric[3], Real gx[3], Real gy[3]) {
  Real ge[3], mean = {};
  for (int k = 0; k < 3; ++k) mean += g_barycentric[k] * s.barycentric[k];
  for (int k = 0; k < 3; ++k) ge[k] = (g_barycentric[k] - mean) * s.total_inverse;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    gx[k] = ge[b] * s.ry[a] - ge[a] * s.ry[b];
    gy[k] = ge[a] * s.rx[b] - ge[b] * s.rx[a];
  }
}

// Adds the gradient for the corners' clip coordinates, given that for the barycentric coordinates and the depth.
FACEFIT_BOTH void surface_vjp(const Surface& s, const float g_barycentric[3], float g_depth, float* const g_corner[3]) {
  const float gz = g_depth * s.w_inverse, gw = -gz * s.depth;
  float gb[3], gx[3], gy[3];
  for (int k = 0; k < 3; ++k) gb[k] = g_barycentric[k] + gz * s.z[k] + gw * s.w[k];
  barycentric_vjp(s, gb, gx, gy);
  for (int k = 0; k < 3; ++k) {
    g_corner[k][0] += s.half_x * gx[k];
    g_corner[k][1] += s.half_y * gy[k];
    g_corner[k][2] += gz * s.barycentric[k];
    g_corner[k][3] += gw * s.barycentric[k] + s.from_x * gx[k] + s.from_y * gy[k];
  }
}

// The change of the barycentric coordinates and the depth for a change of the corners' clip coordinates.
template <typename Real>
FACEFIT_BOTH void find_surface_jvp(const SurfaceOf<Real>& s, const Real d_corner[3][4], Real d_barycentric[3],
                                   Real* d_depth) {
  Real dx[3], dy[3], de[3], total = {};
  for (int k = 0; k < 3; ++k) {
    dx[k] = s.half_x * d_corner[k][0] + s.from_x * d_corner[k][3];
    dy[k] = s.half_y * d_corner[k][1] + s.from_y * d_corner[k][3];
  }
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    de[k] = (dx[a] * s.ry[b] + s.rx[a] * dy[b]) - (dy[a] * s.rx[b] + s.ry[a] * dx[b]);
    total += de[k];
  }
  Real dz = {}, dw = {};
  for (int k = 0; k < 3; ++k) {
    d_barycentric[k] = (de[k] - s.barycentric[k] * total) * s.total_inverse;
    dz += d_barycentric[k] * s.z[k] + s.barycentric[k] * d_corner[k][2];
    dw += d_barycentric[k] * s.w[k] + s.barycentric[k] * d_corner[k][3];
  }
  *d_depth = (dz - s.depth * dw) * s.w_inverse;
}

FACEFIT_BOTH void surface_jvp(const Surface& s, const float* const d_corner[3], float d_barycentric[3],
                              float* d_depth) {
  float d[3][4];
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < 4; ++i) d[k][i] = d_corner[k][i];
  find_surface_jvp(s, d, d_barycentric, d_depth);
}

}  // namespace facefit
