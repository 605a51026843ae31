// Loops of drawing on the CPU: from vertices and their attributes to antialiased pixels in one call, and back.
#pragma once

#include <type_traits>

#include "antialiasing.h"

namespace facefit {

// What a drawing is made of. The fine picture has `samples` x `samples` pixels for one of the result; its channels are
// the C attributes and the coverage.
struct Drawn {
  const float *clip, *attributes;
  const int32_t *faces, *index, *edges;
  const float* hard;
  int64_t V, F, C, H, W, samples;

  Pairs pairs() const { return {clip, edges, V, H, W}; }
};

// Calls f with the number of attributes: known to the compiler where there are three, the commonest case.
template <typename F>
inline void with_channels(int64_t C, const F& f) {
  if (C == 3) return f(std::integral_constant<int64_t, 3>());
  f(C);
}

// The fine picture's rows averaged into the result's; `fine` begins at row y0, a multiple of `samples`.
inline void pool_rows(const float* fine, int64_t channels, int64_t W, int64_t samples, int64_t y0, int64_t y1,
                      float* out) {
  const int64_t width = W / samples;
  const float share = 1.0f / (samples * samples);
  std::fill(out + channels * width * (y0 / samples), out + channels * width * (y1 / samples), 0.0f);
  for (int64_t y = y0; y < y1; ++y)
    for (int64_t x = 0; x < W; ++x) {
      const float* from = fine + channels * ((y - y0) * W + x);
      float* to = out + channels * (y / samples * width + x / samples);
      for (int64_t i = 0; i < channels; ++i) to[i] += share * from[i];
    }
}

// Calls each(corners, surface, pixel) for every pixel of the rows y0 to y1 that shows a face.
template <typename Each>
inline void every_pixel(const Drawn& d, int64_t y0, int64_t y1, const Each& each) {
  const float half_x = 0.5f * d.W, half_y = 0.5f * d.H;
  Surface value;
  for (int64_t y = y0; y < y1; ++y)
    for (int64_t x = 0; x < d.W; ++x) {
      const int64_t at = y * d.W + x;
      const int32_t* k;
      if (!corners_of(d.faces, d.F, d.V, d.index[at], &k)) continue;
      const float* const corner[3] = {d.clip + 4 * k[0], d.clip + 4 * k[1], d.clip + 4 * k[2]};
      surface_at(corner, x + 0.5f, y + 0.5f, half_x, half_y, &value);
      each(k, value, at);
    }
}

// The hard picture's rows y0 to y1 (excluded), or their change.
inline void shade_rows(const Drawn& d, int64_t y0, int64_t y1, float* hard) {
  std::fill(hard + (d.C + 1) * d.W * y0, hard + (d.C + 1) * d.W * y1, 0.0f);
  with_channels(d.C, [&](auto C) {
    every_pixel(d, y0, y1, [&](const int32_t* k, const Surface& value, int64_t at) {
      const float *w = value.barycentric, *p = d.attributes + C * k[0], *q = d.attributes + C * k[1],
                  *r = d.attributes + C * k[2];
      float* to = hard + (C + 1) * at;
      for (int64_t c = 0; c < C; ++c) to[c] = w[0] * p[c] + w[1] * q[c] + w[2] * r[c];
      to[C] = 1.0f;
    });
  });
}

inline void shade_forward_rows(const Drawn& d, const float* d_clip, const float* d_attributes, int64_t y0, int64_t y1,
                               float* tangent) {
  const int64_t C = d.C, channels = C + 1;
  std::fill(tangent + channels * d.W * y0, tangent + channels * d.W * y1, 0.0f);
  every_pixel(d, y0, y1, [&](const int32_t* k, const Surface& value, int64_t at) {
    const float* const corner[3] = {d_clip + 4 * k[0], d_clip + 4 * k[1], d_clip + 4 * k[2]};
    float moved[3], unused;
    surface_jvp(value, corner, moved, &unused);
    float* to = tangent + channels * at;
    for (int j = 0; j < 3; ++j) {
      const float *a = d.attributes + C * k[j], *da = d_attributes + C * k[j];
      for (int64_t c = 0; c < C; ++c) to[c] += value.barycentric[j] * da[c] + moved[j] * a[c];
    }
  });
}

// `gradient` begins at row y0. The coverage of a pixel that shows a face is one: it has no gradient here.
inline void shade_backward_rows(const Drawn& d, const float* gradient, int64_t y0, int64_t y1, float* g_clip,
                                float* g_attributes) {
  with_channels(d.C, [&](auto C) {
    every_pixel(d, y0, y1, [&](const int32_t* k, const Surface& value, int64_t at) {
      const float* from = gradient + (C + 1) * (at - y0 * d.W);
      float dot[3];
      for (int j = 0; j < 3; ++j) {
        const float* a = d.attributes + C * k[j];
        float *sum = g_attributes + C * k[j], total = 0;
        for (int64_t c = 0; c < C; ++c) {
          total += from[c] * a[c];
          sum[c] += value.barycentric[j] * from[c];
        }
        dot[j] = total;
      }
      float* const corner[3] = {g_clip + 4 * k[0], g_clip + 4 * k[1], g_clip + 4 * k[2]};
      surface_vjp(value, dot, 0.0f, corner);
    });
  });
}

// vertices (V, 4), faces (F, 3), neighbors (F, 3), attributes (V, C) -> what the derivatives need, of the fine picture:
// face_index (H, W), edges (H, W, 2, 2), hard (H, W, C + 1); and the picture (H / s, W / s, C + 1).
inline ffi::Error draw(ffi::ThreadPool pool, Floats vertices, Ints faces, Ints neighbor, Floats attributes,
                       IntResult face_index, IntResult edges, FloatResult hard, FloatResult picture) {
  const Batch batch(*picture, 3);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), n = operand<int32_t>(neighbor, batch, 2);
  const int64_t rank = face_index->dimensions().size(), out_rank = picture->dimensions().size();
  const int64_t H = face_index->dimensions()[rank - 2], W = face_index->dimensions()[rank - 1];
  const int64_t rows = picture->dimensions()[out_rank - 3], V = v.dim(0), F = f.dim(0), C = a.dim(1), B = batch.count();
  if (picture->element_count() == 0) return ffi::Error::Success();
  const int64_t samples = H / rows, pixels = H * W;
  const auto screen = screen_vertices(pool, v, B, 0.5f * W, 0.5f * H);
  auto drawn = [&](int64_t b) {
    return Drawn{v.at(b), a.at(b), f.at(b), face_index->typed_data() + b * pixels, edges->typed_data() + 4 * b * pixels,
                 hard->typed_data() + (C + 1) * b * pixels, V, F, C, H, W, samples};
  };
  const int64_t bands = band_count(rows, B);
  const auto begins = begins_of_bands(rows, bands, samples);
  Sides sides(B, V, F);
  auto look = [&](int64_t b, int64_t chunk, int64_t i, const int32_t* k) {
    sides.look(b, chunk, i, k, &screen[b * V], f.at(b), n.at(b));
  };
  const Windows windows(pool, screen, f, B, V, (int)W, begins, look);
  auto in_bands = [&](auto each) {
    parallel_for(pool, B * bands, [&](int64_t task) {
      const int64_t band = task % bands;
      each(task / bands, begins[band], begins[band + 1]);
    });
  };
  parallel_for(pool, B * (1 + bands), [&](int64_t task) {
    if (task < B) return sides.find_rim(task);
    const int64_t b = (task - B) / bands, band = (task - B) % bands, y0 = begins[band], y1 = begins[band + 1];
    nearest_faces(screen.data() + b * V, f.at(b), windows, b, band, (int)y0, (int)y1 - 1, (int)W,
                  face_index->typed_data() + b * pixels + y0 * W);
    shade_rows(drawn(b), y0, y1, hard->typed_data() + (C + 1) * b * pixels);
  });
  in_bands([&](int64_t b, int64_t y0, int64_t y1) {
    const Mesh mesh = sides.mesh(b, &screen[b * V], f.at(b), n.at(b));
    crossings_of_rows(mesh, face_index->typed_data() + b * pixels, H, W, y0, y1, edges->typed_data() + 4 * b * pixels);
  });
  in_bands([&](int64_t b, int64_t y0, int64_t y1) {
    const Drawn d = drawn(b);
    float* out = picture->typed_data() + (C + 1) * b * (pixels / (samples * samples));
    if (samples == 1) return blend_rows(d.pairs(), C + 1, d.hard, y0, y1, out);
    std::vector<float> fine((C + 1) * (y1 - y0) * W);
    blend_rows(d.pairs(), C + 1, d.hard, y0, y1, fine.data() - (C + 1) * W * y0);
    pool_rows(fine.data(), C + 1, W, samples, y0, y1, out);
  });
  return ffi::Error::Success();
}

