// Texture sampling: bilinear in a level and linear between levels, its derivative, and their loops on the CPU.
#pragma once

#include <cmath>

#include "rasterization.h"

namespace facefit {

// The four texels around a point of one level, (row, column) as places in the pyramid, and their fractions.
struct Taps {
  int64_t place[4];
  float fx, fy, width, height;

  FACEFIT_BOTH float weight(int i) const { return (i & 1 ? fx : 1 - fx) * (i & 2 ? fy : 1 - fy); }
};

// `level` is an (offset, height, width) row of the table. Coordinates are finite; u goes right and v up.
FACEFIT_BOTH Taps taps_of(const int32_t* level, float u, float v, bool wrap) {
  Taps t;
  const int32_t h = level[1], w = level[2];
  t.width = (float)w, t.height = (float)h;
  float x, y;
  if (wrap) {
    x = (u - floorf(u)) * w - 0.5f, y = (1 - (v - floorf(v))) * h - 0.5f;
  } else {
    x = u * w - 0.5f, y = (1 - v) * h - 0.5f;
    x = x < -1 ? -1 : (x > w ? w : x), y = y < -1 ? -1 : (y > h ? h : y);
  }
  const float x0 = floorf(x), y0 = floorf(y);
  t.fx = x - x0, t.fy = y - y0;
  for (int i = 0; i < 4; ++i) {
    int32_t column = (int32_t)x0 + (i & 1), row = (int32_t)y0 + (i >> 1);
    if (wrap) {
      column = column < 0 ? column + w : (column >= w ? column - w : column);
      row = row < 0 ? row + h : (row >= h ? row - h : row);
    }
    column = column < 0 ? 0 : (column >= w ? w - 1 : column), row = row < 0 ? 0 : (row >= h ? h - 1 : row);
    t.place[i] = level[0] + (int64_t)row * w + column;
  }
  return t;
}

// pyramid (N, C), table (L, 3), coordinates (M, 2), level (M), wrap () -> (M, C)
inline ffi::Error texture(Team team, Floats pyramid, Ints table, Floats coordinates, Floats level,
                          Ints wrap, FloatResult out) {
  const Batch batch(*out, 2);
  const auto p = operand<float>(pyramid, batch, 2), at = operand<float>(coordinates, batch, 2),
             l = operand<float>(level, batch, 1);
  const auto rows = operand<int32_t>(table, batch, 2), repeat = operand<int32_t>(wrap, batch, 0);
  const int64_t C = p.dim(1), M = at.dim(0), parts = 8;
  const float last = (float)(rows.dim(0) - 1);
  float* result = out->typed_data();
  std::fill(result, result + out->element_count(), 0.0f);
  team.each(batch.count() * parts, [&](int64_t task) {
    const int64_t b = task / parts, part = task % parts;
    for (int64_t i = M * part / parts; i < M * (part + 1) / parts; ++i) {
      const float s = std::min(std::max(l.at(b)[i], 0.0f), last);
      const int low = (int)s;
      for (int j = 0; j < 2; ++j) {
        const float share = j ? s - low : 1 - (s - low);
        if (share == 0) continue;
        const Taps t = taps_of(rows.at(b) + 3 * (low + j), at.at(b)[2 * i], at.at(b)[2 * i + 1], *repeat.at(b));
        for (int k = 0; k < 4; ++k) {
          const float weight = share * t.weight(k), *texel = p.at(b) + C * t.place[k];
          for (int64_t c = 0; c < C; ++c) result[C * (b * M + i) + c] += weight * texel[c];
        }
      }
    }
  });
  return ffi::Error::Success();
}

// As above with the gradient of the result -> gradients of pyramid, coordinates and level
inline ffi::Error texture_backward(Team team, Floats pyramid, Ints table, Floats coordinates, Floats level,
                                   Ints wrap, Floats gradient, FloatResult g_pyramid, FloatResult g_coordinates,
                                   FloatResult g_level) {
  const Batch batch(*g_pyramid, 2);
  const auto p = operand<float>(pyramid, batch, 2), at = operand<float>(coordinates, batch, 2),
             l = operand<float>(level, batch, 1), g = operand<float>(gradient, batch, 2);
  const auto rows = operand<int32_t>(table, batch, 2), repeat = operand<int32_t>(wrap, batch, 0);
  const int64_t C = p.dim(1), M = at.dim(0);
  const float last = (float)(rows.dim(0) - 1);
  float *gu = g_coordinates->typed_data(), *gl = g_level->typed_data();
  Gather gather(team, g_pyramid->typed_data(), batch.count(), p.size);
  team.each(batch.count() * gather.parts(), [&](int64_t task) {
    const int64_t b = task / gather.parts(), part = task % gather.parts();
    float* sum = gather.part(b, part);
    for (int64_t i = M * part / gather.parts(); i < M * (part + 1) / gather.parts(); ++i) {
      const float s = std::min(std::max(l.at(b)[i], 0.0f), last), *from = g.at(b) + C * i;
      const int low = (int)s;
      const bool between = s > 0 && s < last;
      float du = 0, dv = 0, dl = 0;
      for (int j = 0; j < 2; ++j) {
        const float share = j ? s - low : 1 - (s - low);
        if (share == 0 && !between) continue;
        const Taps t = taps_of(rows.at(b) + 3 * (low + j), at.at(b)[2 * i], at.at(b)[2 * i + 1], *repeat.at(b));
        for (int k = 0; k < 4; ++k) {
          const float weight = share * t.weight(k), *texel = p.at(b) + C * t.place[k];
          float* to = sum + C * t.place[k];
          float dot = 0;
          for (int64_t c = 0; c < C; ++c) to[c] += weight * from[c], dot += texel[c] * from[c];
          du += share * dot * (k & 1 ? 1 : -1) * (k & 2 ? t.fy : 1 - t.fy) * t.width;
          dv -= share * dot * (k & 2 ? 1 : -1) * (k & 1 ? t.fx : 1 - t.fx) * t.height;
          if (between) dl += (j ? 1 : -1) * t.weight(k) * dot;
        }
      }
      gu[2 * (b * M + i)] = du, gu[2 * (b * M + i) + 1] = dv, gl[b * M + i] = dl;
    }
  });
  gather.add(team);
  return ffi::Error::Success();
}

}  // namespace facefit
