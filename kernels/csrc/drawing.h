// Loops of drawing on the CPU: from vertices and their attributes to antialiased pixels in one call, and back.
#pragma once

#include "antialiasing.h"
#include "four.h"
#include "interpolation.h"

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

// The result: a picture of the attributes, and the coverage.
template <typename Number>
struct Picture {
  Number *image, *coverage;
};

// Sets the rows y0 to y1 (excluded) of a picture `width` wide to zero.
inline void clear_rows(const Picture<float>& p, int64_t C, int64_t width, int64_t y0, int64_t y1) {
  std::fill(p.image + C * width * y0, p.image + C * width * y1, 0.0f);
  std::fill(p.coverage + width * y0, p.coverage + width * y1, 0.0f);
}

// The fine picture's rows averaged into the result's; `fine` begins at row y0, a multiple of `samples`.
inline void pool_rows(const float* fine, int64_t C, int64_t W, int64_t samples, int64_t y0, int64_t y1,
                      const Picture<float>& out) {
  const int64_t width = W / samples;
  const float share = 1.0f / (samples * samples);
  clear_rows(out, C, width, y0 / samples, y1 / samples);
  for (int64_t y = y0; y < y1; ++y)
    for (int64_t x = 0; x < W; ++x, fine += C + 1) {
      const int64_t to = y / samples * width + x / samples;
      for (int64_t i = 0; i < C; ++i) out.image[C * to + i] += share * fine[i];
      out.coverage[to] += share * fine[C];
    }
}

// The gradient of the fine picture's rows, given that of the result; `fine` begins at row y0.
inline void unpool_rows(const Picture<const float>& gradient, int64_t channels, int64_t W, int64_t samples, int64_t y0,
                        int64_t y1, float* fine) {
  const float share = 1.0f / (samples * samples);
  with_channels(channels - 1, [&](auto C) {
    for (int64_t y = y0; y < y1; ++y)
      for (int64_t x = 0; x < W; ++x, fine += C + 1) {
        const int64_t from = samples == 1 ? y * W + x : y / samples * (W / samples) + x / samples;
        for (int64_t i = 0; i < C; ++i) fine[i] = share * gradient.image[C * from + i];
        fine[C] = share * gradient.coverage[from];
      }
  });
}

// As `blend_rows`, where the result, which has the hard picture already, is as fine.
inline void blend_into(const Drawn& d, int64_t y0, int64_t y1, const Picture<float>& out) {
  const int64_t C = d.C;
  every_crossing(d.pairs(), y0 - 1, y1, [&](const int32_t*, const Crossing&, const Pair& pair) {
    if (pair.changed < d.W * y0 || pair.changed >= d.W * y1) return;
    float unused;
    for (int64_t i = 0; i < C; ++i) out.image[C * pair.changed + i] += pair.gain(d.hard + i, C + 1, &unused);
    out.coverage[pair.changed] += pair.gain(d.hard + C, C + 1, &unused);
  });
}

// Four pixels that show faces, and the corners of these. Where there are fewer, the first one stands for the others.
struct Pixels {
  int count;
  int64_t at[4];
  const int32_t* corner[4];
};

// The rows of `values` (V, 4) that belong to the corners, column by column.
inline void corners_of_pixels(const float* values, const Pixels& p, Four corner[3][4]) {
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < 4; ++i) corner[k][i] = load(values + 4 * p.corner[i][k]);
    transpose(corner[k]);
  }
}

// Calls each(pixels, surface) for all pixels of the rows y0 to y1 that show a face.
template <typename Each>
inline void every_pixel(const Drawn& d, int64_t y0, int64_t y1, const Each& each) {
  Pixels p = {};
  float x[4], y[4];
  auto look = [&] {
    for (int i = p.count; i < 4; ++i) p.at[i] = p.at[0], p.corner[i] = p.corner[0], x[i] = x[0], y[i] = y[0];
    Four corner[3][4];
    SurfaceOf<Four> value;
    corners_of_pixels(d.clip, p, corner);
    find_surface(corner, load(x), load(y), 0.5f * d.W, 0.5f * d.H, &value);
    each(p, value);
    p.count = 0;
  };
  for (int64_t row = y0; row < y1; ++row)
    for (int64_t column = 0; column < d.W; ++column) {
      const int64_t at = row * d.W + column;
      if (!corners_of(d.faces, d.F, d.V, d.index[at], &p.corner[p.count])) continue;
      x[p.count] = column + 0.5f, y[p.count] = row + 0.5f, p.at[p.count] = at;
      if (++p.count == 4) look();
    }
  if (p.count) look();
}

