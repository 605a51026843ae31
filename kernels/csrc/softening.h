// Soft blending of a pixel's fragments: its arithmetic, its gradient, and their loops on the CPU.
#pragma once

#include "interpolation.h"

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

// values (H, W, K, C), face_index, depth and signed distance (H, W, K), background (H, W, C), softness (2): sigma and
// gamma -> image (H, W, C), coverage (H, W)
inline ffi::Error soft_blend(ffi::ThreadPool pool, Floats values, Ints face_index, Floats depth, Floats distance,
                             Floats background, Floats softness, FloatResult image, FloatResult coverage) {
  const Batch batch(*coverage, 2);
  const auto c = operand<float>(values, batch, 4), z = operand<float>(depth, batch, 3),
             d = operand<float>(distance, batch, 3), bg = operand<float>(background, batch, 3),
             soft = operand<float>(softness, batch, 1);
  const auto index = operand<int32_t>(face_index, batch, 3);
  const int64_t K = index.dim(2), C = c.dim(3), pixels = index.dim(0) * index.dim(1), parts = 8;
  float *to_image = image->typed_data(), *to_coverage = coverage->typed_data();
  parallel_for(pool, batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    std::vector<float> chance(K), weight(K);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      float* to = to_image + C * (b * pixels + at);
      const float* behind = bg.at(b) + C * at;
      if (K == 0 || index.at(b)[K * at] < 0) {  // fragments come first: there are none
        std::copy(behind, behind + C, to);
        to_coverage[b * pixels + at] = 0;
        continue;
      }
      const Softness s = soften(index.at(b) + K * at, z.at(b) + K * at, d.at(b) + K * at, K, sigma_inverse,
                                gamma_inverse, chance.data(), weight.data());
      for (int64_t i = 0; i < C; ++i) to[i] = s.background * behind[i];
      for (int64_t k = 0; k < K; ++k)
        if (weight[k] != 0)
          for (int64_t i = 0; i < C; ++i) to[i] += weight[k] * c.at(b)[C * (K * at + k) + i];
      for (int64_t i = 0; i < C; ++i) to[i] *= s.total_inverse;
      to_coverage[b * pixels + at] = 1 - s.transparency;
    }
  });
  return ffi::Error::Success();
}

// As above with image and the gradients of both results -> gradients of values, depth, signed distance and background
inline ffi::Error soft_blend_backward(ffi::ThreadPool pool, Floats values, Ints face_index, Floats depth,
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
  parallel_for(pool, batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    std::vector<float> chance(K), weight(K), g_weight(K);
    for (int64_t at = pixels * part / parts; at < pixels * (part + 1) / parts; ++at) {
      const int64_t first = K * at, to = b * pixels + at;
      float *to_values = g_values->typed_data() + C * K * to, *to_z = g_depth->typed_data() + K * to,
            *to_d = g_distance->typed_data() + K * to, *to_background = g_background->typed_data() + C * to;
      const float *g = gi.at(b) + C * at, *shown = out.at(b) + C * at, *behind = bg.at(b) + C * at;
      if (K == 0 || index.at(b)[first] < 0) {
        std::copy(g, g + C, to_background);
        std::fill(to_values, to_values + C * K, 0.0f);
        std::fill(to_z, to_z + K, 0.0f), std::fill(to_d, to_d + K, 0.0f);
        continue;
      }
      const Softness s = soften(index.at(b) + first, z.at(b) + first, d.at(b) + first, K, sigma_inverse, gamma_inverse,
                                chance.data(), weight.data());
      float g_top = 0;
      for (int64_t k = 0; k < K; ++k) {
        float dot = 0;
        for (int64_t i = 0; i < C; ++i) {
          to_values[C * k + i] = g[i] * weight[k] * s.total_inverse;
          dot += g[i] * (c.at(b)[C * (first + k) + i] - shown[i]);
        }
        // Of the logarithm of the weight.
        g_weight[k] = weight[k] != 0 ? dot * weight[k] * s.total_inverse : 0.0f;
        g_top -= g_weight[k];
      }
      float dot = 0;
      for (int64_t i = 0; i < C; ++i) {
        to_background[i] = g[i] * s.background * s.total_inverse;
        dot += g[i] * (behind[i] - shown[i]);
      }
      if (!s.floored) g_top -= dot * s.background * s.total_inverse;
      for (int64_t k = 0; k < K; ++k) {
        to_z[k] = to_d[k] = 0;
        if (index.at(b)[first + k] < 0) continue;
        to_z[k] = -0.5f * gamma_inverse * (g_weight[k] + (k == s.nearest ? g_top : 0.0f));
        float others = 1;
        for (int64_t j = 0; j < K; ++j)
          if (j != k) others *= 1.0f - chance[j];
        const float rest = 1.0f - chance[k];
        to_d[k] = (g_weight[k] + gc.at(b)[at] * others * chance[k]) * rest * 2.0f * fabsf(d.at(b)[first + k]) *
                  sigma_inverse;
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace facefit
