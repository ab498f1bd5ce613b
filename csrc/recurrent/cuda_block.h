// What the GPU's kernels share: a block's threads, where a row of the batch lies, and what the backward walk leaves.
#pragma once
#include "recurrent/recurrent.h"

namespace emix::recurrent {

inline constexpr int kThreads = 256;

// Four numbers, loaded at once.
template <class F>
struct alignas(16) Quad {
  F row[4];
};

// Where a row of the batch lies.
struct WalkRow {
  int64_t row, cell;  // of the B n; at step 0 in units of [B, T, n]
  int64_t b, agent;

  __device__ __forceinline__ WalkRow(const Sequence& p, int64_t row)
      : row(row), cell(row / p.agents * p.time * p.agents + row % p.agents), b(row / p.agents), agent(row % p.agents) {}
};

// What the backward walk leaves for the layers and for the sums over all rows and steps, each [T, B n, ...].
template <class F>
struct Work {
  F* gate = nullptr;  // [4 H]: dL/d(the gates' sums)
  F* e = nullptr;     // [encoded]: dL/d(the sums of the first layer), or dL/dx
  F* h = nullptr;     // [H]: the last layer's part of dL/dh
  // Whether any gradient reaches a step's gates, and its q: what a step read is not looked at where not
  uint8_t *reached = nullptr, *asked = nullptr;
};

// torch's place of a gate's column, r, z, n, for n, r, z.
__device__ __forceinline__ int64_t torch_gate(int64_t column, int64_t hidden) {
  return column < hidden ? column + 2 * hidden : column - hidden;
}

}  // namespace emix::recurrent
