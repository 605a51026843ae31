// Soft blending of a pixel's fragments: its arithmetic, its gradient, and their loops on the CPU.
#pragma once

#include "fragments.h"

namespace facefit {

// Nearness that the background has, and the least weight of it.
constexpr float kBackground = 1e-10f;

// One pixel: what each fragment weighs. `weight` and `chance` have K entries.
struct Softness {
  float background, total_inverse, transparency;
  int64_t nearest;  // the fragment that weights are scaled by, -1 for none that is nearer than the background
  bool floored;     // the background has its least weight
};

FACEFIT_BOTH float nearness(float depth) { return 0.5f - 0.5f * depth; }

// Of the first `count` of a pixel's fragments, those that are there. Four are read and written at once, so that all four
// lists go on for up to three beyond the last.
inline Softness soften(int64_t count, const float* depth, const float* distance, float sigma_inverse,
                       float gamma_inverse, float* chance, float* weight) {
  Softness s = {0, 0, 1, -1, false};
  float top = kBackground;
  for (int64_t k = 0; k < count; ++k)
    if (nearness(depth[k]) > top) top = nearness(depth[k]), s.nearest = k;
  float total = 0;
  for (int64_t k = 0; k < count; k += 4) {
    const Four d = load(distance + k), z = load(depth + k);
    const Four c = 1.0f / (1.0f + exponential(-d * magnitude(d) * sigma_inverse));
    store(chance + k, c);
    store(weight + k, c * exponential(((0.5f - 0.5f * z) - top) * gamma_inverse));
  }
  for (int64_t k = 0; k < count; ++k) total += weight[k], s.transparency *= 1.0f - chance[k];
  const float away = (kBackground - top) * gamma_inverse;
  s.background = away < -100.0f ? 0 : expf(away);  // underflow is slow
  s.floored = !(s.background > kBackground);
  if (s.floored) s.background = kBackground;
  s.total_inverse = 1.0f / (total + s.background);
  return s;
}

// How many of a pixel's K fragments are there: the first ones.
inline int64_t there(const int32_t* face, int64_t K) {
  int64_t count = 0;
  while (count < K && face[count] >= 0) ++count;
  return count;
}

// Rows of C numbers that are used often are kept as rows of P, the next multiple of four, with zeros at the end. Calls
// f(C, P), known to the compiler for three numbers.
template <typename F>
inline void with_rows(int64_t C, const F& f) {
  if (C == 3) return f(std::integral_constant<int64_t, 3>(), std::integral_constant<int64_t, 4>());
  f(C, (C + 3) / 4 * 4);
}
inline void pad(const float* from, int64_t rows, int64_t C, int64_t P, float* to) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < C; ++i) to[P * row + i] = from[C * row + i];
}
inline float sum(Four four) { return (four[0] + four[1]) + (four[2] + four[3]); }

// The blend of one pixel: values (K, P) over `behind` (C) to `image` (C); returns the coverage.
template <typename Count, typename Padded>
inline float blend_pixel(const Softness& s, int64_t K, Count C, Padded P, const float* weight, const float* values,
                         const float* behind, float* image) {
  for (int64_t i = 0; i < P; i += 4) {
    Four mixed = s.background * load(behind + i, C - i);
    for (int64_t k = 0; k < K; ++k) mixed += weight[k] * load(values + P * k + i);
    store(image + i, mixed * s.total_inverse, C - i);
  }
  return 1 - s.transparency;
}