// The hard picture's rows y0 to y1 (excluded), to `out` too where the result is as fine.
FACEFIT_FOR_AVX2_TOO inline void shade_rows(const Drawn& d, int64_t y0, int64_t y1, float* hard, const Picture<float>& out) {
  std::fill(hard + (d.C + 1) * d.W * y0, hard + (d.C + 1) * d.W * y1, 0.0f);
  if (d.samples == 1) clear_rows(out, d.C, d.W, y0, y1);
  with_channels(d.C, [&](auto C) {
    every_pixel(d, y0, y1, [&](const Pixels& pixels, const SurfaceOf<Four>& value) {
      const Four* w = value.barycentric;
      for (int i = 0; i < 4; ++i) {
        const int32_t* k = pixels.corner[i];
        const float *p = d.attributes + C * k[0], *q = d.attributes + C * k[1], *r = d.attributes + C * k[2];
        const int64_t at = pixels.at[i];
        float* to = hard + (C + 1) * at;
        for (int64_t c = 0; c < C; c += 4) {
          const int64_t n = C - c;
          const Four value = w[0][i] * load(p + c, n) + w[1][i] * load(q + c, n) + w[2][i] * load(r + c, n);
          store(to + c, value, n);
          if (d.samples == 1) store(out.image + C * at + c, value, n);
        }
        to[C] = 1.0f;
        if (d.samples == 1) out.coverage[at] = 1.0f;
      }
    });
  });
}

inline void shade_forward_rows(const Drawn& d, const float* d_clip, const float* d_attributes, int64_t y0, int64_t y1,
                               float* tangent) {
  const int64_t C = d.C, channels = C + 1;
  std::fill(tangent + channels * d.W * y0, tangent + channels * d.W * y1, 0.0f);
  every_pixel(d, y0, y1, [&](const Pixels& pixels, const SurfaceOf<Four>& value) {
    Four corner[3][4], moved[3], unused;
    corners_of_pixels(d_clip, pixels, corner);
    find_surface_jvp(value, corner, moved, &unused);
    for (int i = 0; i < pixels.count; ++i) {
      float* to = tangent + channels * pixels.at[i];
      for (int j = 0; j < 3; ++j) {
        const float *a = d.attributes + C * pixels.corner[i][j], *da = d_attributes + C * pixels.corner[i][j];
        for (int64_t c = 0; c < C; ++c) to[c] += value.barycentric[j][i] * da[c] + moved[j][i] * a[c];
      }
    }
  });
}

// `gradient` begins at row y0. The coverage of a pixel that shows a face is one: it has no gradient here.
FACEFIT_FOR_AVX2_TOO inline void shade_backward_rows(const Drawn& d, const float* gradient, int64_t y0, int64_t y1, float* g_clip,
                                float* g_attributes) {
  with_channels(d.C, [&](auto C) {
    every_pixel(d, y0, y1, [&](const Pixels& pixels, const SurfaceOf<Four>& value) {
      Four dot[3] = {}, gx[3], gy[3];
      for (int64_t c = 0; c < C; c += 4) {
        const int64_t n = C - c;
        Four from[4];
        for (int i = 0; i < 4; ++i)
          from[i] = i < pixels.count ? load(gradient + (C + 1) * (pixels.at[i] - y0 * d.W) + c, n) : Four{};
        for (int j = 0; j < 3; ++j) {
          Four product[4];
          for (int i = 0; i < 4; ++i) {
            const int64_t place = C * pixels.corner[i][j] + c;
            float* sum = g_attributes + place;
            product[i] = from[i] * load(d.attributes + place, n);
            store(sum, load(sum, n) + value.barycentric[j][i] * from[i], n);
          }
          transpose(product);
          dot[j] += (product[0] + product[1]) + (product[2] + product[3]);
        }
      }
      barycentric_vjp(value, dot, gx, gy);
      for (int j = 0; j < 3; ++j) {
        Four g[4] = {value.half_x * gx[j], value.half_y * gy[j], Four{}, value.from_x * gx[j] + value.from_y * gy[j]};
        transpose(g);
        for (int i = 0; i < 4; ++i) {
          float* to = g_clip + 4 * pixels.corner[i][j];
          store(to, load(to) + g[i]);
        }
      }
    });
  });
}

