// Triangles that reach a little beyond their edges: which pixels they reach, and what a fragment there holds, with its
// derivative.
#pragma once

#include "triangle.h"

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
  e.there = a.w == 1.0f && b.w == 1.0f && c.w == 1.0f && area != 0;
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

// What `counts` finds on its way: the edge functions, zero where clipped, the depth and the signed distance.
struct Reach {
  float edge[3], depth, distance;
};

// Whether the triangle covers the centre (px, py) or is nearer to it than the blur, and is nearer than `farthest`.
// Outside, the depth is that of the weights clipped to zero and up. Where `edges.there` is false only the depth is
// found.
FACEFIT_BOTH bool counts(const Vertex& a, const Vertex& b, const Vertex& c, const Edges& edges, float blur_squared,
                         float px, float py, float farthest, Reach* r) {
  if (!edges.there) return covers(a, b, c, px, py, &r->depth) && r->depth < farthest;
  const float x[3] = {a.x - px, b.x - px, c.x - px}, y[3] = {a.y - py, b.y - py, c.y - py};
  const float edge[3] = {edge_function(x[1], y[1], x[2], y[2]), edge_function(x[2], y[2], x[0], y[0]),
                         edge_function(x[0], y[0], x[1], y[1])};
  const float oriented[3] = {edges.side * edge[0], edges.side * edge[1], edges.side * edge[2]};
  // The centre is too far from a line that it is on the outer side of.
  if ((oriented[0] < 0 && edge[0] * edge[0] > edges.limit[0]) ||
      (oriented[1] < 0 && edge[1] * edge[1] > edges.limit[1]) ||
      (oriented[2] < 0 && edge[2] * edge[2] > edges.limit[2]))
    return false;
  for (int k = 0; k < 3; ++k) r->edge[k] = oriented[k] > 0 ? oriented[k] : 0;
  const float total = (r->edge[0] + r->edge[1]) + r->edge[2];
  if (!(total > 0)) return false;
  const float d = ((r->edge[0] * a.z + r->edge[1] * b.z) + r->edge[2] * c.z) / total;
  if (!(d >= -1.0f && d <= 1.0f) || !(d < farthest)) return false;
  r->depth = d;
  // Inside, or on an edge and inside by the rule of `covers`; the depth there is the same, bit for bit.
  const float lowest = least(oriented[0], oriented[1], oriented[2]);
  if (lowest > 0 || (lowest == 0 && covers(a, b, c, px, py, &r->depth))) {
    r->distance = sqrtf(least(edge[0] * edge[0] * edges.inverse[0], edge[1] * edge[1] * edges.inverse[1],
                              edge[2] * edge[2] * edges.inverse[2]));
    return true;
  }
  // The nearest point of a triangle is on an edge that the centre is on the outer side of.
  float nearest = blur_squared;
  for (int k = 0; k < 3; ++k) {
    const int from = k == 2 ? 0 : k + 1;
    if (oriented[k] > 0) continue;
    const float squared = segment_squared(x[from], y[from], edges.x[k], edges.y[k], edges.inverse[k]);
    if (squared < nearest) nearest = squared;
  }
  r->distance = -sqrtf(nearest);
  return nearest < blur_squared;
}

// What the clip coordinates of a vertex are multiplied by to make the vertex of `screen_vertex`.
FACEFIT_BOTH float vertex_scale(const float* clip) {
  const float a = fabsf(clip[0]) > fabsf(clip[1]) ? fabsf(clip[0]) : fabsf(clip[1]);
  const float b = fabsf(clip[2]) > fabsf(clip[3]) ? fabsf(clip[2]) : fabsf(clip[3]);
  const float largest = a > b ? a : b;
  return 1.0f / (clip[3] > 1e-5f * largest ? clip[3] : (largest > 1e-30f ? largest : 1e-30f));
}

// What a fragment holds, from vertices of `screen_vertex` and their scales; nothing here depends on the scales but
// the weights. These are clipped where the centre is outside; the distance is that to the nearest point
// (1 - t) a + t b of the triangle's outline, or inside to the nearest line through an edge ab.
struct Fragment {
  float x[3], y[3], z[3], w[3], scale[3];  // x and y are about the centre
  float edge[3];                           // zero where clipped
  bool kept[3], outside;
  float total_inverse, w_inverse;
  float barycentric[3], depth, distance;
  int a, b;
  float t, normal_x, normal_y, slope;  // outside: unit direction to the nearest point; inside: the line, sign / length
};