// Its gradients, those for values (K, P), depth (K), signed distance (K) and background (C). `distance` to `weight` are
// what `soften` was given and found; `scratch` has K entries.
template <typename Count, typename Padded>
inline void blend_pixel_vjp(const Softness& s, int64_t K, Count C, Padded P, const float* distance,
                            const float* chance, const float* weight, const float* values, const float* behind,
                            const float* image, float sigma_inverse, float gamma_inverse, const float* g_image,
                            float g_coverage, float* scratch, float* g_values, float* g_depth, float* g_distance,
                            float* g_behind) {
  float dot = 0;
  std::fill(scratch, scratch + K, 0.0f);
  for (int64_t i = 0; i < P; i += 4) {
    const Four g = load(g_image + i, C - i), mixed = load(image + i, C - i);
    store(g_behind + i, g * s.background * s.total_inverse, C - i);
    dot += sum(g * (load(behind + i, C - i) - mixed));
    for (int64_t k = 0; k < K; ++k) {
      store(g_values + P * k + i, g * (weight[k] * s.total_inverse));
      scratch[k] += sum(g * (load(values + P * k + i) - mixed));
    }
  }
  float g_top = s.floored ? 0 : -dot * s.background * s.total_inverse;
  for (int64_t k = 0; k < K; ++k) {
    scratch[k] *= weight[k] * s.total_inverse;  // for the logarithm of the weight
    g_top -= scratch[k];
  }
  // What the others let through: those before times those after.
  float after = g_coverage;
  for (int64_t k = K - 1; k >= 0; --k) g_distance[k] = after, after *= 1.0f - chance[k];
  float before = 1;
  for (int64_t k = 0; k < K; ++k) {
    const float others = before * g_distance[k];
    before *= 1.0f - chance[k];
    g_depth[k] = -0.5f * gamma_inverse * (scratch[k] + (k == s.nearest ? g_top : 0.0f));
    g_distance[k] =
        (scratch[k] + others * chance[k]) * (1.0f - chance[k]) * 2.0f * fabsf(distance[k]) * sigma_inverse;
  }
}

// The values (P) at a fragment: those of its corners, weighted.
template <typename Count>
inline void values_at(Count P, const float* attributes, const int32_t* corner, float a, float b, float c,
                      float* values) {
  for (int64_t i = 0; i < P; i += 4)
    store(values + i, a * load(attributes + P * corner[0] + i) + b * load(attributes + P * corner[1] + i) +
                          c * load(attributes + P * corner[2] + i));
}

// Attributes (V, C) of every batch element as (V, P).
class PaddedAttributes {
 public:
  PaddedAttributes(Team& team, const Operand<float, Floats>& attributes, int64_t batch, int64_t P)
      : shared_(batch == 1 || attributes.at(1) == attributes.at(0)), size_(attributes.dim(0) * P),
        rows_((shared_ ? 1 : batch) * size_) {
    const int64_t V = attributes.dim(0), C = attributes.dim(1), parts = 4;
    team.each((shared_ ? 1 : batch) * parts, [&](int64_t task) {
      const int64_t b = task / parts, first = V * (task % parts) / parts, last = V * (task % parts + 1) / parts;
      pad(attributes.at(b) + C * first, last - first, C, P, rows_.data() + b * size_ + P * first);
    });
  }
  const float* at(int64_t b) const { return rows_.data() + (shared_ ? 0 : b * size_); }

 private:
  bool shared_;
  int64_t size_;
  std::vector<float> rows_;
};

// Room for what one pixel holds: K fragments as `soften` wants them, and rows of P.
class PixelNumbers {
 public:
  float *chance, *weight, *depth, *distance, *scratch, *values, *g_values;

  PixelNumbers(int64_t K, int64_t P) : numbers_(5 * (K + 3) + 2 * K * P) {
    float* next = numbers_.data();
    for (float** list : {&chance, &weight, &depth, &distance, &scratch}) *list = next, next += K + 3;
    for (float** rows : {&values, &g_values}) *rows = next, next += K * P;
  }
  void copy(const float* z, const float* d, int64_t count) {
    std::copy(z, z + count, depth), std::copy(d, d + count, distance);
  }

 private:
  std::vector<float> numbers_;
};

// values (H, W, K, C), face_index, depth and signed distance (H, W, K), background (H, W, C), softness (2): sigma and
// gamma -> image (H, W, C), coverage (H, W)
inline ffi::Error soft_blend(Team team, Floats values, Ints face_index, Floats depth, Floats distance,
                             Floats background, Floats softness, FloatResult image, FloatResult coverage) {
  const Batch batch(*coverage, 2);
  const auto c = operand<float>(values, batch, 4), z = operand<float>(depth, batch, 3),
             d = operand<float>(distance, batch, 3), bg = operand<float>(background, batch, 3),
             soft = operand<float>(softness, batch, 1);
  const auto index = operand<int32_t>(face_index, batch, 3);
  const int64_t K = index.dim(2), pixels = index.dim(0) * index.dim(1), parts = 8;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    with_rows(c.dim(3), [&](auto C, auto P) {
      PixelNumbers n(K, P);
      for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
        const int64_t count = there(index.at(b) + K * at, K), to = b * pixels + at;
        n.copy(z.at(b) + K * at, d.at(b) + K * at, count);
        pad(c.at(b) + C * K * at, count, C, P, n.values);
        const Softness s = soften(count, n.depth, n.distance, sigma_inverse, gamma_inverse, n.chance, n.weight);
        coverage->typed_data()[to] = blend_pixel(s, count, C, P, n.weight, n.values, bg.at(b) + C * at,
                                                 image->typed_data() + C * to);
      }
    });
  });
  return ffi::Error::Success();
}

