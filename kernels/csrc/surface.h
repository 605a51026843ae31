// Barycentric coordinates and depth of a known triangle at a pixel's centre, with both derivatives.
#pragma once

#include "triangle.h"

namespace facefit {

// The value at one pixel and what the derivatives need of it. Corners are clip coordinates.
struct Surface {
  float rx[3], ry[3];     // corners in homogeneous pixels, relative to the centre
  float z[3], w[3];
  float half_x, half_y;   // half the picture's width and height
  float from_x, from_y;   // d rx / d w, d ry / d w
  float total_inverse, w_inverse;
  float barycentric[3], depth;
};

// False where the triangle has no area as seen from here; then every value is zero.
FACEFIT_BOTH bool surface_at(const float* const corner[3], float px, float py, float half_x, float half_y,
                             Surface* s) {
  s->half_x = half_x, s->half_y = half_y;
  s->from_x = half_x - px, s->from_y = half_y - py;
  for (int k = 0; k < 3; ++k) {
    const float* v = corner[k];
    s->rx[k] = half_x * v[0] + s->from_x * v[3];
    s->ry[k] = half_y * v[1] + s->from_y * v[3];
    s->z[k] = v[2], s->w[k] = v[3];
  }
  float edge[3], total = 0;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    edge[k] = s->rx[a] * s->ry[b] - s->ry[a] * s->rx[b];
    total += edge[k];
  }
  if (!(total != 0)) {
    for (int k = 0; k < 3; ++k) s->barycentric[k] = 0;
    s->depth = 0, s->total_inverse = 0, s->w_inverse = 0;
    return false;
  }
  s->total_inverse = 1 / total;
  float z = 0, w = 0;
  for (int k = 0; k < 3; ++k) {
    const float b = edge[k] * s->total_inverse;
    s->barycentric[k] = b;
    z += b * s->z[k], w += b * s->w[k];
  }
  s->w_inverse = w != 0 ? 1 / w : 0;
  s->depth = z * s->w_inverse;
  return true;
}

// Adds the gradient for the corners' clip coordinates, given that for the barycentric coordinates and the depth.
FACEFIT_BOTH void surface_vjp(const Surface& s, const float g_barycentric[3], float g_depth, float* const g_corner[3]) {
  const float gz = g_depth * s.w_inverse, gw = -gz * s.depth;
  float gb[3], mean = 0;
  for (int k = 0; k < 3; ++k) {
    gb[k] = g_barycentric[k] + gz * s.z[k] + gw * s.w[k];
    mean += gb[k] * s.barycentric[k];
  }
  float gx[3] = {0, 0, 0}, gy[3] = {0, 0, 0};
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const float ge = (gb[k] - mean) * s.total_inverse;
    gx[a] += ge * s.ry[b], gy[b] += ge * s.rx[a];
    gy[a] -= ge * s.rx[b], gx[b] -= ge * s.ry[a];
  }
  for (int k = 0; k < 3; ++k) {
    g_corner[k][0] += s.half_x * gx[k];
    g_corner[k][1] += s.half_y * gy[k];
    g_corner[k][2] += gz * s.barycentric[k];
    g_corner[k][3] += gw * s.barycentric[k] + s.from_x * gx[k] + s.from_y * gy[k];
  }
}

// The change of the barycentric coordinates and the depth for a change of the corners' clip coordinates.
FACEFIT_BOTH void surface_jvp(const Surface& s, const float* const d_corner[3], float d_barycentric[3],
                              float* d_depth) {
  float dx[3], dy[3], de[3], total = 0;
  for (int k = 0; k < 3; ++k) {
    dx[k] = s.half_x * d_corner[k][0] + s.from_x * d_corner[k][3];
    dy[k] = s.half_y * d_corner[k][1] + s.from_y * d_corner[k][3];
  }
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    de[k] = (dx[a] * s.ry[b] + s.rx[a] * dy[b]) - (dy[a] * s.rx[b] + s.ry[a] * dx[b]);
    total += de[k];
  }
  float dz = 0, dw = 0;
  for (int k = 0; k < 3; ++k) {
    d_barycentric[k] = (de[k] - s.barycentric[k] * total) * s.total_inverse;
    dz += d_barycentric[k] * s.z[k] + s.barycentric[k] * d_corner[k][2];
    dw += d_barycentric[k] * s.w[k] + s.barycentric[k] * d_corner[k][3];
  }
  *d_depth = (dz - s.depth * dw) * s.w_inverse;
}

}  // namespace facefit
