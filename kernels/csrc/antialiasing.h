// Loops of antialiasing on the CPU: neighbours of faces, the edges between pixels, the blend and its derivatives.
#pragma once

#include <cstring>

#include "rasterization.h"
#include "silhouette.h"

namespace facefit {

// faces (F, 3) -> (F, 3): the face across the edge opposite each corner; -1 where there is none or more than one.
inline ffi::Error neighbors(Team team, Ints faces, IntResult result) {
  const Batch batch(*result, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const int64_t F = f.dim(0), edges = 3 * F;
  std::fill(result->typed_data(), result->typed_data() + result->element_count(), -1);
  team.each(batch.count(), [&](int64_t b) {
    const int32_t* corner = f.at(b);
    int32_t* out = result->typed_data() + b * edges;
    // Edges in buckets by their lower vertex (a counting sort); a bucket holds about six.
    int64_t buckets = 16;
    while (buckets < F) buckets *= 2;
    std::vector<int32_t> start(buckets + 3, 0), low(edges), high(edges), order(edges);
    auto bucket = [&](int64_t i) { return (int64_t)low[i] & (buckets - 1); };
    for (int64_t i = 0; i < edges; ++i) {
      const int64_t base = i - i % 3;
      const int32_t p = corner[base + (i + 1) % 3], q = corner[base + (i + 2) % 3];
      low[i] = std::min(p, q), high[i] = std::max(p, q);
      ++start[bucket(i) + 2];
    }
    for (int64_t v = 2; v < buckets + 2; ++v) start[v] += start[v - 1];
    for (int64_t i = 0; i < edges; ++i) order[start[bucket(i) + 1]++] = (int32_t)i;
    for (int64_t v = 0; v < buckets; ++v)
      for (int32_t m = start[v]; m < start[v + 1]; ++m) {
        const int32_t self = order[m];
        if (low[self] < 0) continue;
        int32_t match = -1, matches = 0;
        for (int32_t n = start[v]; n < start[v + 1]; ++n)
          if (n != m && high[order[n]] == high[self] && low[order[n]] == low[self]) match = order[n], ++matches;
        if (matches == 1) out[self] = match / 3;
      }
  });
  return ffi::Error::Success();
}

// Areas of the faces of a batch as `facing` gives them, and which vertices are on the rim (see `Mesh`): `look` at every
// face, then `find_rim` of every batch element. Apart, since faces that follow each other share vertices, and each would
// wait for what the one before it writes there.
class Sides {
 public:
  Sides(int64_t B, int64_t V, int64_t F) : V_(V), F_(F), area_(B * F), ends_(B * F), rim_(B * V) {}

  // A function of a face of batch element b and its corners (null where one does not exist) that looks at the face and
  // returns whether it may be drawn. Culled faces end nothing: where one has a neighbour that is drawn, that is seen from
  // its other side.
  auto look(int64_t b, const Vertex* screen, const int32_t* faces, const int32_t* neighbor, bool cull) {
    const Mesh mesh = {screen, faces, neighbor, nullptr, nullptr, V_, F_};
    float* area = &area_[b * F_];
    uint8_t* ends = &ends_[b * F_];
    return [mesh, area, ends, cull](int64_t i, const int32_t* k) {
      area[i] = 0, ends[i] = 0;
      if (!k) return false;
      const Vertex &p = mesh.screen[k[0]], &q = mesh.screen[k[1]], &r = mesh.screen[k[2]];
      area[i] = facing(p, q, r);
      if (cull && seen_from_behind(p, q, r)) return false;
      auto end = [&](int j) { return !wound_alike(mesh, (int32_t)i, j); };
      ends[i] = end(0) | end(1) << 1 | end(2) << 2;
      return true;
    };
  }

  void find_rim(int64_t b, const int32_t* faces) {
    const int64_t V = V_, F = F_;  // bytes that are written may be a member's, for all that a compiler knows
    const float* area = &area_[b * F];
    const uint8_t* ends = &ends_[b * F];
    uint8_t* seen = &rim_[b * V];  // from which sides; 3 is from both
    std::fill(seen, seen + V, 0);
    const int32_t* k;
    for (int64_t i = 0; i < F; ++i) {
      if (!corners_of(faces, F, V, i, &k)) continue;
      const uint8_t side = area[i] > 0 ? 1 : (area[i] < 0 ? 2 : 3), open = ends[i];
      seen[k[0]] |= open & 6 ? 3 : side, seen[k[1]] |= open & 5 ? 3 : side, seen[k[2]] |= open & 3 ? 3 : side;
    }
    for (int64_t v = 0; v < V; ++v) seen[v] = seen[v] == 3;
  }

  Mesh mesh(int64_t b, const Vertex* screen, const int32_t* faces, const int32_t* neighbor) const {
    return {screen, faces, neighbor, &area_[b * F_], &rim_[b * V_], V_, F_};
  }

 private:
  int64_t V_, F_;
  Array<float> area_;    // (B, F)
  Array<uint8_t> ends_;  // (B, F): bit j where the surface does not go on across the edge opposite corner j
  Array<uint8_t> rim_;   // (B, V)
};

// A row of pixels: the face that each shows, -1 where that is none, and its corners, -1 where they are on the rim.
struct Row {
  explicit Row(int64_t W) : face(W), corner{face, face, face} {}

  void look(const Mesh& mesh, const int32_t* shown) {
    const int32_t* k;
    for (size_t x = 0; x < face.size(); ++x) {
      const bool there = corners_of(mesh.faces, mesh.face_count, mesh.vertex_count, shown[x], &k);
      face[x] = there ? shown[x] : -1;
      for (int j = 0; j < 3; ++j) corner[j][x] = there && !mesh.rim[k[j]] ? k[j] : -1;
    }
  }

  std::vector<int32_t> face, corner[3];
};

// Which pixels show another face than their partners, `shift` further on in the other row, without sharing a corner that
// is not on the rim: there alone the surface may end. Nearly all share one, so this is for a compiler to do for several
// pixels at once.
inline void find_apart(const Row& row, const Row& other, int64_t shift, std::vector<uint8_t>& apart) {
  const int32_t *f = row.face.data(), *g = other.face.data() + shift;
  const int32_t *a = row.corner[0].data(), *b = row.corner[1].data(), *c = row.corner[2].data();
  const int32_t *p = other.corner[0].data() + shift, *q = other.corner[1].data() + shift,
                *r = other.corner[2].data() + shift;
  uint8_t* out = apart.data();
  const int64_t count = (int64_t)row.face.size() - shift;
  for (int64_t x = 0; x < count; ++x) {
    const int32_t first = ((a[x] == p[x]) | (a[x] == q[x]) | (a[x] == r[x])) & (a[x] >= 0);
    const int32_t second = ((b[x] == p[x]) | (b[x] == q[x]) | (b[x] == r[x])) & (b[x] >= 0);
    const int32_t third = ((c[x] == p[x]) | (c[x] == q[x]) | (c[x] == r[x])) & (c[x] >= 0);
    out[x] = !((f[x] == g[x]) | first | second | third);
  }
}

// Calls each(x) for the pixels below `count` that are apart. They are few: eight are passed over at once.
template <typename Each>
inline void every_apart(const std::vector<uint8_t>& apart, int64_t count, const Each& each) {
  for (int64_t x = 0; x < count; x += 8) {
    uint64_t eight;
    std::memcpy(&eight, apart.data() + x, sizeof eight);
    if (!eight) continue;
    for (int64_t i = x; i < std::min(x + 8, count); ++i)
      if (apart[i]) each(i);
  }
}

// The edges between the pixels of the rows y0 to y1 (excluded) and the next ones to the right and below.
FACEFIT_FOR_AVX2_TOO inline void crossings_of_rows(const Mesh& mesh, const int32_t* shown, int64_t H, int64_t W, int64_t y0, int64_t y1,
                              int32_t* edges) {
  std::fill(edges + 4 * W * y0, edges + 4 * W * y1, kContinuous);
  Row here(W), below(W);
  std::vector<uint8_t> apart(W + 8);
  if (y0 < y1) below.look(mesh, shown + y0 * W);
  for (int64_t y = y0; y < y1; ++y) {
    std::swap(here, below);
    int32_t* edge = edges + 4 * W * y;
    find_apart(here, here, 1, apart);
    every_apart(apart, W - 1, [&](int64_t x) {
      discontinuity(mesh, here.face[x], here.face[x + 1], x + 0.5f, y + 0.5f, 1, 0, edge + 4 * x, edge + 4 * x + 1);
    });
    if (y + 1 == H) continue;
    below.look(mesh, shown + (y + 1) * W);
    find_apart(here, below, 0, apart);
    every_apart(apart, W, [&](int64_t x) {
      discontinuity(mesh, here.face[x], below.face[x], x + 0.5f, y + 0.5f, 0, 1, edge + 4 * x + 2, edge + 4 * x + 3);
    });
  }
}

// vertices (V, 4), faces (F, 3), neighbors (F, 3), face_index (H, W) -> (H, W, 2, 2): the ends of the edge at which the
// picture changes between each pixel and the next one to the right and below; -1 where the surface goes on, -2 where it
// changes at an edge that was not found.
inline ffi::Error crossings(Team team, Floats vertices, Ints faces, Ints neighbor, Ints face_index,
                            IntResult result) {
  const Batch batch(*result, 4);
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), n = operand<int32_t>(neighbor, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 2);
  const int64_t H = index.dim(0), W = index.dim(1), V = v.dim(0), F = f.dim(0), B = batch.count();
  if (H * W * V * F * B == 0) {
    std::fill(result->typed_data(), result->typed_data() + result->element_count(), -1);
    return ffi::Error::Success();
  }
  const auto screen = screen_vertices(team, v, B, 0.5f * W, 0.5f * H);
  Sides sides(B, V, F);
  const int64_t chunks = chunk_count(B);
  team.each(B * chunks, [&](int64_t task) {
    const int64_t b = task / chunks, c = task % chunks;
    const int32_t* k;
    const auto look = sides.look(b, &screen[b * V], f.at(b), n.at(b), false);
    for (int64_t i = F * c / chunks; i < F * (c + 1) / chunks; ++i)
      look(i, corners_of(f.at(b), F, V, i, &k) ? k : nullptr);
  });
  team.each(B, [&](int64_t b) { sides.find_rim(b, f.at(b)); });
  const int64_t bands = band_count(H, B);
  team.each(B * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    const Mesh mesh = sides.mesh(b, &screen[b * V], f.at(b), n.at(b));
    crossings_of_rows(mesh, index.at(b), H, W, H * band / bands, H * (band + 1) / bands,
                      result->typed_data() + b * H * W * 4);
  });
  return ffi::Error::Success();
}

