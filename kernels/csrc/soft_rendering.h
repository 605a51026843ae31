// Soft pictures of a mesh in one call on the CPU: rasterization, interpolation and blending, and the way back, without a
// list of fragments in memory but their face indices.
#pragma once

#include "softening.h"

namespace facefit {

// The rows (V, C) of a batch's operand, filled up with zeros to whole fours: nothing that reads them has a tail.
class PaddedRows {
 public:
  const int64_t length;  // of a row

  PaddedRows(Team& team, const Operand<float, Floats>& from, int64_t B)
      : length((from.dim(1) + 3) / 4 * 4), V_(from.dim(0)), rows_(B * V_ * length) {
    const int64_t C = from.dim(1), chunks = chunk_count(B);
    team.each(B * chunks, [&](int64_t task) {
      const int64_t b = task / chunks, c = task % chunks;
      for (int64_t i = V_ * c / chunks; i < V_ * (c + 1) / chunks; ++i) {
        float* row = rows_.data() + (b * V_ + i) * length;
        std::copy(from.at(b) + C * i, from.at(b) + C * (i + 1), row);
        std::fill(row + C, row + length, 0.0f);
      }
    });
  }
  const float* at(int64_t b) const { return rows_.data() + b * V_ * length; }

 private:
  int64_t V_;
  Array<float> rows_;
};

// Calls f with the length of padded rows and the number of attributes: known to the compiler in the commonest case.
template <typename F>
inline void with_lengths(int64_t length, int64_t C, const F& f) {
  if (C == 3) return f(std::integral_constant<int64_t, 4>(), std::integral_constant<int64_t, 3>());
  f(length, C);
}

// Blends the lists of a band. All but the attributes and faces begins with its first pixel.
template <typename Length, typename Count>
FACEFIT_FOR_AVX2_TOO void blend_band(const Band& band, const float* attributes, const int32_t* faces, const float* background,
                                     Length length, Count C, float sigma_inverse, float gamma_inverse,
                                     int32_t* face_index, float* image, float* coverage) {
  const int64_t K = band.K;
  PixelGroup group(K);
  auto blend = [&](int64_t p) {
    const Softness& s = group.softness[p];
    const int64_t at = group.place[p], first = group.first[p];
    for (int64_t c = 0; c < length; c += 4) {
      Four sum = s.background * load(background + C * at + c, C - c);
      for (int64_t k = first; k < group.first[p + 1]; ++k) {
        const float weight = group.weight[k];
        if (weight == 0) continue;
        const Kept& kept = band.kept(at, k - first);
        const int32_t* corner = faces + 3 * kept.face;
        for (int j = 0; j < 3; ++j) sum += weight * kept.barycentric[j] * load(attributes + length * corner[j] + c);
      }
      store(image + C * at + c, sum * s.total_inverse, C - c);
    }
    coverage[at] = 1 - s.transparency;
  };
  for (int64_t at = 0; at < band.pixels; ++at) {
    const int64_t count = band.count(at);
    int32_t* index = face_index + K * at;
    for (int64_t k = 0, to = group.count(); k < count; ++k, ++to) {
      const Kept& kept = band.kept(at, k);
      index[k] = kept.face, group.depth[to] = kept.depth, group.distance[to] = kept.distance;
    }
    std::fill(index + count, index + K, -1);
    if (count)
      group.end_pixel(at, group.count() + count);
    else
      std::copy(background + C * at, background + C * (at + 1), image + C * at), coverage[at] = 0;
    if (!group.full() && at + 1 < band.pixels) continue;
    group.soften(sigma_inverse, gamma_inverse);
    for (int64_t p = 0; p < group.pixels; ++p) blend(p);
    group.clear();
  }
}

// vertices (V, 4), faces (F, 3), attributes (V, C), background (H, W, C), softness (2), blur () ->
// face_index (H, W, K), image (H, W, C), coverage (H, W)
inline ffi::Error soft_render(Team team, Floats vertices, Ints faces, Floats attributes, Floats background,
                              Floats softness, Floats blur, bool cull, IntResult face_index, FloatResult image,
                              FloatResult coverage) {
  const Batch batch(*face_index, 3);
  if (face_index->element_count() == 0) return ffi::Error::Success();
  expect_large_results(face_index, image, coverage);
  const auto a = operand<float>(attributes, batch, 2), bg = operand<float>(background, batch, 3),
             soft = operand<float>(softness, batch, 1);
  const auto f = operand<int32_t>(faces, batch, 2);
  const int64_t rank = face_index->dimensions().size();
  const int height = (int)face_index->dimensions()[rank - 3], width = (int)face_index->dimensions()[rank - 2];
  const int64_t K = face_index->dimensions()[rank - 1], channels = a.dim(1);
  const PaddedRows values(team, a, batch.count());
  every_band(team, batch, height, width, K, vertices, faces, blur, cull, [&](int64_t b, const Band& band) {
    const int64_t begin = (int64_t)width * band.first, to = b * height * width + begin;
    with_lengths(values.length, channels, [&](auto length, auto C) {
      blend_band(band, values.at(b), f.at(b), bg.at(b) + C * begin, length, C, 1 / soft.at(b)[0], 1 / soft.at(b)[1],
                 face_index->typed_data() + K * to, image->typed_data() + C * to, coverage->typed_data() + to);
    });
  });
  return ffi::Error::Success();
}

// Gradients of positions and attributes, side by side in one row a vertex; added to as in `Gather`.
class VertexSums {
 public:
  VertexSums(Team& team, int64_t B, int64_t V, int64_t length)
      : row_(4 + length), V_(V), parts_(B >= 4 ? 1 : 4), sums_(B * parts_ * V * row_) {
    team.each(B * parts_, [&](int64_t i) { std::fill_n(sums_.data() + i * V_ * row_, V_ * row_, 0.0f); });
  }
  int64_t parts() const { return parts_; }
  float* part(int64_t b, int64_t p) const { return sums_.data() + (b * parts_ + p) * V_ * row_; }

