// Memory of large results and of what is needed on the way to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace facefit {

// Asks for huge pages where `data` is large. XLA allocates its results anew at every call, and beyond some ten megabytes
// the C library has given the memory back to the system in between: then the first touch of every 4 KiB costs more than
// what is drawn there. (NumPy does the same for its arrays.)
inline void expect_large(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const size_t page = 4096, least = 1 << 21;
  if (bytes < least) return;
  const size_t skipped = (page - (uintptr_t)data % page) % page;
  madvise((char*)data + skipped, (bytes - skipped) / page * page, MADV_HUGEPAGE);  // advice: nothing is lost if refused
#endif
}

// The same for results of the FFI.
template <typename... Results>
inline void expect_large_results(Results&... results) {
  (expect_large(results->untyped_data(), results->size_bytes()), ...);
}

// Numbers that whoever fills them first is the first to touch: nothing writes zeros before that.
template <typename T>
class Array {
 public:
  static_assert(std::is_trivially_default_constructible<T>::value, "begins as whatever is there");
  explicit Array(int64_t size) : data_(new T[size]) { expect_large(data_.get(), size * sizeof(T)); }
  T* data() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  std::unique_ptr<T[]> data_;
};

}  // namespace facefit
