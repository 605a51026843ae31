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

FACEFIT_BOTH Softness soften(const int32_t* face, const float* depth, const float* distance, int64_t K,
                             float sigma_inverse, float gamma_inverse, float* chance, float* weight) {
  Softness s = {0, 0, 1, -1, false};
  float top = kBackground;
  for (int64_t k = 0; k < K; ++k)
    if (face[k] >= 0 && nearness(depth[k]) > top) top = nearness(depth[k]), s.nearest = k;
  float total = 0;
  for (int64_t k = 0; k < K; ++k) {
    chance[k] = weight[k] = 0;
    if (face[k] < 0) continue;
    const float d = distance[k];
    chance[k] = 1.0f / (1.0f + expf(-d * fabsf(d) * sigma_inverse));
    weight[k] = chance[k] * expf((nearness(depth[k]) - top) * gamma_inverse);
    total += weight[k];
    s.transparency *= 1.0f - chance[k];
  }
  s.background = expf((kBackground - top) * gamma_inverse);
  s.floored = !(s.background > kBackground);
  if (s.floored) s.background = kBackground;
  s.total_inverse = 1.0f / (total + s.background);
  return s;
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

// Its gradients, those for values (K, C), depth (K), signed distance (K) and background (C). `face` to `weight` are
// what `soften` was given and found; `scratch` has K entries.
template <typename Count>
FACEFIT_BOTH void blend_pixel_vjp(const Softness& s, int64_t K, Count C, const int32_t* face, const float* distance,
                                  const float* chance, const float* weight, const float* values, const float* behind,
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
    g_depth[k] = g_distance[k] = 0;
    if (face[k] < 0) continue;
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
    std::vector<float> chance(K), weight(K);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      const Softness s = soften(index.at(b) + K * at, z.at(b) + K * at, d.at(b) + K * at, K, sigma_inverse,
                                gamma_inverse, chance.data(), weight.data());
      const int64_t to = b * pixels + at;
      coverage->typed_data()[to] = blend_pixel(s, K, C, weight.data(), c.at(b) + C * K * at, bg.at(b) + C * at,
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
    std::vector<float> chance(K), weight(K), scratch(K);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      const int64_t first = K * at, to = b * pixels + at;
      const Softness s = soften(index.at(b) + first, z.at(b) + first, d.at(b) + first, K, sigma_inverse, gamma_inverse,
                                chance.data(), weight.data());
      blend_pixel_vjp(s, K, C, index.at(b) + first, d.at(b) + first, chance.data(), weight.data(),
                      c.at(b) + C * first, bg.at(b) + C * at, out.at(b) + C * at, sigma_inverse, gamma_inverse,
                      gi.at(b) + C * at, gc.at(b)[at], scratch.data(), g_values->typed_data() + C * K * to,
                      g_depth->typed_data() + K * to, g_distance->typed_data() + K * to,
                      g_background->typed_data() + C * to);
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
               std::vector<float> chance(K), weight(K), values(K * channels);
               std::vector<int32_t> there(count);
               const std::unique_ptr<float[]> lists(new float[5 * K * count]);
               const Lists to = {there.data(), face_index->typed_data() + K * base, lists.get(),
                                 lists.get() + 3 * K * count, lists.get() + 4 * K * count};
               drawing.band(first, last, to);
               for (int64_t at = 0; at < count; ++at) {
                 int32_t* index = to.index + K * at;
                 std::fill(index + there[at], index + K, -1);
                 const Softness s = soften(index, to.depth + K * at, to.distance + K * at, there[at], sigma_inverse,
                                           gamma_inverse, chance.data(), weight.data());
                 with_channels(channels, [&](auto C) {
                   for (int64_t k = 0; k < there[at]; ++k)
                     if (weight[k] != 0)
                       values_at(C, a.at(b), drawing.faces + 3 * index[k], to.barycentric + 3 * (K * at + k), &values[C * k]);
                   coverage->typed_data()[base + at] =
                       blend_pixel(s, there[at], C, weight.data(), values.data(),
                                   bg.at(b) + C * ((int64_t)first * width + at), image->typed_data() + C * (base + at));
                 });
               }
             });
  return ffi::Error::Success();
}

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
    std::vector<Fragment> fragment(K);
    std::vector<float> numbers(6 * K + 2 * K * C);
    float *chance = numbers.data(), *weight = chance + K, *z = weight + K, *d = z + K, *gz = d + K, *gd = gz + K,
          *values = gd + K, *g_values = values + K * C;
    std::vector<float> scratch(K);
    for (int64_t y = height * part / parts; y < height * (part + 1) / parts; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t at = y * width + x;
        const int32_t *list = index.at(b) + K * at, *corner;
        const float px = x + 0.5f, py = y + 0.5f;
        int64_t count = 0;
        for (; count < K && corners_of(f.at(b), f.dim(0), V, list[count], &corner); ++count) {
          const int64_t k = count;
          screen.fragment(b * V, corner, px, py, &fragment[k]);
          z[k] = fragment[k].depth, d[k] = fragment[k].distance;
        }
        const float* g = gi.at(b) + C * at;
        float* to_background = g_background->typed_data() + C * (b * height * width + at);
        const Softness s = soften(list, z, d, count, sigma_inverse, gamma_inverse, chance, weight);
        for (int64_t k = 0; k < count; ++k)
          if (weight[k] != 0) values_at(C, attribute, f.at(b) + 3 * list[k], fragment[k].barycentric, values + C * k);
        blend_pixel_vjp(s, count, C, list, d, chance, weight, values, bg.at(b) + C * at, out.at(b) + C * at,
                        sigma_inverse, gamma_inverse, g, gc.at(b)[at], scratch.data(), g_values, gz, gd,
                        to_background);
        for (int64_t k = 0; k < count; ++k) {
          if (weight[k] == 0 && gz[k] == 0 && gd[k] == 0) continue;
          corner = f.at(b) + 3 * list[k];
          const float *share = fragment[k].barycentric, *gk = g_values + C * k;
          float g_share[3];
          for (int j = 0; j < 3; ++j) {
            float dot = 0;
            for (int64_t i = 0; i < C; ++i) {
              dot += gk[i] * attribute[C * corner[j] + i];
              ga[C * corner[j] + i] += share[j] * gk[i];
            }
            g_share[j] = dot;
          }
          float* const g_corner[3] = {gv + 4 * corner[0], gv + 4 * corner[1], gv + 4 * corner[2]};
          fragment_vjp(fragment[k], px, py, g_share, gz[k], gd[k], g_corner);
        }
      }
  };
  team.each(batch.count() * parts, [&](int64_t task) { with_channels(a.dim(1), [&](auto C) { work(task, C); }); });
  positions.add(team), colors.add(team);
  for (int64_t i = 0; i < batch.count() * V; ++i) vertex_vjp(screen.scale[i], half_x, half_y, to_vertices + 4 * i);
  return ffi::Error::Success();
}

}  // namespace facefit