// Rows above and below a row whose pixels' gradients the blend takes to it.
constexpr int64_t kReach = 2;

// Calls each(edge, crossing, pair) for every pair that an edge crosses between and whose first pixel is in the rows y0 to
// y1 (excluded). A pair's pixels are at most one row above and two below its first.
template <typename Each>
inline void every_crossing(const Pairs& pairs, int64_t y0, int64_t y1, const Each& each) {
  Crossing c;
  Pair pair;
  for (int64_t y = std::max<int64_t>(y0, 0); y < std::min(y1, pairs.H); ++y)
    for (int64_t x = 0; x < pairs.W; ++x) {
      const int32_t* ends = pairs.ends(x, y, 0);
      if ((ends[0] & ends[2]) < 0) continue;  // both negative: nearly everywhere
      for (int down = 0; down < 2; ++down)
        if (pair_at(pairs, x, y, down, &c, &pair)) each(ends + 2 * down, c, pair);
    }
}

// Each of the following writes the rows y0 to y1 (excluded) of its result; what it reads may lie beyond.
inline void blend_rows(const Pairs& pairs, int64_t C, const float* image, int64_t y0, int64_t y1, float* out) {
  const int64_t W = pairs.W;
  std::copy(image + C * W * y0, image + C * W * y1, out + C * W * y0);
  every_crossing(pairs, y0 - 1, y1, [&](const int32_t*, const Crossing&, const Pair& pair) {
    if (pair.changed < W * y0 || pair.changed >= W * y1) return;
    float *to = out + C * pair.changed, unused;
    for (int64_t i = 0; i < C; ++i) to[i] += pair.gain(image + i, C, &unused);
  });
}

