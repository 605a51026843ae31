// Loops of antialiasing on the CPU: neighbours of faces, the edges between pixels, the blend and its derivatives.
#pragma once

#include "rasterization.h"
#include "silhouette.h"

namespace facefit {

// faces (F, 3) -> (F, 3): the face across the edge opposite each corner; -1 where there is none or more than one.
inline ffi::Error neighbors(ffi::ThreadPool pool, Ints faces, IntResult result) {
  const Batch batch(*result, 2);
  const auto f = operand<int32_t>(faces, batch, 2);
  const int64_t F = f.dim(0), edges = 3 * F;
  std::fill(result->typed_data(), result->typed_data() + result->element_count(), -1);
  parallel_for(pool, batch.count(), [&](int64_t b) {
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

// vertices (V, 4), faces (F, 3), neighbors (F, 3), face_index (H, W) -> (H, W, 2, 2): the ends of the edge at which the
// picture changes between each pixel and the next one to the right and below; -1 where the surface goes on, -2 where it
// changes at an edge that was not found.
inline ffi::Error crossings(ffi::ThreadPool pool, Floats vertices, Ints faces, Ints neighbor, Ints face_index,
                            IntResult result) {
  const Batch batch(*result, 4);
  const auto v = operand<float>(vertices, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), n = operand<int32_t>(neighbor, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 2);
  const int64_t H = index.dim(0), W = index.dim(1), V = v.dim(0), F = f.dim(0), B = batch.count();
  std::fill(result->typed_data(), result->typed_data() + result->element_count(), -1);
  if (H * W * V * F == 0) return ffi::Error::Success();
  std::vector<Vertex> screen(B * V);
  const int64_t chunks = B >= 8 ? 1 : 8;
  parallel_for(pool, B * chunks, [&](int64_t task) {
    const int64_t b = task / chunks, c = task % chunks;
    for (int64_t i = V * c / chunks; i < V * (c + 1) / chunks; ++i)
      screen[b * V + i] = screen_vertex(v.at(b) + 4 * i, 0.5f * W, 0.5f * H);
  });
  const int64_t bands = std::min<int64_t>(H, B >= 8 ? 4 : 16);
  parallel_for(pool, B * bands, [&](int64_t task) {
    const int64_t b = task / bands, band = task % bands;
    const Mesh mesh = {screen.data() + b * V, f.at(b), n.at(b), V, F};
    const int32_t* shown = index.at(b);
    int32_t* to = result->typed_data() + b * H * W * 4;
    auto there = [&](int32_t face) {
      const int32_t* k;
      return corners_of(mesh.faces, F, V, face, &k) ? face : -1;
    };
    for (int64_t y = H * band / bands; y < H * (band + 1) / bands; ++y)
      for (int64_t x = 0; x < W; ++x) {
        const int64_t at = y * W + x;
        for (int down = 0; down < 2; ++down) {
          if (down ? y + 1 == H : x + 1 == W) continue;
          const int32_t first = shown[at], second = shown[down ? at + W : at + 1];
          if (first == second) continue;
          int32_t* edge = to + 4 * at + 2 * down;
          discontinuity(mesh, there(first), there(second), x + 0.5f, y + 0.5f, down ? 0.0f : 1.0f, down ? 1.0f : 0.0f,
                        edge, edge + 1);
        }
      }
  });
  return ffi::Error::Success();
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
  float gain(const float* image, int64_t C, float* d_gain) const {
    const float p = image[C * first], q = image[C * second];
    const float slope_p = p - image[C * before], slope_q = image[C * after] - q;
    *d_gain = (p - q) + d_slope_first * slope_p + d_slope_second * slope_q;
    return weight * (p - q) + slope_first * slope_p + slope_second * slope_q;
  }
  // Adds the gradient of an image's channel, given that of the gain.
  void gain_vjp(float gradient, int64_t C, float* image) const {
    image[C * first] += gradient * (weight + slope_first);
    image[C * second] -= gradient * (weight + slope_second);
    image[C * before] -= gradient * slope_first;
    image[C * after] += gradient * slope_second;
  }
};

// Calls each(b, edge, crossing, pair) for every pair of neighbouring pixels that an edge crosses between. One thread a
// picture: few pairs are crossed, and pairs share pixels.
template <typename Each>
inline void every_crossing(ffi::ThreadPool& pool, const Batch& batch, const Floats& vertices, const Ints& edges,
                           const Each& each) {
  const auto v = operand<float>(vertices, batch, 2);
  const auto e = operand<int32_t>(edges, batch, 4);
  const int64_t H = e.dim(0), W = e.dim(1), V = v.dim(0);
  parallel_for(pool, batch.count(), [&](int64_t b) {
    const int32_t* edge = e.at(b);
    const float* clip = v.at(b);
    Crossing c;
    for (int64_t y = 0; y < H; ++y)
      for (int64_t x = 0; x < W; ++x)
        for (int down = 0; down < 2; ++down) {
          const int64_t at = y * W + x, step = down ? W : 1, place = down ? y : x, length = down ? H : W;
          const int32_t* ends = edge + 4 * at + 2 * down;
          if (ends[0] < 0 || ends[0] >= V || ends[1] < 0 || ends[1] >= V || place + 1 >= length) continue;
          if (!crossing_at(clip + 4 * ends[0], clip + 4 * ends[1], x + 0.5f, y + 0.5f, down, 0.5f * W, 0.5f * H, &c))
            continue;
          const bool continues = place > 0 && ends[-4 * step] == kContinuous;
          const bool goes_on = place + 2 < length && ends[4 * step] == kContinuous;
          const float t = c.position, square = 0.5f * (t * t - 0.25f);
          each(b, ends, c, Pair{continues ? at - step : at, at, at + step, at + (goes_on ? 2 : 1) * step,
                                t > 0.5f ? at + step : at, t - 0.5f, square, (t - 0.5f) - square, t, 1 - t});
        }
  });
}

// vertices (V, 4), edges (H, W, 2, 2), image (H, W, C) -> (H, W, C)
inline ffi::Error blend(ffi::ThreadPool pool, Floats vertices, Ints edges, Floats image, FloatResult out) {
  const Batch batch(*out, 3);
  const auto from = operand<float>(image, batch, 3);
  const int64_t C = from.dim(2);
  for (int64_t b = 0; b < batch.count(); ++b)
    std::copy(from.at(b), from.at(b) + from.size, out->typed_data() + b * from.size);
  every_crossing(pool, batch, vertices, edges, [&](int64_t b, const int32_t*, const Crossing&, const Pair& pair) {
    float *to = out->typed_data() + b * from.size + C * pair.changed, unused;
    for (int64_t i = 0; i < C; ++i) to[i] += pair.gain(from.at(b) + i, C, &unused);
  });
  return ffi::Error::Success();
}

// vertices, edges, image, tangents of vertices and image -> tangent of the result
inline ffi::Error blend_forward(ffi::ThreadPool pool, Floats vertices, Ints edges, Floats image, Floats d_vertices,
                                Floats d_image, FloatResult out) {
  const Batch batch(*out, 3);
  const auto from = operand<float>(image, batch, 3), tangent = operand<float>(d_image, batch, 3);
  const auto dv = operand<float>(d_vertices, batch, 2);
  const int64_t C = from.dim(2);
  for (int64_t b = 0; b < batch.count(); ++b)
    std::copy(tangent.at(b), tangent.at(b) + from.size, out->typed_data() + b * from.size);
  every_crossing(pool, batch, vertices, edges, [&](int64_t b, const int32_t* ends, const Crossing& c, const Pair& pair) {
    const float moved = crossing_jvp(c, dv.at(b) + 4 * ends[0], dv.at(b) + 4 * ends[1]);
    float *to = out->typed_data() + b * from.size + C * pair.changed, d_gain, unused;
    for (int64_t i = 0; i < C; ++i) {
      pair.gain(from.at(b) + i, C, &d_gain);
      to[i] += moved * d_gain + pair.gain(tangent.at(b) + i, C, &unused);
    }
  });
  return ffi::Error::Success();
}

// vertices, edges, image, gradient of the result -> gradients of vertices and image
inline ffi::Error blend_backward(ffi::ThreadPool pool, Floats vertices, Ints edges, Floats image, Floats gradient,
                                 FloatResult g_vertices, FloatResult g_image) {
  const Batch batch(*g_image, 3);
  const auto from = operand<float>(image, batch, 3), g = operand<float>(gradient, batch, 3);
  const int64_t C = from.dim(2);
  float* result = g_vertices->typed_data();
  const int64_t length = batch.count() ? g_vertices->element_count() / batch.count() : 0;
  std::fill(result, result + g_vertices->element_count(), 0.0f);
  for (int64_t b = 0; b < batch.count(); ++b)
    std::copy(g.at(b), g.at(b) + from.size, g_image->typed_data() + b * from.size);
  every_crossing(pool, batch, vertices, edges, [&](int64_t b, const int32_t* ends, const Crossing& c, const Pair& pair) {
    const float* to = g.at(b) + C * pair.changed;
    float moved = 0, d_gain;
    for (int64_t i = 0; i < C; ++i) {
      pair.gain(from.at(b) + i, C, &d_gain);
      moved += to[i] * d_gain;
      pair.gain_vjp(to[i], C, g_image->typed_data() + b * from.size + i);
    }
    crossing_vjp(c, moved, result + b * length + 4 * ends[0], result + b * length + 4 * ends[1]);
  });
  return ffi::Error::Success();
}

}  // namespace facefit
