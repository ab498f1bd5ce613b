// A block of rows and a chunk of steps: what a core works on at once.
#pragma once
#include <algorithm>

#include "recurrent/cpu_weights.h"

namespace emix::recurrent {

inline constexpr int64_t kBlockRows = 16, kChunkSteps = 8, kChunkRows = kBlockRows * kChunkSteps;

// Rows first .. first + rows - 1 of the [B n] rows, `steps` steps from `start` on. In its arrays row r of step s lies
// at s * stride + r; rows from `rows` to `stride` are absent and only fill the products' tiles.
struct Chunk {
  int64_t first, rows, stride, start = 0, steps = 0;

  Chunk(const Sequence& p, int64_t first_row)
      : first(first_row), rows(std::min(kBlockRows, p.rows() - first_row)), stride(padded(rows, kPadRows)) {}

  EMIX_HD int64_t size() const { return steps * stride; }

  // f(place, b, t, i) for each row and step that is there; a step's rows lie side by side in most tensors.
  template <class Each>
  EMIX_HD void for_each(const Sequence& p, const Each& each) const {
    int64_t b[kBlockRows], i[kBlockRows];
    for (int64_t r = 0; r < rows; ++r) b[r] = (first + r) / p.agents, i[r] = (first + r) % p.agents;
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t r = 0; r < rows; ++r) each(s * stride + r, b[r], start + s, i[r]);
  }
};

}  // namespace emix::recurrent