// vertices, faces, attributes, face_index, edges, hard, tangents of vertices and attributes -> tangent of the picture
inline ffi::Error draw_forward(ffi::ThreadPool pool, Floats vertices, Ints faces, Floats attributes, Ints face_index,
                               Ints edges, Floats hard, Floats d_vertices, Floats d_attributes, FloatResult out) {
  const Batch batch(*out, 3);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto dv = operand<float>(d_vertices, batch, 2), da = operand<float>(d_attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), index = operand<int32_t>(face_index, batch, 2);
  const auto e = operand<int32_t>(edges, batch, 4);
  const auto h = operand<float>(hard, batch, 3);
  if (out->element_count() == 0) return ffi::Error::Success();
  const int64_t H = index.dim(0), W = index.dim(1), C = a.dim(1), B = batch.count();
  const int64_t rows = out->dimensions()[out->dimensions().size() - 3], samples = H / rows;
  std::vector<float> tangent((C + 1) * B * H * W);
  const int64_t bands = band_count(rows, B);
  for (int pass = 0; pass < 2; ++pass)
    parallel_for(pool, B * bands, [&](int64_t task) {
      const int64_t b = task / bands, band = task % bands;
      const int64_t y0 = samples * (rows * band / bands), y1 = samples * (rows * (band + 1) / bands);
      const Drawn d = {v.at(b), a.at(b), f.at(b), index.at(b), e.at(b), h.at(b), v.dim(0), f.dim(0), C, H, W, samples};
      float* moved = tangent.data() + b * (C + 1) * H * W;
      if (pass == 0) return shade_forward_rows(d, dv.at(b), da.at(b), y0, y1, moved);
      float* to = out->typed_data() + b * (C + 1) * (H / samples) * (W / samples);
      std::vector<float> fine((C + 1) * (y1 - y0) * W);
      blend_forward_rows(d.pairs(), C + 1, d.hard, dv.at(b), moved, y0, y1, fine.data() - (C + 1) * W * y0);
      pool_rows(fine.data(), C + 1, W, samples, y0, y1, to);
    });
  return ffi::Error::Success();
}