inline void blend_forward_rows(const Pairs& pairs, int64_t C, const float* image, const float* d_clip,
                               const float* d_image, int64_t y0, int64_t y1, float* out) {
  const int64_t W = pairs.W;
  std::copy(d_image + C * W * y0, d_image + C * W * y1, out + C * W * y0);
  every_crossing(pairs, y0 - 1, y1, [&](const int32_t* ends, const Crossing& c, const Pair& pair) {
    if (pair.changed < W * y0 || pair.changed >= W * y1) return;
    const float moved = crossing_jvp(c, d_clip + 4 * ends[0], d_clip + 4 * ends[1]);
    float *to = out + C * pair.changed, d_gain, unused;
    for (int64_t i = 0; i < C; ++i) {
      pair.gain(image + i, C, &d_gain);
      to[i] += moved * d_gain + pair.gain(d_image + i, C, &unused);
    }
  });
}

// `g_clip` gains the gradients of the pairs whose first pixel is in the rows. `g_image` begins at row y0.
inline void blend_backward_rows(const Pairs& pairs, int64_t C, const float* image, const float* gradient, int64_t y0,
                                int64_t y1, float* g_clip, float* g_image) {
  const int64_t W = pairs.W, begin = W * y0, end = W * y1;
  std::copy(gradient + C * begin, gradient + C * end, g_image);
  auto add = [&](int64_t pixel, float weight, const float* to) {
    if (pixel < begin || pixel >= end) return;
    float* g = g_image + C * (pixel - begin);
    for (int64_t i = 0; i < C; ++i) g[i] += weight * to[i];
  };
  every_crossing(pairs, y0 - kReach, y1 + 1, [&](const int32_t* ends, const Crossing& c, const Pair& pair) {
    const float* to = gradient + C * pair.changed;
    add(pair.first, pair.weight + pair.slope_first, to);
    add(pair.second, -pair.weight - pair.slope_second, to);
    add(pair.before, -pair.slope_first, to);
    add(pair.after, pair.slope_second, to);
    if (pair.first < begin || pair.first >= end) return;
    float moved = 0, d_gain;
    for (int64_t i = 0; i < C; ++i) {
      pair.gain(image + i, C, &d_gain);
      moved += to[i] * d_gain;
    }
    crossing_vjp(c, moved, g_clip + 4 * ends[0], g_clip + 4 * ends[1]);
  });
}

