// Sums that many threads add to, with the same result in whatever order they come.
//
// A sum of floats depends on its order, and the order of atomic additions changes from run to run. A sum of integers
// does not. So every contribution is rounded to a multiple of a power of two, chosen from the largest contribution of
// its picture: a first pass finds that (a maximum has no order either), a second adds 64-bit integers. Of 64 bits as
// many as the contributions can carry into are left free, so that nothing overflows; what is left resolves, at 512 x 512
// pixels, 2^-40 of the largest contribution, where float32 resolves 2^-24 of each. Sorting the contributions would give
// the same property for several times the memory traffic, and a sum per face over its pixels would serialise large
// faces.
#pragma once

#include "device.cuh"

namespace facefit {

// Sums of `length` values for each batch element.
struct Sums {
  unsigned long long* sum;
  unsigned* largest;  // of each batch element, as bits of the absolute value; infinite or more where one is not finite
  int64_t length;
  int free_bits;

  // A contribution times 2^exponent is what is added.
  __device__ int exponent(int64_t b) const {
    const int biased = (int)(largest[b] >> 23);
    return 62 - free_bits - ((biased > 0 ? biased : 1) - 126);
  }
  static __device__ double power_of_two(int exponent) { return __longlong_as_double((long long)(1023 + exponent) << 52); }

  // The sum as a float. A contribution that was not finite makes every sum of its picture NaN.
  __device__ float value(int64_t b, int64_t i) const {
    if (largest[b] >= 0x7f800000u) return __int_as_float(0x7fc00000);
    return (float)((double)(long long)sum[b * length + i] * power_of_two(-exponent(b)));
  }
};

// Takes contributions and keeps the largest of each of two groups of sums.
struct Measuring {
  unsigned largest[2] = {0, 0};

  __device__ void operator()(int group, int64_t, float value) {
    const unsigned size = __float_as_uint(value) & 0x7fffffffu;
    largest[group] = size > largest[group] ? size : largest[group];
  }
};

// Takes the same contributions and adds them.
struct Adding {
  const Sums* sums;
  int64_t b;
  double scale[2];

  __device__ void operator()(int group, int64_t i, float value) const {
    if (value == 0.0f || !isfinite(value)) return;
    atomicAdd(&sums[group].sum[b * sums[group].length + i], (unsigned long long)__double2ll_rn(value * scale[group]));
  }
};

template <int Groups>
struct SumsOf {
  Sums group[Groups];
};

template <int Groups, typename Body>
__global__ void measure_kernel(int64_t items, int64_t B, SumsOf<Groups> sums, Body body) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64_t b = blockIdx.y; b < B; b += gridDim.y) {
    Measuring found;
    if (i < items) body(b, i, found);
    for (int g = 0; g < Groups; ++g) {
      unsigned most = found.largest[g];
      for (int step = 16; step; step /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, step));
      if (threadIdx.x % 32 == 0 && most > 0) atomicMax(&sums.group[g].largest[b], most);
    }
  }
}

template <int Groups, typename Body>
__global__ void add_kernel(int64_t items, int64_t B, SumsOf<Groups> sums, Body body) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= items) return;
  for (int64_t b = blockIdx.y; b < B; b += gridDim.y) {
    Adding add = {sums.group, b, {0, 0}};
    for (int g = 0; g < Groups; ++g) add.scale[g] = Sums::power_of_two(sums.group[g].exponent(b));
    body(b, i, add);
  }
}

// Sums of zero to begin with, to which at most `contributions` are added each.
inline Sums sums_of(Call& call, int64_t B, int64_t length, int64_t contributions) {
  Sums sums = {call.memory<unsigned long long>(B * length), call.memory<unsigned>(B), length, 1};
  while (contributions >> sums.free_bits) ++sums.free_bits;
  call.fill(sums.sum, 0, B * length * sizeof(*sums.sum));
  call.fill(sums.largest, 0, B * sizeof(*sums.largest));
  return sums;
}

// body(b, i, sink) for every item i of every batch element b, twice, with sinks that take (group, index, contribution).
template <int Groups, typename Body>
void add_up(Call& call, int64_t items, int64_t B, const SumsOf<Groups>& sums, const Body& body) {
  call.launch(measure_kernel<Groups, Body>, grid_of(items, B), kThreads, items, B, sums, body);
  call.launch(add_kernel<Groups, Body>, grid_of(items, B), kThreads, items, B, sums, body);
}

struct WriteSums {
  Sums sums;
  float* out;
  __device__ void operator()(int64_t b, int64_t i) const { out[b * sums.length + i] = sums.value(b, i); }
};

inline void write(Call& call, int64_t B, const Sums& sums, float* out) {
  every(call, sums.length, B, WriteSums{sums, out});
}

}  // namespace facefit