  // The sums of batch element b over all parts: calls each(vertex, row) for the vertices `begin` to `end`.
  template <typename Each>
  void add(int64_t b, int64_t begin, int64_t end, const Each& each) const {
    for (int64_t i = begin; i < end; ++i) {
      float* row = part(b, 0) + i * row_;
      for (int64_t p = 1; p < parts_; ++p)
        for (int64_t c = 0; c < row_; c += 4) store(row + c, load(row + c) + load(part(b, p) + i * row_ + c));
      each(i, row);
    }
  }

 private:
  int64_t row_, V_, parts_;
  Array<float> sums_;
};

// Fragments of a group of pixels on the way back, four at once: what they hold, and the gradient of the picture times the
// attributes of each corner.
struct FourOnTheWayBack {
  FourFragments held;
  Four product[3];
};

// The gradients of a group of pixels: first `begin`, `add` of each fragment and `end_pixel` of each pixel, then `finish`.
template <typename Length, typename Count>
class SoftBackward {
 public:
  SoftBackward(const Screen& screen, int64_t first_vertex, const float* attributes, int64_t K, Length length, Count C,
               float sigma_inverse, float gamma_inverse, float* sums)
      : screen_(screen), first_vertex_(first_vertex), attributes_(attributes), length_(length), C_(C),
        sigma_inverse_(sigma_inverse), gamma_inverse_(gamma_inverse), sums_(sums), group_(K, 5),
        corner_(PixelGroup::kPixels * K + 3), gradient_of_(corner_.size()), x_(corner_.size()), y_(corner_.size()),
        gradient_(PixelGroup::kPixels * length), four_(corner_.size() / 4 + 1) {}

  void add(int64_t k, const int32_t* corner, float px, float py) {
    corner_[k] = corner, x_[k] = px, y_[k] = py, gradient_of_[k] = &gradient_[group_.pixels * length_];
  }
  PixelGroup& group() { return group_; }
  void end_pixel(int64_t at, int64_t end, const float* gradient) {
    float* to = &gradient_[group_.pixels * length_];
    std::copy(gradient, gradient + C_, to);
    std::fill(to + C_, to + length_, 0.0f);
    group_.end_pixel(at, end);
  }