// vertices, faces, attributes, face_index, edges, hard, gradient of the picture -> gradients of vertices and attributes
inline ffi::Error draw_backward(ffi::ThreadPool pool, Floats vertices, Ints faces, Floats attributes, Ints face_index,
                                Ints edges, Floats hard, Floats gradient, FloatResult g_vertices,
                                FloatResult g_attributes) {
  const Batch batch(*g_vertices, 2);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), index = operand<int32_t>(face_index, batch, 2);
  const auto e = operand<int32_t>(edges, batch, 4);
  const auto h = operand<float>(hard, batch, 3), g = operand<float>(gradient, batch, 3);
  float *to_vertices = g_vertices->typed_data(), *to_attributes = g_attributes->typed_data();
  std::fill(to_vertices, to_vertices + g_vertices->element_count(), 0.0f);
  std::fill(to_attributes, to_attributes + g_attributes->element_count(), 0.0f);
  if (g.size == 0 || batch.count() == 0 || v.dim(0) == 0) return ffi::Error::Success();
  const int64_t H = index.dim(0), W = index.dim(1), C = a.dim(1), channels = C + 1, B = batch.count();
  const int64_t samples = H / g.dim(0), width = g.dim(1);
  std::vector<float> fine(samples > 1 ? channels * B * H * W : 0);
  if (samples > 1)
    parallel_for(pool, B * g.dim(0), [&](int64_t task) {
      const int64_t b = task / g.dim(0), row = task % g.dim(0);
      const float share = 1.0f / (samples * samples);
      for (int64_t y = samples * row; y < samples * (row + 1); ++y)
        for (int64_t x = 0; x < W; ++x)
          for (int64_t i = 0; i < channels; ++i)
            fine[channels * ((b * H + y) * W + x) + i] = share * g.at(b)[channels * (row * width + x / samples) + i];
    });
  Gather gather(B, v.size), colors(B, a.size);
  const int64_t parts = gather.parts();
  parallel_for(pool, B * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts, y0 = H * part / parts, y1 = H * (part + 1) / parts;
    const Drawn d = {v.at(b), a.at(b), f.at(b), index.at(b), e.at(b), h.at(b), v.dim(0), f.dim(0), C, H, W, samples};
    float *g_clip = gather.part(to_vertices, b, part), *g_color = colors.part(to_attributes, b, part);
    std::vector<float> g_hard(channels * (y1 - y0) * W);
    blend_backward_rows(d.pairs(), channels, d.hard, samples > 1 ? fine.data() + channels * b * H * W : g.at(b), y0, y1,
                        g_clip, g_hard.data());
    shade_backward_rows(d, g_hard.data(), y0, y1, g_clip, g_color);
  });
  gather.add(to_vertices);
  colors.add(to_attributes);
  return ffi::Error::Success();
}

}  // namespace facefit
