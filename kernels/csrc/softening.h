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
  s.background = expf((kBackground - top) * gamma_inverse);
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

// The blend of one pixel: values (K, C) over `behind` (C) to `image` (C); returns the coverage.
template <typename Count>
FACEFIT_BOTH float blend_pixel(const Softness& s, int64_t K, Count C, const float* weight, const float* values,
                               const float* behind, float* image) {
  for (int64_t i = 0; i < C; ++i) image[i] = s.background * behind[i];
  for (int64_t k = 0; k < K; ++k)
    if (weight[k] != 0)
      for (int64_t i = 0; i < C; ++i) image[i] += weight[k] * values[C * k + i];
  for (int64_t i = 0; i < C; ++i) image[i] *= s.total_inverse;
  return 1 - s.transparency;
}

// Its gradients, those for values (K, C), depth (K), signed distance (K) and background (C). `distance` to `weight` are
// what `soften` was given and found; `scratch` has K entries.
template <typename Count>
FACEFIT_BOTH void blend_pixel_vjp(const Softness& s, int64_t K, Count C, const float* distance, const float* chance,
                                  const float* weight, const float* values, const float* behind,
                                  const float* image, float sigma_inverse, float gamma_inverse, const float* g_image,
                                  float g_coverage, float* scratch, float* g_values, float* g_depth,
                                  float* g_distance, float* g_behind) {
  float g_top = 0, dot = 0;
  for (int64_t k = 0; k < K; ++k) {
    if (weight[k] == 0) {
      for (int64_t i = 0; i < C; ++i) g_values[C * k + i] = 0;
      scratch[k] = 0;
      continue;
    }
    const float share = weight[k] * s.total_inverse;
    float change = 0;
    for (int64_t i = 0; i < C; ++i) {
      g_values[C * k + i] = g_image[i] * share;
      change += g_image[i] * (values[C * k + i] - image[i]);
    }
    scratch[k] = change * share;  // for the logarithm of the weight
    g_top -= scratch[k];
  }
  for (int64_t i = 0; i < C; ++i) {
    g_behind[i] = g_image[i] * s.background * s.total_inverse;
    dot += g_image[i] * (behind[i] - image[i]);
  }
  if (!s.floored) g_top -= dot * s.background * s.total_inverse;
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

// The values at a fragment: those of its corners, weighted.
template <typename Count>
FACEFIT_BOTH void values_at(Count C, const float* attributes, const int32_t* corner, const float* share, float* values) {
  for (int64_t i = 0; i < C; ++i)
    values[i] = share[0] * attributes[C * corner[0] + i] + share[1] * attributes[C * corner[1] + i] +
                share[2] * attributes[C * corner[2] + i];
}

// Room for what one pixel's fragments hold, as `soften` wants it.
class PixelNumbers {
 public:
  float *chance, *weight, *depth, *distance, *scratch, *values;

  PixelNumbers(int64_t K, int64_t channels) : numbers_((5 + channels) * (K + 3)) {
    float* next = numbers_.data();
    for (float** list : {&chance, &weight, &depth, &distance, &scratch}) *list = next, next += K + 3;
    values = next;
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
  const int64_t K = index.dim(2), C = c.dim(3), pixels = index.dim(0) * index.dim(1), parts = 8;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    PixelNumbers numbers(K, 0);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      const int64_t count = there(index.at(b) + K * at, K), to = b * pixels + at;
      numbers.copy(z.at(b) + K * at, d.at(b) + K * at, count);
      const Softness s = soften(count, numbers.depth, numbers.distance, sigma_inverse, gamma_inverse, numbers.chance,
                                numbers.weight);
      coverage->typed_data()[to] = blend_pixel(s, count, C, numbers.weight, c.at(b) + C * K * at, bg.at(b) + C * at,
                                               image->typed_data() + C * to);
    }
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
  const int64_t K = index.dim(2), C = c.dim(3), pixels = index.dim(0) * index.dim(1), parts = 8;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    PixelNumbers numbers(K, 0);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      const int64_t first = K * at, to = b * pixels + at, count = there(index.at(b) + first, K);
      numbers.copy(z.at(b) + first, d.at(b) + first, count);
      const Softness s = soften(count, numbers.depth, numbers.distance, sigma_inverse, gamma_inverse, numbers.chance,
                                numbers.weight);
      float *gv = g_values->typed_data() + C * K * to, *gz = g_depth->typed_data() + K * to,
            *gd = g_distance->typed_data() + K * to;
      blend_pixel_vjp(s, count, C, numbers.distance, numbers.chance, numbers.weight, c.at(b) + C * first,
                      bg.at(b) + C * at, out.at(b) + C * at, sigma_inverse, gamma_inverse, gi.at(b) + C * at,
                      gc.at(b)[at], numbers.scratch, gv, gz, gd, g_background->typed_data() + C * to);
      std::fill(gv + C * count, gv + C * K, 0.0f);
      std::fill(gz + count, gz + K, 0.0f), std::fill(gd + count, gd + K, 0.0f);
    }
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
  const int64_t K = face_index->dimensions()[rank - 1], channels = a.dim(1);
  every_band(team, batch, height, width, K, vertices, faces, blur, (height + 15) / 16,
             [&](int64_t b, const Drawing& drawing, int first, int last) {
               const int64_t base = (int64_t)width * (b * height + first), count = (int64_t)width * (last - first + 1);
               const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
               PixelNumbers numbers(K, channels);
               std::vector<int32_t> counts(count);
               const std::unique_ptr<float[]> lists(new float[5 * K * count + 3]);
               const Lists to = {counts.data(), face_index->typed_data() + K * base, lists.get(),
                                 lists.get() + 3 * K * count, lists.get() + 4 * K * count};
               drawing.band(first, last, to);
               with_channels(channels, [&](auto C) {
                 for (int64_t at = 0; at < count; ++at) {
                   int32_t* index = to.index + K * at;
                   const float* behind = bg.at(b) + C * ((int64_t)first * width + at);
                   float* picture = image->typed_data() + C * (base + at);
                   std::fill(index + counts[at], index + K, -1);
                   if (!counts[at]) {
                     std::copy(behind, behind + C, picture), coverage->typed_data()[base + at] = 0;
                     continue;
                   }
                   const Softness s = soften(counts[at], to.depth + K * at, to.distance + K * at, sigma_inverse,
                                             gamma_inverse, numbers.chance, numbers.weight);
                   for (int64_t k = 0; k < counts[at]; ++k)
                     if (numbers.weight[k] != 0)
                       values_at(C, a.at(b), drawing.faces + 3 * index[k], to.barycentric + 3 * (K * at + k),
                                 numbers.values + C * k);
                   coverage->typed_data()[base + at] =
                       blend_pixel(s, counts[at], C, numbers.weight, numbers.values, behind, picture);
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

  FragmentGroup(int64_t K, int64_t channels)
      : corner(kPixels * K + 3), x(corner.size()), y(corner.size()), depth(corner.size() + 3),
        distance(corner.size() + 3), g_depth(corner.size()), g_distance(corner.size()),
        g_values(channels * corner.size()), found_(corner.size() / 4 + 1) {}

  void add(const int32_t* k, float px, float py) { corner[count] = k, x[count] = px, y[count] = py, ++count; }
  FourFragments& four(int64_t at) { return found_[at / 4]; }

  // Finds what the fragments hold. Where the last four are fewer, the first one stands for the others.
  void find(const Screen& screen, int64_t first_vertex) {
    for (int64_t k = count; k % 4; ++k) {
      corner[k] = corner[0], x[k] = x[0], y[k] = y[0], g_depth[k] = g_distance[k] = 0;
      std::fill_n(&g_values[k * (g_values.size() / corner.size())], g_values.size() / corner.size(), 0.0f);
    }
    for (int64_t at = 0; at < count; at += 4) {
      FourFragments& f = four(at);
      screen.fragment(first_vertex, &corner[at], load(&x[at]), load(&y[at]), &f);
      store(&depth[at], f.depth), store(&distance[at], f.distance);
    }
  }

 private:
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
  float* to_vertices = g_vertices->typed_data();
  expect_large_results(g_background);
  const int64_t height = index.dim(0), width = index.dim(1), K = index.dim(2), V = v.dim(0);
  const float half_x = 0.5f * width, half_y = 0.5f * height;
  const Screen screen(team, v, batch.count(), half_x, half_y);
  Gather positions(team, to_vertices, batch.count(), v.size);
  Gather colors(team, g_attributes->typed_data(), batch.count(), a.size);
  const int64_t parts = positions.parts();
  auto work = [&](int64_t task, auto C) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1], *attribute = a.at(b);
    float *gv = positions.part(b, part), *ga = colors.part(b, part);
    FragmentGroup group(K, C);
    PixelNumbers numbers(K, C);
    auto flush = [&] {
      group.find(screen, b * V);
      group.first[group.pixels] = group.count;
      for (int64_t p = 0; p < group.pixels; ++p) {
        const int64_t first = group.first[p], count = group.first[p + 1] - first, at = group.pixel[p];
        const Softness s = soften(count, &group.depth[first], &group.distance[first], sigma_inverse, gamma_inverse,
                                  numbers.chance, numbers.weight);
        for (int64_t k = 0; k < count; ++k)
          if (numbers.weight[k] != 0) {
            const FourFragments& f = group.four(first + k);
            const int64_t lane = (first + k) % 4;
            const float share[3] = {f.barycentric[0][lane], f.barycentric[1][lane], f.barycentric[2][lane]};
            values_at(C, attribute, group.corner[first + k], share, numbers.values + C * k);
          }
        blend_pixel_vjp(s, count, C, &group.distance[first], numbers.chance, numbers.weight, numbers.values,
                        bg.at(b) + C * at, out.at(b) + C * at, sigma_inverse, gamma_inverse, gi.at(b) + C * at,
                        gc.at(b)[at], numbers.scratch, &group.g_values[C * first], &group.g_depth[first],
                        &group.g_distance[first], g_background->typed_data() + C * (b * height * width + at));
      }
      for (int64_t at = 0; at < group.count; at += 4) {
        const FourFragments& f = group.four(at);
        Four g_share[3] = {}, g_corner[3][4];
        for (int i = 0; i < 4; ++i) {
          const float* g = &group.g_values[C * (at + i)];
          for (int j = 0; j < 3; ++j) {
            const int64_t place = C * group.corner[at + i][j];
            float dot = 0;
            for (int64_t c = 0; c < C; ++c) {
              dot += g[c] * attribute[place + c];
              ga[place + c] += f.barycentric[j][i] * g[c];
            }
            g_share[j][i] = dot;
          }
        }
        fragment_vjp(f, g_share, load(&group.g_depth[at]), load(&group.g_distance[at]), g_corner);
        for (int j = 0; j < 3; ++j) {
          transpose(g_corner[j]);
          for (int i = 0; i < 4; ++i) {
            float* to = gv + 4 * group.corner[at + i][j];
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
          std::copy(g, g + C, g_background->typed_data() + C * (b * height * width + at));
          continue;
        }
        group.pixel[group.pixels] = at, group.first[group.pixels] = before;
        if (++group.pixels == group.kPixels) flush();
      }
    if (group.pixels) flush();
  };
  team.each(batch.count() * parts, [&](int64_t task) { with_channels(a.dim(1), [&](auto C) { work(task, C); }); });
  positions.add(team), colors.add(team);
  for (int64_t i = 0; i < batch.count() * V; ++i) vertex_vjp(screen.scale[i], half_x, half_y, to_vertices + 4 * i);
  return ffi::Error::Success();
}

}  // namespace facefit
