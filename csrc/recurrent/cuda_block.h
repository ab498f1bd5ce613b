// A block of threads takes kRows rows, kChunk steps at once, and multiplies what it finds there by weights.
#pragma once
#include "recurrent/recurrent.h"

namespace emix::recurrent {

inline constexpr int kThreads = 256, kRows = 4, kChunk = 4, kDepth = 64;  // kDepth: staged at once of a product's depth
// Where each thread has units of its own: threads of a row, and units of a thread, at most.
inline constexpr int kRowThreads = kThreads / kRows, kUnits = kMaxHidden / kRowThreads;
static_assert(kChunk * kDepth >= kThreads, "add_carry keeps a sum of each thread in `stage`");

// One number of each of the block's rows: loaded at once.
template <class F>
struct alignas(16) Quad {
  F row[kRows];
};

// Where a row of the batch lies.
struct WalkRow {
  int64_t row, cell;  // of the B n; at step 0 in units of [B, T, n]
  int64_t b, agent;

  __device__ __forceinline__ WalkRow(const Sequence& p, int64_t row)
      : row(row), cell(row / p.agents * p.time * p.agents + row % p.agents), b(row / p.agents), agent(row % p.agents) {}
};

// The block's rows, and its parts of shared memory.
template <class F>
struct Place {
  int64_t first, start = 0;  // row, step
  int rows, steps = 0;
  Shared<int64_t> x_offset, cell;  // of a row at step 0: in x, and in units of [B, T, n]
  Shared<int> reached;             // backward: whether a gradient reaches the row at this step
  Shared<Quad<F>> state, gate, stage;
  Shared<F> weights;

  static constexpr int kPerRow = kRows * (2 * sizeof(int64_t) + sizeof(int));
  static_assert(kPerRow % alignof(Quad<F>) == 0);

  // Bytes without the weights, which come last.
  static EMIX_HD int bytes(int64_t hidden) { return kPerRow + (4 * hidden + kChunk * kDepth) * sizeof(Quad<F>); }

  __device__ __forceinline__ Place(const Sequence& p, bool with_weights)
      : first(int64_t(blockIdx.x) * kRows),
        rows(static_cast<int>(p.rows() - first < kRows ? p.rows() - first : kRows)),
        x_offset(0, kRows),
        cell(kRows * sizeof(int64_t), kRows),
        reached(2 * kRows * sizeof(int64_t), kRows),
        state(kPerRow, p.hidden),
        gate(kPerRow + p.hidden * sizeof(Quad<F>), 3 * p.hidden),
        stage(kPerRow + 4 * p.hidden * sizeof(Quad<F>), kChunk * kDepth),
        weights(bytes(p.hidden), with_weights ? 3 * p.hidden * p.hidden : 0) {
    if (static_cast<int>(threadIdx.x) < rows) {
      const int64_t b = (first + threadIdx.x) / p.agents, i = (first + threadIdx.x) % p.agents;
      x_offset[threadIdx.x] = b * p.x.stride[0] + i * p.x.stride[2];
      cell[threadIdx.x] = b * p.time * p.agents + i;
    }
  }

  __device__ __forceinline__ void keep_weights(const F* from, int64_t hidden) const {
    for (int k = threadIdx.x; k < 3 * hidden * hidden; k += kThreads) weights[k] = from[k];
  }

  // f(i, unit, row) for this thread's share of the block's units, its i-th: kRowThreads apart in one row.
  template <class Function>
  __device__ __forceinline__ void each_unit(int hidden, const Function& f) const {
    const int row = static_cast<int>(threadIdx.x) / kRowThreads;
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const int unit = static_cast<int>(threadIdx.x) % kRowThreads + i * kRowThreads;
      if (unit < hidden) f(i, unit, row);
    }
  }

  // Row r's number at step t among the [B, T, n], and among the [T, B n] of what is saved.
  __device__ __forceinline__ int64_t cell_at(const Sequence& p, int s, int r) const {
    return cell[r] + (start + s) * p.agents;
  }
  __device__ __forceinline__ int64_t saved_at(const Sequence& p, int s, int r) const {
    return (start + s) * p.rows() + first + r;
  }
};

// store(column, s, r, sum over k of load(k, s, r) B(k, column)) for the chunk's steps s and rows r. B [depth, stride]
// is read once for kPer steps.
template <int kPer, class F, class Load, class Store>
__device__ __forceinline__ void chunk_product(const Place<F>& at, int64_t depth, const F* b, int64_t stride,
                                              int64_t columns, const Load& load, const Store& store) {
  constexpr int kWidth = kThreads / (kChunk / kPer);
  const int group = threadIdx.x / kWidth * kPer;
  for (int64_t first = 0; first < columns; first += kWidth) {
    const int64_t column = first + threadIdx.x % kWidth;
    F sum[kPer][kRows] = {};
    for (int64_t from = 0; from < depth; from += kDepth) {
      const int count = static_cast<int>(depth - from < kDepth ? depth - from : kDepth);
      block_barrier();
      for (int k = threadIdx.x; k < kChunk * kRows * kDepth; k += kThreads) {
        const int d = k % kDepth, r = k / kDepth % kRows, s = k / (kDepth * kRows);
        at.stage[s * kDepth + d].row[r] = d < count && s < at.steps && r < at.rows ? load(from + d, s, r) : F(0);
      }
      block_barrier();
      if (column >= columns) continue;
#pragma unroll 4
      for (int d = 0; d < count; ++d) {
        const F right = b[(from + d) * stride + column];
#pragma unroll
        for (int s = 0; s < kPer; ++s) {
          const Quad<F> left = at.stage[(group + s) * kDepth + d];
#pragma unroll
          for (int r = 0; r < kRows; ++r) sum[s][r] += left.row[r] * right;
        }
      }
    }
    if (column >= columns) continue;
#pragma unroll
    for (int s = 0; s < kPer; ++s)
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (group + s < at.steps && r < at.rows) store(column, group + s, r, sum[s][r]);
  }
  block_barrier();
}

// The same with as many threads at work as there are columns for.
template <class F, class Load, class Store>
__device__ __forceinline__ void product(const Place<F>& at, int64_t depth, const F* b, int64_t stride, int64_t columns,
                                        const Load& load, const Store& store) {
  if (columns <= kThreads / kChunk)
    chunk_product<1>(at, depth, b, stride, columns, load, store);
  else
    chunk_product<kChunk>(at, depth, b, stride, columns, load, store);
}

}  // namespace emix::recurrent