// vertices (V, 4), faces (F, 3), neighbors (F, 3), attributes (V, C) -> what the derivatives need, of the fine picture:
// face_index (H, W), edges (H, W, 2, 2), hard (H, W, C + 1); and the picture (H / s, W / s, C) and its coverage.
inline ffi::Error draw(Team team, Floats vertices, Ints faces, Ints neighbor, Floats attributes, bool cull,
                       IntResult face_index, IntResult edges, FloatResult hard, FloatResult image,
                       FloatResult coverage) {
  const Batch batch(*coverage, 2);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), n = operand<int32_t>(neighbor, batch, 2);
  const int64_t rank = face_index->dimensions().size();
  const int64_t H = face_index->dimensions()[rank - 2], W = face_index->dimensions()[rank - 1];
  const int64_t rows = coverage->dimensions()[rank - 2], V = v.dim(0), F = f.dim(0), C = a.dim(1), B = batch.count();
  if (coverage->element_count() == 0) return ffi::Error::Success();
  expect_large_results(face_index, edges, hard, image, coverage);
  const int64_t samples = H / rows, pixels = H * W, size = pixels / (samples * samples);
  const auto screen = screen_vertices(team, v, B, 0.5f * W, 0.5f * H);
  auto drawn = [&](int64_t b) {
    return Drawn{v.at(b), a.at(b), f.at(b), face_index->typed_data() + b * pixels, edges->typed_data() + 4 * b * pixels,
                 hard->typed_data() + (C + 1) * b * pixels, V, F, C, H, W, samples};
  };
  auto picture = [&](int64_t b) {
    return Picture<float>{image->typed_data() + C * b * size, coverage->typed_data() + b * size};
  };
  const int64_t bands = std::min(rows, band_count(H, B));
  const auto begins = begins_of_bands(rows, bands, samples);
  Sides sides(B, V, F);
  const Windows windows(team, screen, f, B, V, (int)W, begins, kNoBlur, [&](int64_t b) {
    return sides.look(b, &screen[b * V], f.at(b), n.at(b), cull);
  });
  auto in_bands = [&](auto each) {
    team.each(B * bands, [&](int64_t task) {
      const int64_t band = task % bands;
      each(task / bands, begins[band], begins[band + 1]);
    });
  };
  team.each(B * (1 + bands), [&](int64_t task) {
    if (task < B) return sides.find_rim(task, f.at(task));
    const int64_t b = (task - B) / bands, band = (task - B) % bands, y0 = begins[band], y1 = begins[band + 1];
    nearest_faces(screen.data() + b * V, f.at(b), windows, b, band, (int)y0, (int)y1 - 1, (int)W,
                  face_index->typed_data() + b * pixels + y0 * W);
    shade_rows(drawn(b), y0, y1, hard->typed_data() + (C + 1) * b * pixels, picture(b));
  });
  in_bands([&](int64_t b, int64_t y0, int64_t y1) {
    const Mesh mesh = sides.mesh(b, &screen[b * V], f.at(b), n.at(b));
    crossings_of_rows(mesh, face_index->typed_data() + b * pixels, H, W, y0, y1, edges->typed_data() + 4 * b * pixels);
  });
  in_bands([&](int64_t b, int64_t y0, int64_t y1) {
    const Drawn d = drawn(b);
    if (samples == 1) return blend_into(d, y0, y1, picture(b));
    Array<float> fine((C + 1) * (y1 - y0) * W);
    blend_rows(d.pairs(), C + 1, d.hard, y0, y1, fine.data() - (C + 1) * W * y0);
    pool_rows(fine.data(), C, W, samples, y0, y1, picture(b));
  });
  return ffi::Error::Success();
}