// vertices (V, 4), edges (H, W, 2, 2), image (H, W, C) -> (H, W, C)
inline ffi::Error blend(Team team, Floats vertices, Ints edges, Floats image, FloatResult out) {
  const Batch batch(*out, 3);
  const auto v = operand<float>(vertices, batch, 2), from = operand<float>(image, batch, 3);
  const auto e = operand<int32_t>(edges, batch, 4);
  const int64_t H = from.dim(0), W = from.dim(1), bands = band_count(H, batch.count());
  team.each(batch.count() * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    blend_rows({v.at(b), e.at(b), v.dim(0), H, W}, from.dim(2), from.at(b), H * band / bands, H * (band + 1) / bands,
               out->typed_data() + b * from.size);
  });
  return ffi::Error::Success();
}

// vertices, edges, image, tangents of vertices and image -> tangent of the result
inline ffi::Error blend_forward(Team team, Floats vertices, Ints edges, Floats image, Floats d_vertices,
                                Floats d_image, FloatResult out) {
  const Batch batch(*out, 3);
  const auto v = operand<float>(vertices, batch, 2), dv = operand<float>(d_vertices, batch, 2);
  const auto from = operand<float>(image, batch, 3), tangent = operand<float>(d_image, batch, 3);
  const auto e = operand<int32_t>(edges, batch, 4);
  const int64_t H = from.dim(0), W = from.dim(1), bands = band_count(H, batch.count());
  team.each(batch.count() * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    blend_forward_rows({v.at(b), e.at(b), v.dim(0), H, W}, from.dim(2), from.at(b), dv.at(b), tangent.at(b),
                       H * band / bands, H * (band + 1) / bands, out->typed_data() + b * from.size);
  });
  return ffi::Error::Success();
}

// vertices, edges, image, gradient of the result -> gradients of vertices and image
inline ffi::Error blend_backward(Team team, Floats vertices, Ints edges, Floats image, Floats gradient,
                                 FloatResult g_vertices, FloatResult g_image) {
  const Batch batch(*g_image, 3);
  const auto v = operand<float>(vertices, batch, 2);
  const auto from = operand<float>(image, batch, 3), g = operand<float>(gradient, batch, 3);
  const auto e = operand<int32_t>(edges, batch, 4);
  const int64_t H = from.dim(0), W = from.dim(1), C = from.dim(2);
  Gather gather(team, g_vertices->typed_data(), batch.count(), v.size);
  if (from.size == 0 || batch.count() == 0) return ffi::Error::Success();
  const int64_t parts = gather.parts();
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts, y0 = H * part / parts, y1 = H * (part + 1) / parts;
    blend_backward_rows({v.at(b), e.at(b), v.dim(0), H, W}, C, from.at(b), g.at(b), y0, y1,
                        gather.part(b, part), g_image->typed_data() + b * from.size + C * W * y0);
  });
  gather.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
