// Where the visible surface ends between two neighbouring pixels: a walk over the mesh, and the blend it leads to.
#pragma once

#include <cstdint>

#include "triangle.h"

namespace facefit {

// A mesh as the walk sees it. neighbor[3 f + k] is the face across the edge opposite corner k of face f, -1 at a
// boundary. `facing` is of every face, see below. `rim` is not zero at a vertex with an edge that the surface does not go
// on across: one without a neighbour wound alike, or one of those between faces that are seen from different sides.
struct Mesh {
  const Vertex* screen;
  const int32_t* faces;
  const int32_t* neighbor;
  const float* facing;
  const uint8_t* rim;
  int64_t vertex_count, face_count;
};

// How a walk ended: the surface reaches the other centre in `face`, or ends before it at `position` (0 to 1) on the
// edge from vertex `a` to vertex `b`.
struct Walk {
  bool ends;
  int32_t face, a, b;
  float position, depth;
};

enum { kLongestWalk = 64 };

// Whether a face has a neighbour across the edge opposite corner k that is wound as it is.
FACEFIT_BOTH bool wound_alike(const Mesh& mesh, int32_t face, int k) {
  const int32_t next = mesh.neighbor[3 * face + k];
  const bool there = is_below(next, mesh.face_count);
  const int32_t p = mesh.faces[3 * face + (k + 1) % 3], q = mesh.faces[3 * face + (k + 2) % 3];
  const int32_t* other = mesh.faces + 3 * (there ? next : face);  // all is compared: which one holds cannot be foreseen
  return there & (((other[0] == q) & (other[1] == p)) | ((other[1] == q) & (other[2] == p)) |
                  ((other[2] == q) & (other[0] == p)));
}

FACEFIT_BOTH float edge_at(const Vertex& a, const Vertex& b, float x, float y) {
  return edge_function(a.x - x * a.w, a.y - y * a.w, b.x - x * b.w, b.y - y * b.w);
}

// Follows the surface from the centre (x, y), which shows `face`, to the centre (x + step_x, y + step_y).
//
// The line from centre to centre leaves each triangle through the edge that it crosses first. Where that edge is a
// boundary, or the next triangle is seen from its other side, the visible surface ends. So the silhouette is found
// by the mesh's own connections, however small its triangles, with no threshold in depth.
FACEFIT_BOTH Walk walk(const Mesh& mesh, int32_t face, float x, float y, float step_x, float step_y) {
  Walk result = {false, face, -1, -1, 1.0f, 0.0f};
  int entered = -1;
  for (int step = 0; step < kLongestWalk; ++step) {
    const int32_t* corner = mesh.faces + 3 * result.face;
    const Vertex v[3] = {mesh.screen[corner[0]], mesh.screen[corner[1]], mesh.screen[corner[2]]};
    float rx[3], ry[3], ex[3], ey[3];
    for (int k = 0; k < 3; ++k) {
      rx[k] = v[k].x - x * v[k].w, ry[k] = v[k].y - y * v[k].w;
      ex[k] = v[k].x - (x + step_x) * v[k].w, ey[k] = v[k].y - (y + step_y) * v[k].w;
    }
    float sign = mesh.facing[result.face];
    if (sign == 0)
      for (int k = 0; k < 3; ++k) {
        const int i = (k + 1) % 3, j = (k + 2) % 3;
        sign += edge_function(rx[i], ry[i], rx[j], ry[j]) * v[k].w;
      }
    sign = sign < 0 ? -1.0f : 1.0f;
    int out = -1;
    float position = 2.0f;
    for (int k = 0; k < 3; ++k) {
      if (k == entered) continue;
      const int i = (k + 1) % 3, j = (k + 2) % 3;
      const float beyond = edge_function(ex[i], ey[i], ex[j], ey[j]);
      if (sign * beyond > 0) continue;
      const float edge = edge_function(rx[i], ry[i], rx[j], ry[j]), change = beyond - edge;
      if (!(sign * change < 0)) continue;
      // As in `covers`: a centre exactly on the edge is beyond it or not by the same rule.
      if (beyond == 0 && !(sign * edge_tie(v[i], v[j]) < 0)) continue;
      const float at = -edge / change;
      if (at < position) position = at, out = k;
    }
    if (out < 0) return result;  // the other centre is in this triangle
    const int32_t a = corner[(out + 1) % 3], b = corner[(out + 2) % 3];
    const int32_t next = mesh.neighbor[3 * result.face + out];
    bool ends = next < 0 || next >= mesh.face_count;
    const int32_t* other = mesh.faces + 3 * (ends ? 0 : next);
    entered = 0;
    while (entered < 2 && (other[entered] == a || other[entered] == b)) ++entered;
    ends = ends || other[entered] < 0 || other[entered] >= mesh.vertex_count;
    if (!ends) {
      // Where the surface goes on, the next triangle is seen from the same side (wound the other way if both run
      // through the edge in the same direction).
      const float sides = mesh.facing[result.face] * mesh.facing[next];
      if (sides != 0) {
        ends = other[(entered + 1) % 3] == b ? !(sides > 0) : !(sides < 0);
      } else {
        const Vertex &p = v[(out + 1) % 3], &q = v[(out + 2) % 3], &r = mesh.screen[other[entered]];
        const float ax = p.x - x * p.w, ay = p.y - y * p.w, bx = q.x - x * q.w, by = q.y - y * q.w;
        const float cx = r.x - x * r.w, cy = r.y - y * r.w;
        // Beyond an edge that the surface passes, the next corner is on the other side of it.
        const float side = ((ax * by - ay * bx) * r.w + (bx * cy - by * cx) * p.w) + (cx * ay - cy * ax) * q.w;
        ends = !(sign * side < 0);
      }
    }
    if (ends) {
      const Vertex &p = v[(out + 1) % 3], &q = v[(out + 2) % 3];
      // Depth where the line crosses the edge, from how far along the edge that is.
      const float cx = x + position * step_x, cy = y + position * step_y;
      const float pa = step_y != 0 ? p.x - cx * p.w : p.y - cy * p.w, qa = step_y != 0 ? q.x - cx * q.w : q.y - cy * q.w;
      const float wp = qa, wq = -pa, w = wp * p.w + wq * q.w;
      result.ends = true, result.a = a, result.b = b;
      result.position = position < 0 ? 0.0f : (position > 1 ? 1.0f : position);
      result.depth = w != 0 ? (wp * p.z + wq * q.z) / w : p.z;
      return result;
    }
    result.face = next;
  }
  return result;
}

// What lies between two neighbouring centres, the first at (x, y), that show the faces `first` and `second` (-1 for
// none): the ends of the edge at which the picture changes from one surface to another, or one of these, twice.
enum { kContinuous = -1, kUnknownEdge = -2 };

FACEFIT_BOTH void discontinuity(const Mesh& mesh, int32_t first, int32_t second, float x, float y, float step_x,
                                float step_y, int32_t* a, int32_t* b) {
  *a = *b = kContinuous;
  if (first == second) return;
  // Faces around a vertex where the surface goes on across every edge. Most pairs, and walks are what costs.
  if (first >= 0 && second >= 0) {
    const int32_t *corner = mesh.faces + 3 * first, *other = mesh.faces + 3 * second;
    int inner = 0;  // all three compared before any branch: which one they share cannot be foreseen
    for (int k = 0; k < 3; ++k)
      inner |= ((corner[k] == other[0]) | (corner[k] == other[1]) | (corner[k] == other[2])) & !mesh.rim[corner[k]];
    if (inner) return;
    for (int k = 0; k < 3; ++k)
      if (mesh.neighbor[3 * first + k] == second && wound_alike(mesh, first, k) &&
          mesh.facing[first] * mesh.facing[second] > 0)
        return;
  }
  Walk from = {false, -1, -1, -1, 0, 0}, back = from;
  if (first >= 0) {
    from = walk(mesh, first, x, y, step_x, step_y);
    if (!from.ends && from.face == second) return;
  }
  if (second >= 0) {
    back = walk(mesh, second, x + step_x, y + step_y, -step_x, -step_y);
    if (!back.ends && back.face == first) return;
  }
  *a = *b = kUnknownEdge;
  if (!from.ends && !back.ends) return;
  // Of two surfaces that both end here the nearer one's edge is seen.
  const bool take_from = from.ends && (!back.ends || from.depth <= back.depth);
  *a = take_from ? from.a : back.a;
  *b = take_from ? from.b : back.b;
}

// Where an edge crosses the line between two centres, 0 at the first and 1 at the second, and its derivative.
struct Crossing {
  float position;
  float rx[2], ry[2], w[2];  // the edge's ends relative to the first centre
  float from_x, from_y, half_x, half_y, change_inverse;
  bool vertical_step;
};

// False where the edge runs along the line rather than across: such an edge is counted between the pixels of the
// other direction, each piece of a silhouette once.
FACEFIT_BOTH bool crossing_at(const float* clip_a, const float* clip_b, float x, float y, bool vertical_step,
                              float half_x, float half_y, Crossing* c) {
  c->vertical_step = vertical_step, c->half_x = half_x, c->half_y = half_y;
  c->from_x = half_x - x, c->from_y = half_y - y;
  const float* ends[2] = {clip_a, clip_b};
  for (int k = 0; k < 2; ++k) {
    c->w[k] = ends[k][3];
    c->rx[k] = half_x * ends[k][0] + c->from_x * ends[k][3];
    c->ry[k] = half_y * ends[k][1] + c->from_y * ends[k][3];
  }
  const float change_x = c->ry[0] * c->w[1] - c->w[0] * c->ry[1], change_y = c->w[0] * c->rx[1] - c->rx[0] * c->w[1];
  const float size_x = fabsf(change_x), size_y = fabsf(change_y);
  if (vertical_step ? !(size_y > size_x) : !(size_x >= size_y && size_x > 0)) return false;
  c->change_inverse = 1 / (vertical_step ? change_y : change_x);
  const float position = -(c->rx[0] * c->ry[1] - c->ry[0] * c->rx[1]) * c->change_inverse;
  c->position = position < 0 ? 0.0f : (position > 1 ? 1.0f : position);
  return true;
}

FACEFIT_BOTH float crossing_jvp(const Crossing& c, const float* d_a, const float* d_b) {
  const float* d[2] = {d_a, d_b};
  float dx[2], dy[2];
  for (int k = 0; k < 2; ++k) {
    dx[k] = c.half_x * d[k][0] + c.from_x * d[k][3];
    dy[k] = c.half_y * d[k][1] + c.from_y * d[k][3];
  }
  const float d_edge = (dx[0] * c.ry[1] + c.rx[0] * dy[1]) - (dy[0] * c.rx[1] + c.ry[0] * dx[1]);
  const float d_change = c.vertical_step
      ? (d[0][3] * c.rx[1] + c.w[0] * dx[1]) - (dx[0] * c.w[1] + c.rx[0] * d[1][3])
      : (dy[0] * c.w[1] + c.ry[0] * d[1][3]) - (d[0][3] * c.ry[1] + c.w[0] * dy[1]);
  return -(d_edge + c.position * d_change) * c.change_inverse;
}

FACEFIT_BOTH void crossing_vjp(const Crossing& c, float gradient, float* g_a, float* g_b) {
  const float ge = -gradient * c.change_inverse, gc = ge * c.position;
  float gx[2] = {ge * c.ry[1], -ge * c.ry[0]}, gy[2] = {-ge * c.rx[1], ge * c.rx[0]}, gw[2];
  if (c.vertical_step) {
    gw[0] = gc * c.rx[1], gx[1] += gc * c.w[0], gx[0] -= gc * c.w[1], gw[1] = -gc * c.rx[0];
  } else {
    gy[0] += gc * c.w[1], gw[1] = gc * c.ry[0], gw[0] = -gc * c.ry[1], gy[1] -= gc * c.w[0];
  }
  float* g[2] = {g_a, g_b};
  for (int k = 0; k < 2; ++k) {
    g[k][0] += c.half_x * gx[k];
    g[k][1] += c.half_y * gy[k];
    g[k][3] += gw[k] + c.from_x * gx[k] + c.from_y * gy[k];
  }
}

// A pair of neighbouring pixels that an edge crosses between. `before` and `after` are the pixels that continue the
// line on both sides where the surface does, else the pair's own (so that the slope of the colours is zero).
struct Pair {
  int64_t before, first, second, after;
  // What the pixel that the edge is in, `changed`, gains: the difference of both surfaces' colours, each a line
  // through two pixels, over the part from the middle between the centres to the edge. `weight` is of the
  // difference of the centres, `slope_first` and `slope_second` of the slopes; `d_` by the edge's position.
  int64_t changed;
  float weight, slope_first, slope_second, d_slope_first, d_slope_second;