  // The picture and its background; the gradient of the coverage, and that for the background.
  FACEFIT_FOR_AVX2_TOO void finish(const float* image, const float* behind, const float* g_coverage, float* g_behind) {
    find();
    group_.soften(sigma_inverse_, gamma_inverse_);
    for (int64_t p = 0; p < group_.pixels; ++p) {
      const int64_t at = group_.place[p];
      pixel_vjp(p, image + C_ * at, behind + C_ * at, g_coverage[at], g_behind + C_ * at);
    }
    for (int64_t k = 0; k < group_.count(); k += 4) scatter(k);
    group_.clear();
  }

 private:
  // Of what is written to the lists of `group_`, besides.
  float* blended() { return group_.list(4); }  // the gradient times the values of a fragment
  float* share() { return group_.list(5); }    // what it weighs of all
  float* g_weight() { return group_.list(6); } // the gradient for the logarithm of its weight
  float* g_depth() { return group_.list(7); }
  float* others() { return group_.list(8); }   // the gradient for its chance by the coverage

  void find() {
    // Where the last four are fewer, the first one stands for the others, without a gradient.
    for (int64_t k = group_.count(); k % 4; ++k) {
      corner_[k] = corner_[0], x_[k] = x_[0], y_[k] = y_[0], gradient_of_[k] = gradient_of_[0];
      share()[k] = g_weight()[k] = g_depth()[k] = others()[k] = 0;
    }
    for (int64_t k = 0; k < group_.count(); k += 4) {
      FourOnTheWayBack& four = four_[k / 4];
      FourFragments& f = four.held;
      screen_.fragment(first_vertex_, &corner_[k], load(&x_[k]), load(&y_[k]), &f);
      store(group_.depth + k, f.depth), store(group_.distance + k, f.distance);
      Four sum = {};
      for (int j = 0; j < 3; ++j) {
        Four row[4];
        for (int i = 0; i < 4; ++i) {
          const float *value = attributes_ + length_ * corner_[k + i][j], *g = gradient_of_[k + i];
          row[i] = load(value) * load(g);
          for (int64_t c = 4; c < length_; c += 4) row[i] += load(value + c) * load(g + c);
        }
        transpose(row);
        four.product[j] = (row[0] + row[1]) + (row[2] + row[3]);
        sum += f.barycentric[j] * four.product[j];
      }
      store(blended() + k, sum);
    }
  }

  // As `blend_pixel_vjp`, with what the whole group's fragments have in common left for `scatter`.
  void pixel_vjp(int64_t p, const float* image, const float* behind, float g_coverage, float* g_behind) {
    const Softness& s = group_.softness[p];
    const int64_t begin = group_.first[p], end = group_.first[p + 1];
    const float *g = &gradient_[p * length_], *chance = group_.chance;
    float shown = 0, g_top = 0;
    for (int64_t i = 0; i < C_; ++i) {
      shown += g[i] * image[i], g_top -= g[i] * (behind[i] - image[i]);
      g_behind[i] = g[i] * s.background * s.total_inverse;
    }
    g_top = s.floored ? 0 : g_top * s.background * s.total_inverse;
    // What the others let through: those before times those after.
    float after = g_coverage, before = 1;
    for (int64_t k = end - 1; k >= begin; --k) others()[k] = after, after *= 1.0f - chance[k];
    for (int64_t k = begin; k < end; ++k) {
      others()[k] *= before, before *= 1.0f - chance[k];
      share()[k] = group_.weight[k] * s.total_inverse;
      const float change = share()[k] * (blended()[k] - shown);
      g_weight()[k] = g_depth()[k] = change, g_top -= change;
    }
    if (s.nearest >= 0) g_depth()[begin + s.nearest] += g_top;
  }