// vertices, faces, attributes, face_index, edges, hard, tangents of vertices and attributes -> tangents of picture
// and coverage
inline ffi::Error draw_forward(Team team, Floats vertices, Ints faces, Floats attributes, Ints face_index,
                               Ints edges, Floats hard, Floats d_vertices, Floats d_attributes, FloatResult d_image,
                               FloatResult d_coverage) {
  const Batch batch(*d_coverage, 2);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto dv = operand<float>(d_vertices, batch, 2), da = operand<float>(d_attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), index = operand<int32_t>(face_index, batch, 2);
  const auto e = operand<int32_t>(edges, batch, 4);
  const auto h = operand<float>(hard, batch, 3);
  if (d_coverage->element_count() == 0) return ffi::Error::Success();
  const int64_t H = index.dim(0), W = index.dim(1), C = a.dim(1), B = batch.count();
  const int64_t rows = d_coverage->dimensions()[d_coverage->dimensions().size() - 2], samples = H / rows;
  expect_large_results(d_image, d_coverage);
  Array<float> tangent((C + 1) * B * H * W);
  const int64_t bands = std::min(rows, band_count(H, B));
  for (int pass = 0; pass < 2; ++pass)
    team.each(B * bands, [&](int64_t task) {
      const int64_t b = task / bands, band = task % bands;
      const int64_t y0 = samples * (rows * band / bands), y1 = samples * (rows * (band + 1) / bands);
      const Drawn d = {v.at(b), a.at(b), f.at(b), index.at(b), e.at(b), h.at(b), v.dim(0), f.dim(0), C, H, W, samples};
      float* moved = tangent.data() + b * (C + 1) * H * W;
      if (pass == 0) return shade_forward_rows(d, dv.at(b), da.at(b), y0, y1, moved);
      const int64_t begin = b * (H / samples) * (W / samples);
      Array<float> fine((C + 1) * (y1 - y0) * W);
      blend_forward_rows(d.pairs(), C + 1, d.hard, dv.at(b), moved, y0, y1, fine.data() - (C + 1) * W * y0);
      pool_rows(fine.data(), C, W, samples, y0, y1, {d_image->typed_data() + C * begin, d_coverage->typed_data() + begin});
    });
  return ffi::Error::Success();
}

// vertices, faces, attributes, face_index, edges, hard, gradients of picture and coverage -> gradients of vertices and
// attributes
inline ffi::Error draw_backward(Team team, Floats vertices, Ints faces, Floats attributes, Ints face_index,
                                Ints edges, Floats hard, Floats g_image, Floats g_coverage, FloatResult g_vertices,
                                FloatResult g_attributes) {
  const Batch batch(*g_vertices, 2);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), index = operand<int32_t>(face_index, batch, 2);
  const auto e = operand<int32_t>(edges, batch, 4);
  const auto h = operand<float>(hard, batch, 3), gi = operand<float>(g_image, batch, 3);
  const auto gc = operand<float>(g_coverage, batch, 2);
  Gather gather(team, g_vertices->typed_data(), batch.count(), v.size);
  Gather colors(team, g_attributes->typed_data(), batch.count(), a.size);
  if (gc.size == 0 || batch.count() == 0 || v.dim(0) == 0) return ffi::Error::Success();
  const int64_t H = index.dim(0), W = index.dim(1), C = a.dim(1), channels = C + 1, B = batch.count();
  const int64_t samples = H / gc.dim(0);
  const int64_t parts = gather.parts();
  team.each(B * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts, end = H * (part + 1) / parts;
    const Drawn d = {v.at(b), a.at(b), f.at(b), index.at(b), e.at(b), h.at(b), v.dim(0), f.dim(0), C, H, W, samples};
    float *g_clip = gather.part(b, part), *g_color = colors.part(b, part);
    Array<float> g_hard(channels * kBandRows * W), fine(channels * (kBandRows + 2 * kReach) * W);
    for (int64_t y0 = H * part / parts, y1; y0 < end; y0 = y1) {
      y1 = std::min(y0 + kBandRows, end);
      const int64_t first = std::max<int64_t>(y0 - kReach, 0);
      unpool_rows({gi.at(b), gc.at(b)}, channels, W, samples, first, std::min(y1 + kReach, H), fine.data());
      blend_backward_rows(d.pairs(), channels, d.hard, fine.data() - channels * W * first, y0, y1, g_clip,
                          g_hard.data());
      shade_backward_rows(d, g_hard.data(), y0, y1, g_clip, g_color);
    }
  });
  gather.add(team);
  colors.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
