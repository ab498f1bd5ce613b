// A core's own memory, and what is copied there and back.
#pragma once
#include <cstring>
#include <memory>

#include "device.h"

namespace emix {

inline constexpr int64_t kColumns = 16;  // columns of a matrix in such memory are padded to a multiple of this
inline constexpr int64_t kPadRows = 8;   // and the rows of a product's result to a multiple of this

EMIX_HD int64_t padded(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

// Elements from a row to the next where a product goes down many rows of a few columns: an odd number of cache lines, or
// the rows would share a few of the first cache's sets and push each other out.
EMIX_HD int64_t spread(int64_t columns) { return (padded(columns, kColumns) / kColumns | 1) * kColumns; }

// One allocation, handed out in parts that begin at a cache line.
template <class F>
class Memory {
 public:
  F* take(int64_t elements) { return storage_ ? storage_.get() + claim(elements) : (claim(elements), nullptr); }

  // Calls `layout` twice: to count, and to hand out zeros.
  template <class Layout>
  void allocate(const Layout& layout) {
    layout();
    storage_.reset(new F[used_]());
    used_ = 0;
    layout();
  }

  void clear() { memset(static_cast<void*>(storage_.get()), 0, used_ * sizeof(F)); }

 private:
  int64_t claim(int64_t elements) {
    const int64_t at = used_;
    used_ += padded(elements, 64 / sizeof(F));
    return at;
  }

  std::unique_ptr<F[]> storage_;
  int64_t used_ = 0;
};

template <class F>
EMIX_HD void transpose(const F* from, int64_t rows, int64_t columns, int64_t from_stride, F* to, int64_t to_stride) {
  constexpr int64_t kTile = 16;
  for (int64_t j = 0; j < columns; j += kTile)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = j; k < j + kTile && k < columns; ++k) to[k * to_stride + i] = from[i * from_stride + k];
}

template <class F>
EMIX_HD void copy(const F* from, int64_t rows, int64_t columns, int64_t from_stride, F* to, int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) memcpy(to + i * to_stride, from + i * from_stride, columns * sizeof(F));
}

// A matrix [rows, columns] with its rows padded, or spread: the given one where they are so already, else a copy.
template <class F>
class PaddedMatrix {
 public:
  PaddedMatrix(const void* data, int64_t rows, int64_t columns, bool is_spread = false)
      : stride(is_spread ? spread(columns) : padded(columns, kColumns)), data_(static_cast<const F*>(data)) {
    if (stride == columns) return;
    F* copied = nullptr;
    memory_.allocate([&] { copied = memory_.take(rows * stride); });
    copy(static_cast<const F*>(data), rows, columns, columns, copied, stride);
    data_ = copied;
  }

  const F* row(int64_t i) const { return data_ + i * stride; }
  const int64_t stride;

 private:
  const F* data_;
  Memory<F> memory_;
};

}  // namespace emix