// As above with image and the gradients of both results -> gradients of values, depth, signed distance and background
inline ffi::Error soft_blend_backward(Team team, Floats values, Ints face_index, Floats depth,
                                      Floats distance, Floats background, Floats softness, Floats image,
                                      Floats g_image, Floats g_coverage, FloatResult g_values, FloatResult g_depth,
                                      FloatResult g_distance, FloatResult g_background) {
  const Batch batch(*g_depth, 3);
  const auto c = operand<float>(values, batch, 4), z = operand<float>(depth, batch, 3),
             d = operand<float>(distance, batch, 3), bg = operand<float>(background, batch, 3),
             soft = operand<float>(softness, batch, 1), out = operand<float>(image, batch, 3),
             gi = operand<float>(g_image, batch, 3), gc = operand<float>(g_coverage, batch, 2);
  const auto index = operand<int32_t>(face_index, batch, 3);
  const int64_t K = index.dim(2), pixels = index.dim(0) * index.dim(1), parts = 8;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    with_rows(c.dim(3), [&](auto C, auto P) {
      PixelNumbers n(K, P);
      for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
        const int64_t first = K * at, to = b * pixels + at, count = there(index.at(b) + first, K);
        n.copy(z.at(b) + first, d.at(b) + first, count);
        pad(c.at(b) + C * first, count, C, P, n.values);
        const Softness s = soften(count, n.depth, n.distance, sigma_inverse, gamma_inverse, n.chance, n.weight);
        float *gv = g_values->typed_data() + C * K * to, *gz = g_depth->typed_data() + K * to,
              *gd = g_distance->typed_data() + K * to;
        blend_pixel_vjp(s, count, C, P, n.distance, n.chance, n.weight, n.values, bg.at(b) + C * at,
                        out.at(b) + C * at, sigma_inverse, gamma_inverse, gi.at(b) + C * at, gc.at(b)[at], n.scratch,
                        n.g_values, gz, gd, g_background->typed_data() + C * to);
        for (int64_t k = 0; k < count; ++k) std::copy(n.g_values + P * k, n.g_values + P * k + C, gv + C * k);
        std::fill(gv + C * count, gv + C * K, 0.0f);
        std::fill(gz + count, gz + K, 0.0f), std::fill(gd + count, gd + K, 0.0f);
      }
    });
  });
  return ffi::Error::Success();
}

// Rasterization, interpolation and blending at once, without a list of fragments in memory but their face indices:
// vertices (V, 4), faces (F, 3), attributes (V, C), background (H, W, C), softness (2), blur () ->
// face_index (H, W, K), image (H, W, C), coverage (H, W)
inline ffi::Error soft_render(Team team, Floats vertices, Ints faces, Floats attributes, Floats background,
                              Floats softness, Floats blur, IntResult face_index, FloatResult image,
                              FloatResult coverage) {
  const Batch batch(*face_index, 3);
  if (face_index->element_count() == 0) return ffi::Error::Success();
  expect_large_results(face_index, image, coverage);
  const auto a = operand<float>(attributes, batch, 2), bg = operand<float>(background, batch, 3),
             soft = operand<float>(softness, batch, 1);
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 3], width = (int)face_index->dimensions()[rank - 2];
  const int64_t K = face_index->dimensions()[rank - 1];
  with_rows(a.dim(1), [&](auto C, auto P) {
    const PaddedAttributes attribute(team, a, batch.count(), P);
    every_band(team, batch, height, width, K, vertices, faces, blur, (height + 15) / 16,
               [&](int64_t b, const Drawing& drawing, int first, int last) {
      const int64_t base = (int64_t)width * (b * height + first), pixels = (int64_t)width * (last - first + 1);
      const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
      PixelNumbers n(K, P);
      std::vector<int32_t> counts(pixels);
      const std::unique_ptr<float[]> lists(new float[5 * K * pixels + 3]);
      const Lists to = {counts.data(), face_index->typed_data() + K * base, lists.get(),
                        lists.get() + 3 * K * pixels, lists.get() + 4 * K * pixels};
      drawing.band(first, last, to);
      for (int64_t at = 0; at < pixels; ++at) {
        const int64_t count = counts[at];
        int32_t* index = to.index + K * at;
        const float* behind = bg.at(b) + C * ((int64_t)first * width + at);
        float *picture = image->typed_data() + C * (base + at), *covered = coverage->typed_data() + base + at;
        std::fill(index + count, index + K, -1);
        if (!count) {
          std::copy(behind, behind + C, picture), *covered = 0;
          continue;
        }
        const Softness s = soften(count, to.depth + K * at, to.distance + K * at, sigma_inverse, gamma_inverse,
                                  n.chance, n.weight);
        for (int64_t k = 0; k < count; ++k) {
          const float* w = to.barycentric + 3 * (K * at + k);
          values_at(P, attribute.at(b), drawing.faces + 3 * index[k], w[0], w[1], w[2], n.values + P * k);
        }
        *covered = blend_pixel(s, count, C, P, n.weight, n.values, behind, picture);
      }
    });
  });
  return ffi::Error::Success();
}