  // The gain and its derivative by the edge's position, for one channel of an image with `C` of them.
  FACEFIT_BOTH float gain(const float* image, int64_t C, float* d_gain) const {
    const float p = image[C * first], q = image[C * second];
    const float slope_p = p - image[C * before], slope_q = image[C * after] - q;
    *d_gain = (p - q) + d_slope_first * slope_p + d_slope_second * slope_q;
    return weight * (p - q) + slope_first * slope_p + slope_second * slope_q;
  }
};

// The pairs of one picture: clip coordinates of V vertices, edges (H, W, 2, 2).
struct Pairs {
  const float* clip;
  const int32_t* edges;
  int64_t V, H, W;

  FACEFIT_BOTH const int32_t* ends(int64_t x, int64_t y, int down) const { return edges + 4 * (y * W + x) + 2 * down; }
};

// The pair of the pixel (x, y) and the next one to the right or below; false where no edge crosses between them.
FACEFIT_BOTH bool pair_at(const Pairs& pairs, int64_t x, int64_t y, int down, Crossing* c, Pair* pair) {
  const int64_t H = pairs.H, W = pairs.W, V = pairs.V;
  const int64_t at = y * W + x, step = down ? W : 1, place = down ? y : x, length = down ? H : W;
  const int32_t* ends = pairs.ends(x, y, down);
  if (ends[0] < 0 || ends[0] >= V || ends[1] < 0 || ends[1] >= V || place + 1 >= length) return false;
  if (!crossing_at(pairs.clip + 4 * ends[0], pairs.clip + 4 * ends[1], x + 0.5f, y + 0.5f, down, 0.5f * W, 0.5f * H, c))
    return false;
  const bool continues = place > 0 && ends[-4 * step] == kContinuous;
  const bool goes_on = place + 2 < length && ends[4 * step] == kContinuous;
  const float t = c->position, square = 0.5f * (t * t - 0.25f);
  *pair = {continues ? at - step : at, at, at + step, at + (goes_on ? 2 : 1) * step, t > 0.5f ? at + step : at,
           t - 0.5f, square, (t - 0.5f) - square, t, 1 - t};
  return true;
}

}  // namespace facefit
