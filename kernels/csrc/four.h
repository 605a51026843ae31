// Four numbers at once, for compilers that know vectors (GCC and Clang): with the operators of C++ they do what one
// number does.
#pragma once

#include <cstdint>
#include <initializer_list>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// A function that is compiled, with all that it calls, for processors with AVX2 too; which one runs is chosen when the
// library is loaded. The arithmetic is the same, in a third fewer instructions.
#if defined(__x86_64__) && defined(__GLIBC__) && __has_attribute(target_clones)  // the choice is made by the C library
#define FACEFIT_FOR_AVX2_TOO __attribute__((flatten, target_clones("avx2", "default")))
#else
#define FACEFIT_FOR_AVX2_TOO
#endif

namespace facefit {

typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourTruths __attribute__((vector_size(16)));  // of a comparison: all bits set where it holds

// Not with memcpy: what that writes may be anything, so that compilers then read every pointer of an object again.
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4)));
inline Four load(const float* from) { return *(const FourAnywhere*)from; }
inline void store(float* to, Four four) { *(FourAnywhere*)to = four; }

// As these where there are `count` numbers only, if they are fewer than four.
inline Four load(const float* from, int64_t count) {
  if (count >= 4) return load(from);
  return Four{from[0], count > 1 ? from[1] : 0, count > 2 ? from[2] : 0, 0};
}
inline void store(float* to, Four four, int64_t count) {
  if (count >= 4) return store(to, four);
  for (int i = 0; i < count; ++i) to[i] = four[i];
}

// What code for one number and for four is written with; see also "triangle.h".
inline Four choose(FourTruths where, Four yes, Four no) { return where ? yes : no; }
inline FourTruths choose_truth(FourTruths where, FourTruths yes, FourTruths no) { return (where & yes) | (~where & no); }
#if defined(__SSE2__)
inline Four lesser(Four a, Four b) { return _mm_min_ps(a, b); }
inline Four greater(Four a, Four b) { return _mm_max_ps(a, b); }
inline Four magnitude(Four a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
inline Four root(Four a) { return _mm_sqrt_ps(a); }
#else
inline Four lesser(Four a, Four b) { return a < b ? a : b; }
inline Four greater(Four a, Four b) { return a > b ? a : b; }
inline Four magnitude(Four a) { return a < -a ? -a : a; }
inline Four root(Four a) {
  for (int i = 0; i < 4; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
#endif
// One bit for each of the four.
inline int bits(FourTruths t) {
#if defined(__SSE2__)
  return _mm_movemask_ps((__m128)t);
#else
  return (t[0] & 1) | (t[1] & 2) | (t[2] & 4) | (t[3] & 8);
#endif
}
inline bool any(FourTruths t) { return bits(t) != 0; }

// e^x within two units in the last place: 2^n e^r, n whole and |r| at most ln(2) / 2.
inline Four exponential(Four x) {
  const Four low = {-87.3f, -87.3f, -87.3f, -87.3f}, high = {88.3f, 88.3f, 88.3f, 88.3f};
  const Four within = lesser(greater(x, low), high);
  const Four whole_at_the_end = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};  // 1.5 * 2^23
  const Four shifted = within * 1.44269504f + whole_at_the_end, n = shifted - whole_at_the_end;
  const Four r = (within - n * 0.693145752f) - n * 1.42860677e-6f;
  Four sum = r * (1.0f / 5040) + (1.0f / 720);
  for (const float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = sum * r + c;
  const FourTruths power = ((FourTruths)shifted - (FourTruths)whole_at_the_end + 127) << 23;
  return choose(x < low, Four{}, sum * (Four)power);
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