// Fragments of some pixels one after the other, four of which are worked on at once.
class FragmentGroup {
 public:
  static constexpr int64_t kPixels = 16;
  int64_t count = 0, pixels = 0;
  int64_t pixel[kPixels], first[kPixels + 1];  // which pixel, and which of the fragments is its first
  std::vector<const int32_t*> corner;
  std::vector<float> x, y, depth, distance, g_depth, g_distance, g_values;

  FragmentGroup(int64_t K, int64_t P)
      : corner(kPixels * K + 3), x(corner.size()), y(corner.size()), depth(corner.size() + 3),
        distance(corner.size() + 3), g_depth(corner.size()), g_distance(corner.size()),
        g_values(P * corner.size()),
        P_(P), found_(corner.size() / 4 + 1) {}

  void add(const int32_t* k, float px, float py) { corner[count] = k, x[count] = px, y[count] = py, ++count; }
  FourFragments& four(int64_t at) { return found_[at / 4]; }

  // Finds what the fragments hold. Where the last four are fewer, the first one stands for the others.
  void find(const Screen& screen, int64_t first_vertex) {
    for (int64_t k = count; k % 4; ++k) {
      corner[k] = corner[0], x[k] = x[0], y[k] = y[0], g_depth[k] = g_distance[k] = 0;
      std::fill_n(&g_values[P_ * k], P_, 0.0f);
    }
    for (int64_t at = 0; at < count; at += 4) {
      FourFragments& f = four(at);
      screen.fragment(first_vertex, &corner[at], load(&x[at]), load(&y[at]), &f);
      store(&depth[at], f.depth), store(&distance[at], f.distance);
    }
  }

 private:
  int64_t P_;
  std::vector<FourFragments> found_;
};