  void scatter(int64_t k) {
    const FourOnTheWayBack& four = four_[k / 4];
    const Four chance = load(group_.chance + k), away = load(group_.distance + k), part = load(share() + k);
    const Four g_depth_of = load(g_depth() + k) * (-0.5f * gamma_inverse_);
    const Four g_distance =
        (load(g_weight() + k) + load(others() + k) * chance) * (1.0f - chance) * magnitude(away) * (2.0f * sigma_inverse_);
    Four g_barycentric[3], g_corner[3][4];
    for (int j = 0; j < 3; ++j) g_barycentric[j] = part * four.product[j];
    fragment_vjp(four.held, g_barycentric, g_depth_of, g_distance, g_corner);
    for (int j = 0; j < 3; ++j) {
      const Four weight = part * four.held.barycentric[j];
      transpose(g_corner[j]);
      for (int i = 0; i < 4; ++i) {
        float* row = sums_ + (4 + length_) * corner_[k + i][j];
        store(row, load(row) + g_corner[j][i]);
        for (int64_t c = 0; c < length_; c += 4)
          store(row + 4 + c, load(row + 4 + c) + weight[i] * load(gradient_of_[k + i] + c));
      }
    }
  }

  const Screen& screen_;
  const int64_t first_vertex_;
  const float* attributes_;
  const Length length_;
  const Count C_;
  const float sigma_inverse_, gamma_inverse_;
  float* sums_;
  PixelGroup group_;
  std::vector<const int32_t*> corner_;
  std::vector<const float*> gradient_of_;
  std::vector<float> x_, y_, gradient_;
  std::vector<FourOnTheWayBack> four_;
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
  const int64_t height = index.dim(0), width = index.dim(1), K = index.dim(2), V = v.dim(0), B = batch.count();
  const float half_x = 0.5f * width, half_y = 0.5f * height;
  const Screen screen(team, v, B, half_x, half_y);
  const PaddedRows values(team, a, B);
  const VertexSums sums(team, B, V, values.length);
  const int64_t parts = sums.parts(), rows = 8;
  auto work = [&](int64_t b, int64_t part, auto length, auto C) {
    SoftBackward<decltype(length), decltype(C)> backward(screen, b * V, values.at(b), K, length, C, 1 / soft.at(b)[0],
                                                         1 / soft.at(b)[1], sums.part(b, part));
    const PixelGroup& group = backward.group();
    float* g_behind = g_background->typed_data() + C * b * height * width;
    auto finish = [&] { backward.finish(out.at(b), bg.at(b), gc.at(b), g_behind); };
    // A part is every so many rows: what is to be drawn is mostly in the middle.
    for (int64_t y = 0; y < height; ++y) {
      if (y / rows % parts != part) continue;
      for (int64_t x = 0; x < width; ++x) {
        const int64_t at = y * width + x, begin = group.count();
        const int32_t *list = index.at(b) + K * at, *corner;
        int64_t end = begin;
        for (int64_t k = 0; k < K && corners_of(f.at(b), f.dim(0), V, list[k], &corner); ++k, ++end)
          backward.add(end, corner, x + 0.5f, y + 0.5f);
        const float* g = gi.at(b) + C * at;
        if (end == begin) {
          std::copy(g, g + C, g_behind + C * at);
          continue;
        }
        backward.end_pixel(at, end, g);
        if (group.full()) finish();
      }
    }
    finish();
  };
  team.each(B * parts, [&](int64_t task) {
    with_lengths(values.length, a.dim(1), [&](auto length, auto C) { work(task / parts, task % parts, length, C); });
  });
  const int64_t chunks = chunk_count(B), C = a.dim(1);
  team.each(B * chunks, [&](int64_t task) {
    const int64_t b = task / chunks, c = task % chunks;
    sums.add(b, V * c / chunks, V * (c + 1) / chunks, [&](int64_t i, float* row) {
      vertex_vjp(screen.scale[b * V + i], half_x, half_y, row);
      std::copy(row, row + 4, g_vertices->typed_data() + 4 * (b * V + i));
      std::copy(row + 4, row + 4 + C, g_attributes->typed_data() + C * (b * V + i));
    });
  });
  return ffi::Error::Success();
}

}  // namespace facefit
