// Triangles that reach a little beyond their edges: which pixels they reach, and what a fragment there holds, with its
// derivative.
#pragma once

#include "surface.h"

namespace facefit {

// The edges of a triangle in pixels; edge k is opposite to corner k. None (`there` is false) for a triangle without
// area or not wholly in front of the camera: such a one only counts where it covers the centre.
struct Edges {
  bool there;
  float x[3], y[3], inverse[3], limit[3];  // 1 / squared length, and squared length times squared blur
  float side;                              // the sign of the triangle's area
};

FACEFIT_BOTH Edges edges_of(const Vertex& a, const Vertex& b, const Vertex& c, float blur_squared) {
  Edges e = {};
  const float area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
  e.there = blur_squared > 0 && a.w == 1.0f && b.w == 1.0f && c.w == 1.0f && area != 0;
  if (!e.there) return e;
  e.side = area > 0 ? 1.0f : -1.0f;
  e.x[0] = c.x - b.x, e.x[1] = a.x - c.x, e.x[2] = b.x - a.x;
  e.y[0] = c.y - b.y, e.y[1] = a.y - c.y, e.y[2] = b.y - a.y;
  for (int k = 0; k < 3; ++k) {
    const float squared = e.x[k] * e.x[k] + e.y[k] * e.y[k];
    e.inverse[k] = 1.0f / (squared > 1e-30f ? squared : 1e-30f);
    e.limit[k] = squared * blur_squared;
  }
  return e;
}

// Squared distance from the origin to the segment that starts at (ax, ay).
FACEFIT_BOTH float segment_squared(float ax, float ay, float ex, float ey, float inverse) {
  float t = -(ax * ex + ay * ey) * inverse;
  t = t < 0 ? 0 : (t > 1 ? 1 : t);
  const float x = ax + t * ex, y = ay + t * ey;
  return x * x + y * y;
}

// Whether a triangle that does not cover the centre (px, py) is nearer to it than the blur. `depth` is then that of
// the weights clipped to zero and up.
FACEFIT_BOTH bool reaches(const Vertex& a, const Vertex& b, const Vertex& c, const Edges& edges, float blur_squared,
                          float px, float py, float* depth) {
  if (!edges.there) return false;
  const float x[3] = {a.x - px, b.x - px, c.x - px}, y[3] = {a.y - py, b.y - py, c.y - py};
  float inside[3];
  for (int k = 0; k < 3; ++k) {
    const float edge = edge_function(x[(k + 1) % 3], y[(k + 1) % 3], x[(k + 2) % 3], y[(k + 2) % 3]);
    const float oriented = edges.side * edge;
    if (oriented < 0 && edge * edge > edges.limit[k]) return false;  // the edge's line is too far already
    inside[k] = oriented > 0 ? oriented : 0;
  }
  const float total = (inside[0] + inside[1]) + inside[2];
  if (!(total > 0)) return false;
  const float d = ((inside[0] * a.z + inside[1] * b.z) + inside[2] * c.z) / total;
  if (!(d >= -1.0f && d <= 1.0f)) return false;
  *depth = d;
  for (int k = 0; k < 3; ++k)
    if (segment_squared(x[(k + 1) % 3], y[(k + 1) % 3], edges.x[k], edges.y[k], edges.inverse[k]) < blur_squared)
      return true;
  return false;
}

// What a fragment holds. Its weights are clipped where the centre is outside; its distance is that to the nearest
// point (1 - t) a + t b of the triangle's outline, or inside to the nearest line through an edge ab.
struct Fragment {
  Surface surface;
  bool outside;
  int a, b;
  float t, distance;
  float normal_x, normal_y, scale;  // outside: unit direction to the nearest point; inside: the line and sign / length
};

FACEFIT_BOTH bool fragment_at(const float* const corner[3], float px, float py, float half_x, float half_y,
                              Fragment* f) {
  Surface& s = f->surface;
  f->outside = false, f->distance = 0, f->a = 1, f->b = 2, f->scale = 0, f->normal_x = f->normal_y = 0;
  const bool seen = surface_at(corner, px, py, half_x, half_y, &s);
  float edge[3], area = 0;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    edge[k] = s.rx[a] * s.ry[b] - s.ry[a] * s.rx[b];
    area += edge[k] * s.w[k];
  }
  const bool front = s.w[0] > 0 && s.w[1] > 0 && s.w[2] > 0 && area != 0;
  const float side = area > 0 ? 1.0f : -1.0f;
  f->outside = front && (side * edge[0] < 0 || side * edge[1] < 0 || side * edge[2] < 0);
  if (!f->outside) {
    if (!seen) return false;
    float least = -1;
    for (int k = 0; k < 3; ++k) {
      const int a = (k + 1) % 3, b = (k + 2) % 3;
      const float nx = s.ry[a] * s.w[b] - s.w[a] * s.ry[b], ny = s.w[a] * s.rx[b] - s.rx[a] * s.w[b];
      const float squared = nx * nx + ny * ny, inverse = squared > 0 ? 1 / sqrtf(squared) : 1.0f;
      const float d = fabsf(edge[k]) * inverse;
      if (least >= 0 && !(d < least)) continue;
      least = d, f->a = a, f->b = b, f->normal_x = nx, f->normal_y = ny;
      f->scale = (edge[k] > 0 ? inverse : (edge[k] < 0 ? -inverse : 0.0f));
    }
    f->distance = least;
    return true;
  }
  float total = 0, z = 0, w = 0, least = -1;
  bool kept[3];
  for (int k = 0; k < 3; ++k) {
    kept[k] = side * edge[k] >= 0;
    if (kept[k]) total += edge[k];
  }
  if (!(total != 0)) return false;
  s.total_inverse = 1 / total;
  for (int k = 0; k < 3; ++k) {
    s.edge_inverse[k] = kept[k] ? s.total_inverse : 0;
    s.barycentric[k] = edge[k] * s.edge_inverse[k];
    z += s.barycentric[k] * s.z[k], w += s.barycentric[k] * s.w[k];
  }
  s.w_inverse = w != 0 ? 1 / w : 0;
  s.depth = z * s.w_inverse;
  float x[3], y[3], nearest_x = 0, nearest_y = 0;
  for (int k = 0; k < 3; ++k) x[k] = s.rx[k] / s.w[k], y[k] = s.ry[k] / s.w[k];
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const float ex = x[b] - x[a], ey = y[b] - y[a], squared = ex * ex + ey * ey;
    float t = -(x[a] * ex + y[a] * ey) / (squared > 1e-30f ? squared : 1e-30f);
    t = t < 0 ? 0 : (t > 1 ? 1 : t);
    const float cx = x[a] + t * ex, cy = y[a] + t * ey, d = cx * cx + cy * cy;
    if (least >= 0 && !(d < least)) continue;
    least = d, f->a = a, f->b = b, f->t = t, nearest_x = cx, nearest_y = cy;
  }
  const float length = sqrtf(least), inverse = length > 0 ? 1 / length : 0;
  f->distance = -length, f->normal_x = nearest_x * inverse, f->normal_y = nearest_y * inverse;
  return true;
}