// vertices, faces, attributes, background, softness, face_index, image and the gradients of image and coverage ->
// gradients of vertices, attributes and background
inline ffi::Error soft_render_backward(Team team, Floats vertices, Ints faces, Floats attributes,
                                       Floats background, Floats softness, Ints face_index, Floats image,
                                       Floats g_image, Floats g_coverage, FloatResult g_vertices,
                                       FloatResult g_attributes, FloatResult g_background) {
  const Batch batch(*g_vertices, 2);
  const auto v = operand<float>(vertices, batch, 2), a = operand<float>(attributes, batch, 2),
             bg = operand<float>(background, batch, 3), soft = operand<float>(softness, batch, 1),
             out = operand<float>(image, batch, 3), gi = operand<float>(g_image, batch, 3),
             gc = operand<float>(g_coverage, batch, 2);
  const auto f = operand<int32_t>(faces, batch, 2), index = operand<int32_t>(face_index, batch, 3);
  expect_large_results(g_background);
  const int64_t height = index.dim(0), width = index.dim(1), K = index.dim(2), V = v.dim(0);
  const float half_x = 0.5f * width, half_y = 0.5f * height;
  const Screen screen(team, v, batch.count(), half_x, half_y);
  with_rows(a.dim(1), [&](auto C, auto P) {
    const PaddedAttributes attributes(team, a, batch.count(), P);
    // Of each vertex the gradient of its position, then that of its attributes.
    const int64_t row = 4 + P;
    const std::unique_ptr<float[]> both(new float[batch.count() * V * row]);
    Gather gather(team, both.get(), batch.count(), V * row);
    const int64_t parts = gather.parts();
    team.each(batch.count() * parts, [&](int64_t task) {
      const int64_t b = task / parts, part = task % parts;
      const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1], *attribute = attributes.at(b);
      float *sums = gather.part(b, part), *to_background = g_background->typed_data() + C * b * height * width;
      FragmentGroup group(K, P);
      PixelNumbers n(K, P);
      auto look = [&] {
        group.find(screen, b * V);
        group.first[group.pixels] = group.count;
        for (int64_t p = 0; p < group.pixels; ++p) {
          const int64_t first = group.first[p], count = group.first[p + 1] - first, at = group.pixel[p];
          const Softness s = soften(count, &group.depth[first], &group.distance[first], sigma_inverse, gamma_inverse,
                                    n.chance, n.weight);
          for (int64_t k = 0; k < count; ++k) {
            const Four* w = group.four(first + k).barycentric;
            const int64_t i = (first + k) % 4;
            values_at(P, attribute, group.corner[first + k], w[0][i], w[1][i], w[2][i], n.values + P * k);
          }
          blend_pixel_vjp(s, count, C, P, &group.distance[first], n.chance, n.weight, n.values, bg.at(b) + C * at,
                          out.at(b) + C * at, sigma_inverse, gamma_inverse, gi.at(b) + C * at, gc.at(b)[at], n.scratch,
                          &group.g_values[P * first], &group.g_depth[first], &group.g_distance[first],
                          to_background + C * at);
        }
        for (int64_t at = 0; at < group.count; at += 4) {
          const FourFragments& f = group.four(at);
          Four g_share[3] = {}, g_corner[3][4];
          for (int64_t c = 0; c < P; c += 4)
            for (int j = 0; j < 3; ++j) {
              Four product[4];
              for (int i = 0; i < 4; ++i) {
                const int64_t k = group.corner[at + i][j];
                float* to = sums + row * k + 4 + c;
                const Four g = load(&group.g_values[P * (at + i) + c]);
                product[i] = g * load(attribute + P * k + c);
                store(to, load(to) + f.barycentric[j][i] * g);
              }
              transpose(product);
              g_share[j] += (product[0] + product[1]) + (product[2] + product[3]);
            }
          fragment_vjp(f, g_share, load(&group.g_depth[at]), load(&group.g_distance[at]), g_corner);
          for (int j = 0; j < 3; ++j) {
            transpose(g_corner[j]);
            for (int i = 0; i < 4; ++i) {
              float* to = sums + row * group.corner[at + i][j];
              store(to, load(to) + g_corner[j][i]);
            }
          }
        }
        group.count = group.pixels = 0;
      };
      for (int64_t y = height * part / parts; y < height * (part + 1) / parts; ++y)
        for (int64_t x = 0; x < width; ++x) {
          const int64_t at = y * width + x, before = group.count;
          const int32_t *list = index.at(b) + K * at, *corner;
          for (int64_t k = 0; k < K && corners_of(f.at(b), f.dim(0), V, list[k], &corner); ++k)
            group.add(corner, x + 0.5f, y + 0.5f);
          if (group.count == before) {
            const float* g = gi.at(b) + C * at;
            std::copy(g, g + C, to_background + C * at);
            continue;
          }
          group.pixel[group.pixels] = at, group.first[group.pixels] = before;
          if (++group.pixels == group.kPixels) look();
        }
      if (group.pixels) look();
    });
    gather.add(team);
    const int64_t pieces = 8;
    team.each(batch.count() * pieces, [&](int64_t task) {
      const int64_t b = task / pieces, piece = task % pieces;
      for (int64_t i = V * piece / pieces; i < V * (piece + 1) / pieces; ++i) {
        const float* from = both.get() + row * (b * V + i);
        float *to = g_vertices->typed_data() + 4 * (b * V + i), *color = g_attributes->typed_data() + C * (b * V + i);
        std::copy(from, from + 4, to), std::copy(from + 4, from + 4 + C, color);
        vertex_vjp(screen.scale[b * V + i], half_x, half_y, to);
      }
    });
  });
  return ffi::Error::Success();
}

}  // namespace facefit
