// Triangles that reach a little beyond their edges: which pixels they reach, and what a fragment there holds, with its
// derivative.
#pragma once

#ifndef __CUDACC__
#include "four.h"
#endif
#include "triangle.h"

namespace facefit {

// A triangle in pixels, for `counts`; edge k is opposite to corner k. One without area or not wholly in front of the
// camera only counts where it `covers` the centre: `blurs` is false and nothing else is set. A Real that is several
// numbers holds each of them that often.
template <typename Real>
struct BlurredTriangle {
  bool blurs;
  Vertex corner[3];
  Real x[3], y[3], z[3], edge_x[3], edge_y[3];
  Real inverse[3], limit[3];  // 1 / squared length of the edge, and squared length times squared blur
  Real side, blur_squared;    // the sign of the triangle's area

  FACEFIT_BOTH static BlurredTriangle of(const Vertex& a, const Vertex& b, const Vertex& c, float blur_squared) {
    BlurredTriangle t;
    const float area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    t.corner[0] = a, t.corner[1] = b, t.corner[2] = c;
    t.blurs = a.w == 1.0f && b.w == 1.0f && c.w == 1.0f && area != 0;
    if (!t.blurs) return t;
    const Real none = {};
    t.side = none + (area > 0 ? 1.0f : -1.0f), t.blur_squared = none + blur_squared;
    for (int k = 0; k < 3; ++k) t.x[k] = none + t.corner[k].x, t.y[k] = none + t.corner[k].y, t.z[k] = none + t.corner[k].z;
    for (int k = 0; k < 3; ++k) {
      const int from = k == 2 ? 0 : k + 1, to = k == 0 ? 2 : k - 1;
      t.edge_x[k] = t.x[to] - t.x[from], t.edge_y[k] = t.y[to] - t.y[from];
      const Real squared = t.edge_x[k] * t.edge_x[k] + t.edge_y[k] * t.edge_y[k];
      t.inverse[k] = 1.0f / greater(squared, none + 1e-30f);
      t.limit[k] = squared * blur_squared;
    }
    return t;
  }
};

// Squared distance from the origin to the segment that starts at (ax, ay).
template <typename Real>
FACEFIT_BOTH Real segment_squared(Real ax, Real ay, Real ex, Real ey, Real inverse) {
  const Real none = {}, all = none + 1.0f, along = -(ax * ex + ay * ey) * inverse;
  const Real t = greater(lesser(along, all), none);
  const Real x = ax + t * ex, y = ay + t * ey;
  return x * x + y * y;
}

// Where `covers` decides by ties: all that is `asked` is on an edge.
FACEFIT_BOTH bool covers_on_edge(const Vertex v[3], float px, float py, bool asked) {
  float depth;
  return asked && covers(v[0], v[1], v[2], px, py, &depth);
}
#ifndef __CUDACC__
inline FourTruths covers_on_edge(const Vertex v[3], Four px, Four py, FourTruths asked) {
  if (any(asked))
    for (int i = 0; i < 4; ++i) asked[i] = covers_on_edge(v, px[i], py[i], asked[i] != 0) ? -1 : 0;
  return asked;
}
#endif

// What `counts` finds on its way: the edge functions, zero where clipped, the depth and the signed distance.
template <typename Real>
struct Reach {
  Real edge[3], depth, distance;
};

// Whether the triangle covers the centre (px, py) or is nearer to it than the blur; for several centres where a Real is
// several numbers. Outside, the depth is that of the weights clipped to zero and up. Only for triangles that blur.
template <typename Real>
FACEFIT_BOTH auto counts(const BlurredTriangle<Real>& t, Real px, Real py, Reach<Real>* r) {
  const Real none = {}, x[3] = {t.x[0] - px, t.x[1] - px, t.x[2] - px}, y[3] = {t.y[0] - py, t.y[1] - py, t.y[2] - py};
  Real oriented[3], squared[3];
  for (int k = 0; k < 3; ++k) {
    const int from = k == 2 ? 0 : k + 1, to = k == 0 ? 2 : k - 1;
    const Real edge = x[from] * y[to] - y[from] * x[to];
    oriented[k] = t.side * edge, squared[k] = edge * edge;
    r->edge[k] = greater(oriented[k], none);
  }
  // Not where the centre is too far from a line that it is on the outer side of.
  auto found = (oriented[0] >= none) | (squared[0] <= t.limit[0]);
  found = found & ((oriented[1] >= none) | (squared[1] <= t.limit[1]));
  found = found & ((oriented[2] >= none) | (squared[2] <= t.limit[2]));
  const Real total = (r->edge[0] + r->edge[1]) + r->edge[2];
  found = found & (total > none);
  if (!any(found)) return found;
  const Real d = ((r->edge[0] * t.z[0] + r->edge[1] * t.z[1]) + r->edge[2] * t.z[2]) / total;
  found = found & (d >= none - 1.0f) & (d <= none + 1.0f);
  if (!any(found)) return found;
  r->depth = d;
  // Inside, or on an edge and inside by the rule of `covers`; the depth there is the same, bit for bit.
  const Real lowest = lesser(lesser(oriented[0], oriented[1]), oriented[2]);
  const auto inside = (lowest > none) | covers_on_edge(t.corner, px, py, found & (lowest == none));
  const Real within = lesser(lesser(squared[0] * t.inverse[0], squared[1] * t.inverse[1]), squared[2] * t.inverse[2]);
  // The nearest point of a triangle is on an edge that the centre is on the outer side of.
  Real nearest = t.blur_squared;
  for (int k = 0; k < 3; ++k) {
    const int from = k == 2 ? 0 : k + 1;
    const Real away = segment_squared(x[from], y[from], t.edge_x[k], t.edge_y[k], t.inverse[k]);
    nearest = choose((oriented[k] <= none) & (away < nearest), away, nearest);
  }
  const Real length = root(choose(inside, within, nearest));
  r->distance = choose(inside, length, -length);
  return found & (inside | (nearest < t.blur_squared));
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
// (1 - t) a + t b of the triangle's outline, or inside to the nearest line through an edge ab. Several fragments where a
// Real is several numbers; Truth is what compares these.
template <typename Real, typename Truth>
struct FragmentOf {
  Real px, py;
  Real x[3], y[3], z[3], w[3], scale[3];  // x and y are about the centre
  Real edge[3];                           // zero where clipped
  Truth clipped[3], outside;
  Real total_inverse, w_inverse;
  Real barycentric[3], depth, distance;
  Truth nearest[3];            // which edge; edge k is opposite to corner k
  Real t, normal_x, normal_y;  // outside: unit direction to the nearest point; inside: the line
  Real slope;                  // inside: sign / length of the line
};
using Fragment = FragmentOf<float, bool>;

// Corners are x, y, z and w. Returns the weights' sum; where that is zero the triangle has no area as seen from here.
template <typename Real, typename Truth>
FACEFIT_BOTH Real find_fragment(const Real corner[3][4], const Real scale[3], Real px, Real py,
                                FragmentOf<Real, Truth>* f) {
  const Real none = {}, one = none + 1.0f, tiny = none + 1e-30f, far = none + INFINITY;
  f->px = px, f->py = py;
  for (int k = 0; k < 3; ++k) {
    const Real* v = corner[k];
    f->x[k] = v[0] - px * v[3], f->y[k] = v[1] - py * v[3], f->z[k] = v[2], f->w[k] = v[3], f->scale[k] = scale[k];
  }
  const Real *x = f->x, *y = f->y, *w = f->w;
  Real* edge = f->edge;
  edge[0] = x[1] * y[2] - y[1] * x[2], edge[1] = x[2] * y[0] - y[2] * x[0], edge[2] = x[0] * y[1] - y[0] * x[1];
  const Real area = (edge[0] * w[0] + edge[1] * w[1]) + edge[2] * w[2];
  const Truth front = (w[0] == one) & (w[1] == one) & (w[2] == one);
  for (int k = 0; k < 3; ++k)
    f->clipped[k] = front & (((area > none) & (edge[k] < none)) | ((area < none) & (edge[k] > none)));
  f->outside = f->clipped[0] | f->clipped[1] | f->clipped[2];
  // The nearest edge of those with the centre on their outer side, or the nearest line. Its squared distance is
  // least / over: nothing is divided to compare.
  Real least = far, over = one, sign = none, unit = none;
  f->t = f->normal_x = f->normal_y = none;
  for (int k = 0; k < 3; ++k) {
    const int a = k == 2 ? 0 : k + 1, b = k == 0 ? 2 : k - 1;
    const Real ex = x[b] - x[a], ey = y[b] - y[a], squared = ex * ex + ey * ey;
    const Real along = -(x[a] * ex + y[a] * ey) / greater(squared, tiny);
    const Real t = greater(lesser(along, one), none);
    const Real cx = x[a] + t * ex, cy = y[a] + t * ey;
    const Real nx = y[a] * w[b] - w[a] * y[b], ny = w[a] * x[b] - x[a] * w[b], line = nx * nx + ny * ny;
    const Real away = choose(f->outside, cx * cx + cy * cy, edge[k] * edge[k]);
    const Real by = choose(f->outside, one, line);
    const Truth nearer = choose_truth(f->outside, f->clipped[k], line > none) & (away * over < least * by);
    least = choose(nearer, away, least), over = choose(nearer, by, over), sign = choose(nearer, edge[k], sign);
    f->t = choose(nearer, t, f->t);
    f->normal_x = choose(nearer, choose(f->outside, cx, nx), f->normal_x);
    f->normal_y = choose(nearer, choose(f->outside, cy, ny), f->normal_y);
    f->nearest[k] = nearer;
    for (int j = 0; j < k; ++j) f->nearest[j] = choose_truth(nearer, front & (none > none), f->nearest[j]);
  }
  least = choose(least < far, least, none);
  const Real length = root(least), line = root(over);
  unit = choose(length > none, one / length, none);
  f->normal_x = choose(f->outside, f->normal_x * unit, f->normal_x);
  f->normal_y = choose(f->outside, f->normal_y * unit, f->normal_y);
  f->slope = choose(sign > none, one, choose(sign < none, -one, none)) / line;
  f->distance = choose(f->outside, -length, length / line);
  Real total = none, total_w = none, z = none;
  for (int k = 0; k < 3; ++k) {
    edge[k] = choose(f->clipped[k], none, edge[k]);
    total += edge[k] * scale[k], total_w += edge[k] * w[k], z += edge[k] * f->z[k];
  }
  f->total_inverse = choose(total != none, one / total, none);
  f->w_inverse = choose(total_w != none, one / total_w, none);
  f->depth = z * f->w_inverse;
  for (int k = 0; k < 3; ++k) f->barycentric[k] = edge[k] * scale[k] * f->total_inverse;
  return total;
}

// The gradient for the corners, given those for weights, depth and distance. A corner's is for the x, y, z and w of
// `screen_vertex` with its scale held fixed; `vertex_vjp` takes it to clip coordinates.
template <typename Real, typename Truth>
FACEFIT_BOTH void fragment_vjp(const FragmentOf<Real, Truth>& f, const Real g_barycentric[3], Real g_depth,
                               Real g_distance, Real g_corner[3][4]) {
  const Real none = {};
  Real gx[3] = {none, none, none}, gy[3] = {none, none, none}, gw[3] = {none, none, none};
  const Real gd = g_depth * f.w_inverse;
  const Real mean = g_barycentric[0] * f.barycentric[0] + g_barycentric[1] * f.barycentric[1] +
                    g_barycentric[2] * f.barycentric[2];
  for (int k = 0; k < 3; ++k) {
    const int a = k == 2 ? 0 : k + 1, b = k == 0 ? 2 : k - 1;
    const Real ge = choose(
        f.clipped[k], none,
        (g_barycentric[k] - mean) * f.total_inverse * f.scale[k] + gd * (f.z[k] - f.depth * f.w[k]));
    gx[a] += ge * f.y[b], gy[b] += ge * f.x[a];
    gy[a] -= ge * f.x[b], gx[b] -= ge * f.y[a];
    gw[k] -= gd * f.depth * f.edge[k];
  }
  // The nearest point moves with its edge; its place on the edge is the best one and so changes nothing.
  const Real ga = -g_distance * (1.0f - f.t), gb = -g_distance * f.t;
  const Real ge = g_distance * f.slope, back = -g_distance * f.distance * f.slope * f.slope;
  const Real gnx = back * f.normal_x, gny = back * f.normal_y;
  for (int k = 0; k < 3; ++k) {
    const int a = k == 2 ? 0 : k + 1, b = k == 0 ? 2 : k - 1;
    auto add = [&](Real* to, Real outside, Real inside) {
      *to += choose(f.nearest[k], choose(f.outside, outside, inside), none);
    };
    add(&gx[a], ga * f.normal_x, ge * f.y[b] - gny * f.w[b]);
    add(&gx[b], gb * f.normal_x, gny * f.w[a] - ge * f.y[a]);
    add(&gy[a], ga * f.normal_y, gnx * f.w[b] - ge * f.x[b]);
    add(&gy[b], gb * f.normal_y, ge * f.x[a] - gnx * f.w[a]);
    add(&gw[a], -ga * (f.normal_x * f.x[a] + f.normal_y * f.y[a]), gny * f.x[b] - gnx * f.y[b]);
    add(&gw[b], -gb * (f.normal_x * f.x[b] + f.normal_y * f.y[b]), gnx * f.y[a] - gny * f.x[a]);
  }
  for (int k = 0; k < 3; ++k) {
    g_corner[k][0] = gx[k];
    g_corner[k][1] = gy[k];
    g_corner[k][2] = gd * f.edge[k];
    g_corner[k][3] = gw[k] - f.px * gx[k] - f.py * gy[k];
  }
}

// From the gradient for a vertex of `screen_vertex` to that for its clip coordinates, in place.
FACEFIT_BOTH void vertex_vjp(float scale, float half_x, float half_y, float g[4]) {
  g[3] = scale * (g[3] + half_x * g[0] + half_y * g[1]);
  g[0] *= scale * half_x, g[1] *= scale * half_y, g[2] *= scale;
}

}  // namespace facefit