// Adds the gradient for the corners' clip coordinates, given those for weights, depth and distance.
FACEFIT_BOTH void fragment_vjp(const Fragment& f, const float g_barycentric[3], float g_depth, float g_distance,
                               float* const g_corner[3]) {
  const Surface& s = f.surface;
  surface_vjp(s, g_barycentric, g_depth, g_corner);
  const int a = f.a, b = f.b;
  if (f.outside) {
    // The nearest point moves with its edge; its place on the edge is the best one and so changes nothing.
    const float share[2] = {1 - f.t, f.t};
    const int end[2] = {a, b};
    for (int i = 0; i < 2; ++i) {
      const int k = end[i];
      const float per_w = -g_distance * share[i] / s.w[k];
      const float gx = per_w * f.normal_x, gy = per_w * f.normal_y;
      g_corner[k][0] += s.half_x * gx;
      g_corner[k][1] += s.half_y * gy;
      g_corner[k][3] += (s.from_x - s.rx[k] / s.w[k]) * gx + (s.from_y - s.ry[k] / s.w[k]) * gy;
    }
    return;
  }
  const float g_edge = g_distance * f.scale, back = -g_distance * f.distance * f.scale * f.scale;
  const float gnx = back * f.normal_x, gny = back * f.normal_y;
  const float gx[2] = {g_edge * s.ry[b] - gny * s.w[b], gny * s.w[a] - g_edge * s.ry[a]};
  const float gy[2] = {gnx * s.w[b] - g_edge * s.rx[b], g_edge * s.rx[a] - gnx * s.w[a]};
  const float gw[2] = {gny * s.rx[b] - gnx * s.ry[b], gnx * s.ry[a] - gny * s.rx[a]};
  const int end[2] = {a, b};
  for (int i = 0; i < 2; ++i) {
    float* g = g_corner[end[i]];
    g[0] += s.half_x * gx[i];
    g[1] += s.half_y * gy[i];
    g[3] += gw[i] + s.from_x * gx[i] + s.from_y * gy[i];
  }
}

}  // namespace facefit
