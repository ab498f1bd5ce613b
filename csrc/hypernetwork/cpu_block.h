// What a core works on at once: a block of rows, with one member's weights in the second cache from a block to the next.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu_memory.h"
#include "cpu_product.h"
#include "hypernetwork/hypernetwork.h"

namespace emix::hypernetwork {

inline constexpr int64_t kBlockRows = 128;

inline int64_t blocks(const Hypernetwork& p) { return (p.rows + kBlockRows - 1) / kBlockRows; }

// Each member's matrix [rows, columns] transposed, its rows spread.
template <class F>
class TransposedMatrices {
 public:
  TransposedMatrices(const void* data, int64_t members, int64_t rows, int64_t columns)
      : stride(spread(rows)), depth_(columns) {
    memory_.allocate([&] { data_ = memory_.take(members * columns * stride); });
    for (int64_t member = 0; member < members; ++member)
      transpose(static_cast<const F*>(data) + member * rows * columns, rows, columns, columns,
                data_ + member * columns * stride, stride);
  }

  const F* member(int64_t i) const { return data_ + i * depth_ * stride; }
  const int64_t stride;

 private:
  int64_t depth_;
  Memory<F> memory_;
  F* data_ = nullptr;
};

// The rows of one block, and where they lie.
struct Block {
  int64_t first = 0, rows = 0;

  Block(const Hypernetwork& p, int64_t index) : first(index * kBlockRows), rows(std::min(kBlockRows, p.rows - first)) {}

  EMIX_HD int64_t tiled() const { return padded(rows, kPadRows); }

  // Whether rows of so many elements can be a product's operand, or its result, where they lie.
  EMIX_HD bool in_place(int64_t size) const { return size % kColumns == 0 && rows % kPadRows == 0; }

  template <class F>
  EMIX_HD void load_state(const Hypernetwork& p, F* state, int64_t stride) const {
    for (int64_t r = 0; r < rows; ++r) memcpy(state + r * stride, p.state.row<F>(first + r), p.states * sizeof(F));
  }
};

}  // namespace emix::hypernetwork
