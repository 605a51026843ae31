// Four numbers at once, for compilers that know vectors (GCC and Clang): with the operators of C++ they do what one
// number does.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace facefit {

typedef float Four __attribute__((vector_size(16)));

inline Four load(const float* from) {
  Four four;
  __builtin_memcpy(&four, from, sizeof four);
  return four;
}
inline void store(float* to, Four four) { __builtin_memcpy(to, &four, sizeof four); }

// As these where there are `count` numbers only, if they are fewer than four.
inline Four load(const float* from, int64_t count) {
  if (count >= 4) return load(from);
  return Four{from[0], count > 1 ? from[1] : 0, count > 2 ? from[2] : 0, 0};
}
inline void store(float* to, Four four, int64_t count) {
  if (count >= 4) return store(to, four);
  for (int i = 0; i < count; ++i) to[i] = four[i];
}

// Rows become columns.
inline void transpose(Four row[4]) {
#if defined(__SSE2__)
  __m128 a = row[0], b = row[1], c = row[2], d = row[3];
  _MM_TRANSPOSE4_PS(a, b, c, d);
  row[0] = a, row[1] = b, row[2] = c, row[3] = d;
#else
  const Four a = row[0], b = row[1], c = row[2], d = row[3];
  for (int k = 0; k < 4; ++k) row[k] = Four{a[k], b[k], c[k], d[k]};
#endif
}

}  // namespace facefit
