// What every CUDA operation is made of: operands that may or may not be batched, scratch memory, launches.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "triangle.h"
#include "xla/ffi/api/ffi.h"

namespace facefit {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using FloatResult = ffi::Result<Floats>;
using IntResult = ffi::Result<Ints>;

// A read-only operand; at(b) is where batch element b begins. Its leading axes are as long as the result's or of length
// 1 (not batched). Neighbouring axes of the same kind count as one, so that few are left.
template <typename T>
struct Part {
  enum { kMostAxes = 6 };
  const T* data;
  int axes;
  int64_t length[kMostAxes], stride[kMostAxes];  // the last axis first

  __device__ const T* at(int64_t b) const {
    const T* begin = data;
    for (int i = 0; i < axes; ++i) {
      if (i + 1 == axes) return begin + b * stride[i];  // nearly always at once: without a division
      begin += b % length[i] * stride[i], b /= length[i];
    }
    return begin;
  }
};

// The leading axes of a result.
class Batch {
 public:
  template <typename Buffer>
  Batch(const Buffer& result, int64_t core_rank) : dims_(result.dimensions()) {
    leading_ = (int64_t)dims_.size() - core_rank;
    for (int64_t i = 0; i < leading_; ++i) count_ *= dims_[i];
  }
  int64_t count() const { return count_; }

  template <typename T, typename Buffer>
  Part<T> part(const Buffer& operand, int64_t core_rank) const {
    const auto dims = operand.dimensions();
    int64_t stride = 1;
    for (size_t i = leading_; i < dims.size(); ++i) stride *= dims[i];
    Part<T> result = {reinterpret_cast<const T*>(operand.untyped_data()), 0, {}, {}};
    for (int64_t i = leading_ - 1; i >= 0; --i) {
      const bool batched = dims[i] != 1;
      const int last = result.axes - 1;
      if (dims_[i] == 1) continue;
      if (last >= 0 && batched == (result.stride[last] != 0)) {
        result.length[last] *= dims_[i];
      } else {
        if (result.axes == Part<T>::kMostAxes) {
          too_many_axes_ = true;
          break;
        }
        result.length[result.axes] = dims_[i], result.stride[result.axes++] = batched ? stride : 0;
      }
      stride *= dims[i];
    }
    return result;
  }
  bool too_many_axes() const { return too_many_axes_; }

 private:
  ffi::Span<const int64_t> dims_;
  int64_t leading_, count_ = 1;
  mutable bool too_many_axes_ = false;
};

// One call's work on its stream. Errors are kept and told at the end by `status`; nothing here waits for the device.
class Call {
 public:
  Call(cudaStream_t stream, ffi::ScratchAllocator& scratch) : stream_(stream), scratch_(scratch) {}

  // Memory for the length of the call, null where there is none: then nothing more is launched.
  template <typename T>
  T* memory(int64_t count) {
    const auto found = scratch_.Allocate(count > 0 ? count * sizeof(T) : sizeof(T), 16);
    if (!found) failed_ = true;
    return found ? static_cast<T*>(*found) : nullptr;
  }

  void fill(void* memory, int byte, int64_t bytes) {
    if (!failed_ && bytes > 0) note(cudaMemsetAsync(memory, byte, bytes, stream_));
  }

  template <typename... Parameters, typename... Arguments>
  void launch(void (*kernel)(Parameters...), dim3 grid, int threads, const Arguments&... arguments) {
    if (failed_ || grid.x == 0 || grid.y == 0) return;
    kernel<<<grid, threads, 0, stream_>>>(arguments...);
    note(cudaGetLastError());
  }

  ffi::Error status(const Batch& batch) const {
    if (batch.too_many_axes()) return ffi::Error(ffi::ErrorCode::kInvalidArgument, "facefit: too many batch axes");
    if (error_ != cudaSuccess)
      return ffi::Error(ffi::ErrorCode::kInternal, std::string("facefit: ") + cudaGetErrorString(error_));
    if (failed_) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "facefit: no memory left on the device");
    return ffi::Error::Success();
  }

 private:
  void note(cudaError_t error) {
    if (error != cudaSuccess && error_ == cudaSuccess) error_ = error, failed_ = true;
  }

  cudaStream_t stream_;
  ffi::ScratchAllocator& scratch_;
  bool failed_ = false;
  cudaError_t error_ = cudaSuccess;
};

enum { kThreads = 128, kMostRows = 65535 };

// A grid with a thread for each of `items` things of each of B batch elements; `every` is its kernel's loop.
inline dim3 grid_of(int64_t items, int64_t B) {
  return dim3((unsigned)((items + kThreads - 1) / kThreads), (unsigned)(B < kMostRows ? B : kMostRows));
}

// A pixel's column and row. A picture has fewer than 2^32 pixels, and divisions of 64 bits are slow.
__device__ inline int column_of(int64_t pixel, int64_t W) { return (int)((unsigned)pixel % (unsigned)W); }
__device__ inline int row_of(int64_t pixel, int64_t W) { return (int)((unsigned)pixel / (unsigned)W); }

template <typename Body>
__global__ void every_kernel(int64_t items, int64_t B, Body body) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= items) return;
  for (int64_t b = blockIdx.y; b < B; b += gridDim.y) body(b, i);
}

// body(b, i) for every item i of every batch element b, in any order.
template <typename Body>
void every(Call& call, int64_t items, int64_t B, const Body& body) {
  call.launch(every_kernel<Body>, grid_of(items, B), kThreads, items, B, body);
}

}  // namespace facefit
