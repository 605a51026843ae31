// Loops over XLA's own thread pool, and operands that may or may not have the leading batch axes.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "memory.h"
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

// The threads that share the loops of one call: the calling thread, and as many of the pool's as come. These stay from
// the first loop to the last, since waking a thread takes about as long as a loop. The calling thread takes part and
// waits only for bodies that have begun, so a pool whose threads are all busy cannot block it.
class Team {
 public:
  Team(ffi::ThreadPool pool) : pool_(pool) {}
  Team(const Team&) = delete;
  ~Team() {
    if (shared_) shared_->append(nullptr, nullptr, 0);
  }

  int64_t threads() const { return std::max<int64_t>(pool_.num_threads(), 1); }

  // Calls body(i) for every i below count; returns when all are done.
  template <typename Body>
  void each(int64_t count, const Body& body) {
    FlushDenormals flush;
    if (count == 1) return body(0);
    if (count <= 0) return;
    if (!shared_) call_helpers();
    Loop* loop = shared_->append([](const void* b, int64_t i) { (*(const Body*)b)(i); }, &body, count);
    shared_->work(loop);
    shared_->wait([&] { return loop->done == count; });
  }

 private:
  // One call of `each`, or without `run` the end of all. Helpers go from one to the next.
  struct Loop {
    void (*run)(const void*, int64_t);
    const void* body;
    int64_t count;
    std::atomic<int64_t> begun{0}, done{0};
    std::atomic<Loop*> following{nullptr};
    Loop(void (*run)(const void*, int64_t), const void* body, int64_t count) : run(run), body(body), count(count) {}
  };

  struct Shared {
    std::deque<Loop> loops;  // only the calling thread appends; a loop stays where it is
    std::atomic<int> asleep{0};
    std::mutex mutex;
    std::condition_variable changed;
    std::thread::id caller = std::this_thread::get_id();

    Shared() { loops.emplace_back(nullptr, nullptr, 0); }

    Loop* append(void (*run)(const void*, int64_t), const void* body, int64_t count) {
      Loop* last = &loops.back();
      loops.emplace_back(run, body, count);
      last->following = &loops.back();
      wake();
      return &loops.back();
    }

    void work(Loop* loop) {
      for (int64_t i; (i = loop->begun.fetch_add(1)) < loop->count;) {
        loop->run(loop->body, i);
        if (loop->done.fetch_add(1) + 1 == loop->count) wake();
      }
    }

    void help(Loop* loop) {
      if (std::this_thread::get_id() == caller) return;  // what `Schedule` does where it fails
      FlushDenormals flush;
      for (;;) {
        wait([&] { return loop->following != nullptr; });
        loop = loop->following;
        if (!loop->run) return;
        work(loop);
      }
    }

    // The next loop mostly comes, and the last bodies mostly end, sooner than a thread could sleep and wake.
    template <typename Condition>
    void wait(const Condition& met) {
      for (int k = 0; k < 2000; ++k) {
        if (met()) return;
        pause();
      }
      std::unique_lock<std::mutex> lock(mutex);
      ++asleep;
      changed.wait(lock, met);
      --asleep;
    }

    void wake() {
      if (asleep == 0) return;
      std::lock_guard<std::mutex> lock(mutex);
      changed.notify_all();
    }
  };

  void call_helpers() {
    shared_ = std::make_shared<Shared>();
    for (int64_t k = 1; k < threads(); ++k)
      pool_.Schedule([shared = shared_]() { shared->help(&shared->loops.front()); });
  }

  static void pause() {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  ffi::ThreadPool pool_;
  std::shared_ptr<Shared> shared_;
};

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

// Sums (B, length) that many pixels add to, with the same result whatever the number of threads: the pixels of one batch
// element are cut into a fixed number of parts, each part adds into its own array, and the arrays are added in order.
// The first part's array is the result itself. All begin at zero.
class Gather {
 public:
  Gather(Team& team, float* result, int64_t batch, int64_t length)
      : result_(result), batch_(batch), length_(length), parts_(batch >= 4 ? 1 : 4),
        partial_(new float[batch * (parts_ - 1) * length]) {
    team.each(batch * parts_, [&](int64_t i) {
      float* from = part(i / parts_, i % parts_);
      std::fill(from, from + length_, 0.0f);
    });
  }
  int64_t parts() const { return parts_; }
  float* part(int64_t b, int64_t p) {
    return p == 0 ? result_ + b * length_ : partial_.get() + (b * (parts_ - 1) + p - 1) * length_;
  }
  void add(Team& team) {
    if (parts_ == 1) return;
    const int64_t pieces = 8;
    team.each(batch_ * pieces, [&](int64_t task) {
      const int64_t b = task / pieces, piece = task % pieces;
      float* to = part(b, 0);
      for (int64_t p = 1; p < parts_; ++p) {
        const float* from = part(b, p);
        for (int64_t i = length_ * piece / pieces; i < length_ * (piece + 1) / pieces; ++i) to[i] += from[i];
      }
    });
  }

 private:
  float* result_;
  int64_t batch_, length_, parts_;
  std::unique_ptr<float[]> partial_;
};

}  // namespace facefit
