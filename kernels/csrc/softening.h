// Soft blending of a pixel's fragments: its arithmetic, its gradient, and their loops on the CPU.
#pragma once

#include "fragments.h"

namespace facefit {

// Nearness that the background has, and the least weight of it.
constexpr float kBackground = 1e-10f;

// One pixel: what its fragments weigh together, and its background.
struct Softness {
  float background, total_inverse, transparency;
  int64_t nearest;  // the fragment that weights are scaled by, -1 for none that is nearer than the background
  bool floored;     // the background has its least weight
};

FACEFIT_BOTH float nearness(float depth) { return 0.5f - 0.5f * depth; }

// Fragments of some pixels, those of one pixel after those of another. Four are worked on at once, so lists have room for
// three beyond the last.
class PixelGroup {
 public:
  static constexpr int64_t kPixels = 16;
  int64_t pixels = 0, first[kPixels + 1] = {0};  // where each pixel's fragments begin, and where the last one's end
  int64_t place[kPixels];                        // of each pixel in the picture
  Softness softness[kPixels];
  float *depth, *distance, *chance, *weight;

  // Of pixels with up to K fragments; there are `more` lists besides.
  explicit PixelGroup(int64_t K, int64_t more = 0) : length_(kPixels * K + 3), lists_((4 + more) * length_) {
    depth = list(0), distance = list(1), chance = list(2), weight = list(3);
  }
  float* list(int64_t k) { return lists_.data() + k * length_; }

  void end_pixel(int64_t at, int64_t end) { place[pixels] = at, first[++pixels] = end; }
  bool full() const { return pixels == kPixels; }
  int64_t count() const { return first[pixels]; }
  void clear() { pixels = 0; }

  // Finds what each fragment weighs from depths and distances.
  void soften(float sigma_inverse, float gamma_inverse) {
    for (int64_t p = 0; p < pixels; ++p) {
      float top = kBackground;
      softness[p].nearest = -1;
      for (int64_t k = first[p]; k < first[p + 1]; ++k)
        if (nearness(depth[k]) > top) top = nearness(depth[k]), softness[p].nearest = k - first[p];
      std::fill(weight + first[p], weight + first[p + 1], top);
      softness[p].background = (kBackground - top) * gamma_inverse;
    }
    for (int64_t k = 0; k < count(); k += 4) {
      const Four d = load(distance + k), z = load(depth + k), top = load(weight + k);
      const Four c = 1.0f / (1.0f + exponential(-d * magnitude(d) * sigma_inverse));
      store(chance + k, c);
      store(weight + k, c * exponential(((0.5f - 0.5f * z) - top) * gamma_inverse));
    }
    for (int64_t p = 0; p < pixels; ++p) {
      Softness& s = softness[p];
      // Where it is certainly less than the least weight its exponential is not needed.
      s.background = s.background < -24.0f ? 0 : expf(s.background);
      s.floored = !(s.background > kBackground);
      if (s.floored) s.background = kBackground;
      float total = s.background;
      s.transparency = 1;
      for (int64_t k = first[p]; k < first[p + 1]; ++k) total += weight[k], s.transparency *= 1.0f - chance[k];
      s.total_inverse = 1.0f / total;
    }
  }

 private:
  int64_t length_;
  std::vector<float> lists_;
};

// Puts the pixels `begin` to `end` (excluded), each with the first of its K fragments, those that are there, into the
// group, and calls each() whenever that is full, and at the end.
template <typename Each>
inline void every_pixel_group(PixelGroup* group, const int32_t* face, const float* depth, const float* distance, int64_t K,
                              int64_t begin, int64_t end, const Each& each) {
  for (int64_t at = begin; at < end; ++at) {
    int64_t to = group->count();
    for (int64_t k = K * at; k < K * (at + 1) && face[k] >= 0; ++k, ++to)
      group->depth[to] = depth[k], group->distance[to] = distance[k];
    group->end_pixel(at, to);
    if (group->full() || at + 1 == end) each(), group->clear();
  }
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
// what `PixelGroup::soften` was given and found; `scratch` has K entries.
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
    PixelGroup group(K);
    every_pixel_group(&group, index.at(b), z.at(b), d.at(b), K, pixels * part / parts, pixels * (part + 1) / parts, [&] {
      group.soften(sigma_inverse, gamma_inverse);
      for (int64_t p = 0; p < group.pixels; ++p) {
        const int64_t at = group.place[p], to = b * pixels + at, first = group.first[p];
        coverage->typed_data()[to] =
            blend_pixel(group.softness[p], group.first[p + 1] - first, C, group.weight + first, c.at(b) + C * K * at,
                        bg.at(b) + C * at, image->typed_data() + C * to);
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
  const int64_t K = index.dim(2), C = c.dim(3), pixels = index.dim(0) * index.dim(1), parts = 8;
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    const float sigma_inverse = 1 / soft.at(b)[0], gamma_inverse = 1 / soft.at(b)[1];
    PixelGroup group(K, 1);
    every_pixel_group(&group, index.at(b), z.at(b), d.at(b), K, pixels * part / parts, pixels * (part + 1) / parts, [&] {
      group.soften(sigma_inverse, gamma_inverse);
      for (int64_t p = 0; p < group.pixels; ++p) {
        const int64_t at = group.place[p], to = b * pixels + at, first = group.first[p], count = group.first[p + 1] - first;
        float *gv = g_values->typed_data() + C * K * to, *gz = g_depth->typed_data() + K * to,
              *gd = g_distance->typed_data() + K * to;
        blend_pixel_vjp(group.softness[p], count, C, group.distance + first, group.chance + first, group.weight + first,
                        c.at(b) + C * K * at, bg.at(b) + C * at, out.at(b) + C * at, sigma_inverse, gamma_inverse,
                        gi.at(b) + C * at, gc.at(b)[at], group.list(4), gv, gz, gd, g_background->typed_data() + C * to);
        std::fill(gv + C * count, gv + C * K, 0.0f);
        std::fill(gz + count, gz + K, 0.0f), std::fill(gd + count, gd + K, 0.0f);
      }
    });
  });
  return ffi::Error::Success();
}

}  // namespace facefit
