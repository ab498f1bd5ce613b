// On the GPU, the weights' gradients: sums over all rows and steps of (what a layer read) x (the gradient of its sums).
// A fixed number of partial sums, which depends on the shape alone, then their sum in order: bitwise repeatable.
#pragma once
#include "recurrent/cuda_walk.h"

namespace emix::recurrent {

inline constexpr int kTile = 64, kSide = 4, kSumDepth = 16;  // a tile is 64 x 64, a thread's part 4 x 4
inline constexpr int64_t kSlice = 512, kMaxSlices = 64;  // rows x steps of a partial sum, unless there were too many
inline constexpr int kJobs = 4;

enum Layer { kInputGates, kHiddenGates, kLast, kFirst };

// One layer's weights [columns, width] and bias [columns].
struct Job {
  Layer layer = kInputGates;
  int64_t width = 0, columns = 0;
  void *weight = nullptr, *bias = nullptr;
  int64_t offset = 0;  // of its partial sums [width + 1, columns] in a slice's
  int64_t first_tile = 0;

  EMIX_HD static int64_t tiles_of(int64_t size) { return (size + kTile - 1) / kTile; }
};

struct Jobs {
  Job job[kJobs];
  int count = 0;
  int64_t tiles = 0, elements = 0, slices = 0, slice = 0;

  Jobs(const Sequence& p, const Gradients& g) {
    add(kInputGates, p.encoded(), 3 * p.hidden, g.w_ih, g.b_ih);
    add(kHiddenGates, p.hidden, 3 * p.hidden, g.w_hh, g.b_hh);
    if (p.is_agent) {
      add(kLast, p.hidden, p.actions, g.w_out, g.b_out);
      add(kFirst, p.in_columns(), p.hidden, g.w_in, g.b_in);
    }
    const int64_t depth = p.time * p.rows();
    slice = (depth + kMaxSlices - 1) / kMaxSlices;
    slice = slice < kSlice ? kSlice : slice;
    slices = (depth + slice - 1) / slice;
  }

 private:
  void add(Layer layer, int64_t width, int64_t columns, void* weight, void* bias) {
    job[count++] = {layer, width, columns, weight, bias, elements, tiles};
    elements += (width + 1) * columns;
    tiles += Job::tiles_of(width + (width == 0)) * Job::tiles_of(columns);  // a bias without weights needs one, too
  }
};

// Number k of the [T, B n]: what a layer read, and what came back.
template <class F>
struct Terms {
  const Sequence& p;
  const Gradients& g;
  const Work<F>& work;

  __device__ __forceinline__ F left(Layer layer, int64_t k, int64_t m) const {
    const int64_t t = k / p.rows(), row = k % p.rows(), b = row / p.agents, i = row % p.agents;
    if (layer == kLast ? !work.asked[k] : !work.reached[k]) return 0;  // whatever lies there, NaN too
    if (layer == kLast) return g.h.row<F>(b, t, i)[m];
    if (layer == kHiddenGates) {
      if (t > 0) return g.h.row<F>(b, t - 1, i)[m];
      return p.h0 ? static_cast<const F*>(p.h0)[row * p.hidden + m] : F(0);
    }
    if (layer == kInputGates && p.is_agent) return static_cast<const F*>(g.saved)[k * p.saved() + 4 * p.hidden + m];
    if (m < p.inputs) return p.x.row<F>(b, t, i)[m];
    if (m < p.inputs + p.action_columns)
      return p.last_action[(b * p.time + t) * p.agents + i] == m - p.inputs ? F(1) : F(0);
    return i == m - p.inputs - p.action_columns ? F(1) : F(0);
  }

