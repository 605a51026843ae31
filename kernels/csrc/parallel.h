// Loops over XLA's own thread pool, and operands that may or may not have the leading batch axes.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace facefit {

namespace ffi = xla::ffi;

// XLA computes with denormal numbers flushed to zero; so must we, to agree with the reference.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// Calls body(i) for every i below count, on the pool's threads and this one. Returns when all are done. This thread
// takes part and waits only for bodies that have begun, so a pool whose threads are all busy cannot block it.
template <typename Body>
void parallel_for(ffi::ThreadPool& pool, int64_t count, const Body& body) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t count = 0, done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
    const Body* body = nullptr;
    void work() {
      FlushDenormals flush;
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        (*body)(i);
        std::lock_guard<std::mutex> lock(mutex);
        if (++done == count) all_done.notify_all();
      }
    }
  };
  if (count <= 0) return;
  auto shared = std::make_shared<Shared>();
  shared->count = count, shared->body = &body;
  const int64_t helpers = std::min<int64_t>(std::max<int64_t>(pool.num_threads(), 1), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([shared]() { shared->work(); });
  shared->work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == shared->count; });
}

// The leading axes of a result: every operand has as many, each of the same length or of length 1 (not batched).
class Batch {
 public:
  template <typename Buffer>
  Batch(const Buffer& result, int64_t core_rank) {
    auto dims = result.dimensions();
    for (size_t i = 0; i + core_rank < dims.size(); ++i) sizes_.push_back(dims[i]);
    for (int64_t n : sizes_) count_ *= n;
  }
  int64_t count() const { return count_; }

  // Which of an operand's elements belongs to batch element b; `operand_core_rank` axes follow its leading ones.
  template <typename Buffer>
  int64_t element(const Buffer& operand, int64_t operand_core_rank, int64_t b) const {
    auto dims = operand.dimensions();
    const int64_t leading = (int64_t)dims.size() - operand_core_rank;
    int64_t index = 0, stride = 1;
    for (int64_t i = leading - 1, rest = b; i >= 0; --i) {
      const int64_t n = sizes_[i];
      if (dims[i] != 1) index += (rest % n) * stride;
      stride *= dims[i], rest /= n;
    }
    return index;
  }

 private:
  int64_t count_ = 1;
  std::vector<int64_t> sizes_;
};

// A read-only operand with `core_rank` axes after the batch's; at(b) is where batch element b begins.
template <typename T, typename Buffer>
class Operand {
 public:
  Operand(const Buffer& buffer, const Batch& batch, int64_t core_rank) {
    auto dims = buffer.dimensions();
    core_.assign(dims.begin() + (dims.size() - core_rank), dims.end());
    for (int64_t n : core_) size *= n;
    const T* data = reinterpret_cast<const T*>(buffer.untyped_data());
    for (int64_t b = 0; b < batch.count(); ++b) begin_.push_back(data + batch.element(buffer, core_rank, b) * size);
  }
  const T* at(int64_t b) const { return begin_[b]; }
  int64_t dim(int64_t i) const { return core_[i]; }

  int64_t size = 1;

 private:
  std::vector<int64_t> core_;
  std::vector<const T*> begin_;
};

template <typename T, typename Buffer>
Operand<T, Buffer> operand(const Buffer& b, const Batch& batch, int64_t rank) { return {b, batch, rank}; }

// Sums that many pixels add to, with the same result whatever the number of threads: the pixels of one batch element
// are cut into a fixed number of parts, each part adds into its own array, and the arrays are added in order.
class Gather {
 public:
  Gather(int64_t batch, int64_t length) : batch_(batch), length_(length), parts_(batch >= 4 ? 1 : 4) {
    if (parts_ > 1) partial_.assign(batch * (parts_ - 1) * length, 0.0f);
  }
  int64_t parts() const { return parts_; }
  // The array of one part; the first part's is the result itself, which must be zero before.
  float* part(float* result, int64_t b, int64_t p) {
    return p == 0 ? result + b * length_ : partial_.data() + (b * (parts_ - 1) + p - 1) * length_;
  }
  void add(float* result) {
    for (int64_t b = 0; b < batch_; ++b)
      for (int64_t p = 1; p < parts_; ++p) {
        const float* from = part(result, b, p);
        float* to = result + b * length_;
        for (int64_t i = 0; i < length_; ++i) to[i] += from[i];
      }
  }

 private:
  int64_t batch_, length_, parts_;
  std::vector<float> partial_;
};

}  // namespace facefit