// False where the triangle has no area as seen from here.
FACEFIT_BOTH bool fragment_at(const Vertex* const corner[3], const float scale[3], float px, float py, Fragment* f) {
  for (int k = 0; k < 3; ++k) {
    const Vertex& v = *corner[k];
    f->x[k] = v.x - px * v.w, f->y[k] = v.y - py * v.w, f->z[k] = v.z, f->w[k] = v.w, f->scale[k] = scale[k];
  }
  const float *x = f->x, *y = f->y, *w = f->w;
  float* edge = f->edge;
  edge[0] = x[1] * y[2] - y[1] * x[2], edge[1] = x[2] * y[0] - y[2] * x[0], edge[2] = x[0] * y[1] - y[0] * x[1];
  const float area = (edge[0] * w[0] + edge[1] * w[1]) + edge[2] * w[2];
  const bool front = w[0] == 1.0f && w[1] == 1.0f && w[2] == 1.0f && area != 0;
  f->outside = false;
  for (int k = 0; k < 3; ++k) {
    f->kept[k] = !front || (area > 0 ? edge[k] >= 0 : edge[k] <= 0);
    if (!f->kept[k]) f->outside = true;
  }
  float least = -1, over = 1;  // the least squared distance is least / over: nothing is divided to compare
  for (int k = 0; k < 3; ++k) {
    const int a = k == 2 ? 0 : k + 1, b = k == 0 ? 2 : k - 1;
    if (f->outside) {
      if (f->kept[k]) continue;  // the nearest edge has the centre on its outer side
      const float ex = x[b] - x[a], ey = y[b] - y[a], squared = ex * ex + ey * ey;
      float t = -(x[a] * ex + y[a] * ey) / (squared > 1e-30f ? squared : 1e-30f);
      t = t < 0 ? 0 : (t > 1 ? 1 : t);
      const float cx = x[a] + t * ex, cy = y[a] + t * ey, d = cx * cx + cy * cy;
      if (least >= 0 && !(d < least)) continue;
      least = d, f->a = a, f->b = b, f->t = t, f->normal_x = cx, f->normal_y = cy;
    } else {
      const float nx = y[a] * w[b] - w[a] * y[b], ny = w[a] * x[b] - x[a] * w[b];
      const float squared = nx * nx + ny * ny, d = edge[k] * edge[k];
      if (!(squared > 0) || (least >= 0 && !(d * over < least * squared))) continue;
      least = d, over = squared, f->a = a, f->b = b, f->normal_x = nx, f->normal_y = ny;
      f->slope = edge[k] > 0 ? 1.0f : (edge[k] < 0 ? -1.0f : 0.0f);
    }
  }
  if (least < 0) least = 0, f->a = 1, f->b = 2, f->normal_x = f->normal_y = f->slope = 0;
  const float length = sqrtf(least);
  if (f->outside) {
    const float inverse = length > 0 ? 1 / length : 0;
    f->normal_x *= inverse, f->normal_y *= inverse;
    f->distance = -length;
  } else {
    const float inverse = 1 / sqrtf(over);
    f->slope *= inverse, f->distance = length * inverse;
  }
  float total = 0, total_w = 0, z = 0;
  for (int k = 0; k < 3; ++k) {
    if (!f->kept[k]) edge[k] = 0;
    total += edge[k] * scale[k], total_w += edge[k] * w[k], z += edge[k] * f->z[k];
  }
  f->total_inverse = total != 0 ? 1 / total : 0;
  f->w_inverse = total_w != 0 ? 1 / total_w : 0;
  f->depth = z * f->w_inverse;
  for (int k = 0; k < 3; ++k) f->barycentric[k] = edge[k] * scale[k] * f->total_inverse;
  return total != 0;
}

// Adds the gradient for the corners, given those for weights, depth and distance. A corner's is for the x, y, z and w
// of `screen_vertex` with its scale held fixed; `vertex_vjp` takes it to clip coordinates.
FACEFIT_BOTH void fragment_vjp(const Fragment& f, float px, float py, const float g_barycentric[3], float g_depth,
                               float g_distance, float* const g_corner[3]) {
  float gx[3] = {0, 0, 0}, gy[3] = {0, 0, 0}, gw[3] = {0, 0, 0};
  const float gd = g_depth * f.w_inverse;
  const float mean = g_barycentric[0] * f.barycentric[0] + g_barycentric[1] * f.barycentric[1] +
                     g_barycentric[2] * f.barycentric[2];
  for (int k = 0; k < 3; ++k) {
    const int a = k == 2 ? 0 : k + 1, b = k == 0 ? 2 : k - 1;
    if (!f.kept[k]) continue;
    const float ge = (g_barycentric[k] - mean) * f.total_inverse * f.scale[k] + gd * (f.z[k] - f.depth * f.w[k]);
    gx[a] += ge * f.y[b], gy[b] += ge * f.x[a];
    gy[a] -= ge * f.x[b], gx[b] -= ge * f.y[a];
    gw[k] -= gd * f.depth * f.edge[k];
  }
  const int a = f.a, b = f.b;
  if (f.outside) {
    // The nearest point moves with its edge; its place on the edge is the best one and so changes nothing.
    const float ga = -g_distance * (1 - f.t), gb = -g_distance * f.t;
    gx[a] += ga * f.normal_x, gy[a] += ga * f.normal_y;
    gx[b] += gb * f.normal_x, gy[b] += gb * f.normal_y;
    gw[a] -= ga * (f.normal_x * f.x[a] + f.normal_y * f.y[a]);
    gw[b] -= gb * (f.normal_x * f.x[b] + f.normal_y * f.y[b]);
  } else {
    const float ge = g_distance * f.slope, back = -g_distance * f.distance * f.slope * f.slope;
    const float gnx = back * f.normal_x, gny = back * f.normal_y;
    gx[a] += ge * f.y[b] - gny * f.w[b], gx[b] += gny * f.w[a] - ge * f.y[a];
    gy[a] += gnx * f.w[b] - ge * f.x[b], gy[b] += ge * f.x[a] - gnx * f.w[a];
    gw[a] += gny * f.x[b] - gnx * f.y[b], gw[b] += gnx * f.y[a] - gny * f.x[a];
  }
  for (int k = 0; k < 3; ++k) {
    g_corner[k][0] += gx[k];
    g_corner[k][1] += gy[k];
    g_corner[k][2] += gd * f.edge[k];
    g_corner[k][3] += gw[k] - px * gx[k] - py * gy[k];
  }
}

// From the gradient for a vertex of `screen_vertex` to that for its clip coordinates, in place.
FACEFIT_BOTH void vertex_vjp(float scale, float half_x, float half_y, float g[4]) {
  g[3] = scale * (g[3] + half_x * g[0] + half_y * g[1]);
  g[0] *= scale * half_x, g[1] *= scale * half_y, g[2] *= scale;
}

}  // namespace facefit