  __device__ __forceinline__ F grad(Layer layer, int64_t k, int64_t column) const {
    if (layer == kInputGates) return work.gate[k * 4 * p.hidden + column];
    if (layer == kHiddenGates) return work.gate[k * 4 * p.hidden + p.hidden + column];
    if (layer == kFirst) return work.e[k * p.hidden + column];
    const int64_t t = k / p.rows(), row = k % p.rows(), b = row / p.agents, i = row % p.agents;
    return g.out ? static_cast<const F*>(g.out)[((b * p.time + t) * p.agents + i) * p.actions + column] : F(0);
  }
};

template <class F>
__global__ void __launch_bounds__(kThreads)
    sum_slices(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
               const __grid_constant__ Work<F> work, const __grid_constant__ Jobs jobs, F* partial) {
  const Shared<F> left(0, kSumDepth * kTile), right(kSumDepth * kTile * sizeof(F), kSumDepth * kTile);
  const Terms<F> terms{p, g, work};
  const int64_t tile = blockIdx.x % jobs.tiles, slice = blockIdx.x / jobs.tiles;
  int which = jobs.count - 1;
  while (jobs.job[which].first_tile > tile) --which;
  const Job& job = jobs.job[which];
  const int64_t across = Job::tiles_of(job.columns), first_m = (tile - job.first_tile) / across * kTile,
                first_n = (tile - job.first_tile) % across * kTile;
  const int64_t begin = slice * jobs.slice, total = p.time * p.rows(),
                end = begin + jobs.slice < total ? begin + jobs.slice : total;
  const int ty = threadIdx.x / (kTile / kSide), tx = threadIdx.x % (kTile / kSide);
  F sum[kSide][kSide] = {}, bias[kSide] = {};
  for (int64_t k = begin; k < end; k += kSumDepth) {
    for (int at = threadIdx.x; at < kSumDepth * kTile; at += kThreads) {
      const int64_t place = k + at / kTile, m = first_m + at % kTile, n = first_n + at % kTile;
      left[at] = place < end && m < job.width ? terms.left(job.layer, place, m) : F(0);
      right[at] = place < end && n < job.columns ? terms.grad(job.layer, place, n) : F(0);
    }
    block_barrier();
#pragma unroll
    for (int d = 0; d < kSumDepth; ++d) {
      F a[kSide], b[kSide];
#pragma unroll
      for (int i = 0; i < kSide; ++i) a[i] = left[d * kTile + ty * kSide + i], b[i] = right[d * kTile + tx * kSide + i];
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        bias[j] += b[j];
#pragma unroll
        for (int i = 0; i < kSide; ++i) sum[i][j] += a[i] * b[j];
      }
    }
    block_barrier();
  }
  F* out = partial + slice * jobs.elements + job.offset;
#pragma unroll
  for (int j = 0; j < kSide; ++j) {
    const int64_t n = first_n + tx * kSide + j;
    if (n >= job.columns) continue;
    if (first_m == 0 && ty == 0) out[job.width * job.columns + n] = bias[j];
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      const int64_t m = first_m + ty * kSide + i;
      if (m < job.width) out[m * job.columns + n] = sum[i][j];
    }
  }
}

template <class F>
__global__ void __launch_bounds__(kThreads)
    add_slices(const __grid_constant__ Sequence p, const __grid_constant__ Jobs jobs, const F* partial) {
  for (int64_t k = thread_index(); k < jobs.elements; k += thread_count()) {
    F sum = 0;
    for (int64_t slice = 0; slice < jobs.slices; ++slice) sum += partial[slice * jobs.elements + k];
    int which = jobs.count - 1;
    while (jobs.job[which].offset > k) --which;
    const Job& job = jobs.job[which];
    const int64_t m = (k - job.offset) / job.columns;
    int64_t n = (k - job.offset) % job.columns;
    if (job.layer == kInputGates) n = n < p.hidden ? n + 2 * p.hidden : n - p.hidden;  // torch's place of n, r, z
    if (m == job.width)
      static_cast<F*>(job.bias)[n] = sum;
    else
      static_cast<F*>(job.weight)[n * job.width + m] = sum;
  }
}

}  // namespace emix::recurrent
