// On the GPU, the weights' gradients: sums over all rows and steps of (what a layer read) x (the gradient of its sums).
// A block adds up a tile of a layer's weights over a slice of the [T, B n]; the slices, whose number depends on the
// shapes alone, are then added in order: bitwise repeatable. Gradients of biases, which are no products, are never
// rounded.
#pragma once
#include "recurrent/cuda_stage.h"

namespace emix::recurrent {

inline constexpr int64_t kSumBlocks = 384, kSlice = 64;  // as many as a large GPU has room for; rows x steps at least
inline constexpr int kJobs = 4;

enum Layer { kInputGates, kHiddenGates, kLast, kFirst };

// One layer's weights [columns, width] and bias [columns].
struct Job {
  Layer layer = kInputGates;
  int64_t width = 0, columns = 0;
  void *weight = nullptr, *bias = nullptr;
  int64_t offset = 0;  // of its partial sums [width + 1, columns] in a slice's
  int64_t first_tile = 0;

  EMIX_HD static int64_t tiles_of(int64_t size) { return (size + kSquare - 1) / kSquare; }
};

struct Jobs {
  Job job[kJobs];
  int count = 0;
  int64_t tiles = 0, elements = 0, slices = 0, slice = 0;

  Jobs(const Sequence& p, const Gradients& g) {
    add(kInputGates, p.encoded(), 3 * p.hidden, g.w_ih, g.b_ih);
    add(kHiddenGates, p.hidden, 3 * p.hidden, g.w_hh, g.b_hh);
    if (p.is_agent) {
      add(kLast, p.hidden, p.actions, g.w_head, g.b_head);
      add(kFirst, p.in_columns(), p.hidden, g.w_encode, g.b_encode);
    }
    const int64_t depth = p.time * p.rows();
    const int64_t most = tiles < kSumBlocks ? kSumBlocks / tiles : 1;
    slice = (depth + most - 1) / most;
    slice = slice < kSlice ? kSlice : slice;
    slices = (depth + slice - 1) / slice;
  }

  EMIX_HD int of_tile(int64_t tile) const {
    int which = count - 1;
    while (job[which].first_tile > tile) --which;
    return which;
  }

 private:
  void add(Layer layer, int64_t width, int64_t columns, void* weight, void* bias) {
    job[count++] = {layer, width, columns, weight, bias, elements, tiles};
    elements += (width + 1) * columns;
    tiles += Job::tiles_of(width + (width == 0)) * Job::tiles_of(columns);  // a bias without weights needs one, too
  }
};

// Of one of the [T, B n], where lies what a layer read and what came back.
template <class F>
struct Source {
  const F *left = nullptr, *grad = nullptr;  // nullptr: zeros; whatever lies there, NaN too
  int action = -1, agent = -1;               // inputs of the first layer, behind `left`, that are 1
};

template <class Stage, class F = typename Stage::Number>
inline constexpr int kSumBytes = Stage::kBytes + kThreads * int(sizeof(Source<F>) + sizeof(F));

template <class F>
struct Terms {
  const Sequence& p;
  const Gradients& g;
  const Work<F>& work;
  const Job& job;
  int observed = static_cast<int>(job.layer == kFirst ? p.inputs : job.width);  // of its inputs; the others are one-hot
  int columns = static_cast<int>(job.columns);

  __device__ __forceinline__ Source<F> source(int64_t k) const {
    const int64_t t = k / p.rows(), row = k % p.rows(), b = row / p.agents, i = row % p.agents;
    const int64_t cell = (b * p.time + t) * p.agents + i;
    const bool counts = job.layer == kLast ? work.asked[k] : work.reached[k];
    Source<F> at;
    if (job.layer == kInputGates) {
      at.grad = work.gate + k * 4 * p.hidden;
    } else if (job.layer == kHiddenGates) {
      at.grad = work.gate + k * 4 * p.hidden + p.hidden;
    } else if (job.layer == kFirst) {
      at.grad = work.e + k * p.hidden;
    } else if (g.out) {
      at.grad = static_cast<const F*>(g.out) + cell * p.actions;
    }
    if (!counts) return at;
    if (job.layer == kInputGates && p.is_agent) {
      at.left = static_cast<const F*>(g.saved) + k * p.saved() + 4 * p.hidden;
    } else if (job.layer == kInputGates || job.layer == kFirst) {
      at.left = p.x.at<F>(b, t, i);
    } else if (job.layer == kLast || t > 0) {
      at.left = g.h.at<F>(b, job.layer == kLast ? t : t - 1, i);
    } else if (p.h0) {
      at.left = static_cast<const F*>(p.h0) + row * p.hidden;
    }
    if (job.layer != kFirst) return at;
    const int64_t action = p.action_columns ? p.last_action[cell] : -1;
    if (action >= 0 && action < p.action_columns) at.action = static_cast<int>(observed + action);
    if (p.id_columns) at.agent = static_cast<int>(observed + p.action_columns + i);
    return at;
  }

  __device__ __forceinline__ Element<F> left(const Source<F>& at, int m) const {
    return {at.left + m, at.left != nullptr && m < observed};
  }
  __device__ __forceinline__ Element<F> grad(const Source<F>& at, int column) const {
    return {at.grad + column, at.grad != nullptr && column < columns};
  }
};

// The left side of a sum: what the layer read, and behind what was observed the first one's one-hot inputs.
template <class Stage, class Number>
class Inputs : public Across<Stage, Number> {
 public:
  using F = typename Stage::Number;

  __device__ __forceinline__ Inputs(const Number& number, const Shared<Source<F>>& sources, bool is_one_hot, int m)
      : Across<Stage, Number>(number), sources_(sources), is_one_hot_(is_one_hot), m_(m) {}

  __device__ __forceinline__ void fetch(typename Stage::Held& held, int64_t from, int count) const {
    Across<Stage, Number>::fetch(held, from, count);
    if (!is_one_hot_) return;
#pragma unroll
    for (int i = 0; i < Stage::kLines * Stage::kOfLine; ++i) {
      const Source<F>& at = sources_[static_cast<int>(from) + Stage::depth_across(i)];
      held[i] = F((m_ == at.action) | (m_ == at.agent));
    }
  }

 private:
  const Shared<Source<F>>& sources_;
  bool is_one_hot_;
  int m_;
};

// What a block adds up: one tile of the jobs over one slice of the [T, B n].
struct Part {
  int64_t slice, begin, end;
  const Job& job;
  int first_m, first_n;

  __device__ __forceinline__ Part(const Jobs& jobs, int64_t total)
      : slice(blockIdx.x / jobs.tiles),
        begin(slice * jobs.slice),
        end(begin + jobs.slice < total ? begin + jobs.slice : total),
        job(jobs.job[jobs.of_tile(blockIdx.x % jobs.tiles)]) {
    const int64_t tile = blockIdx.x % jobs.tiles - job.first_tile, across = Job::tiles_of(job.columns);
    first_m = static_cast<int>(tile / across) * kSquare, first_n = static_cast<int>(tile % across) * kSquare;
  }
};

template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    sum_slices(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
               const __grid_constant__ Work<F> work, const __grid_constant__ Jobs jobs, F* partial) {
  const Stage stage(0);
  const Shared<Source<F>> sources(Stage::kBytes, kThreads);
  const Shared<F> biases(Stage::kBytes + kThreads * sizeof(Source<F>), kThreads);
  const Part part(jobs, p.time * p.rows());
  const Job& job = part.job;
  const Terms<F> terms{p, g, work, job};
  typename Stage::Sums sum = {};
  F bias = 0;  // of column threadIdx.x % kSquare
  const int m = part.first_m + static_cast<int>(threadIdx.x) % kSquare;
  for (int64_t from = part.begin; from < part.end; from += kThreads) {
    const int count = static_cast<int>(part.end - from < kThreads ? part.end - from : kThreads);
    block_barrier();
    sources[threadIdx.x] = static_cast<int>(threadIdx.x) < count ? terms.source(from + threadIdx.x) : Source<F>();
    block_barrier();
    const auto left = [&](int64_t k, int m) { return terms.left(sources[k], part.first_m + m); };
    const auto grad = [&](int64_t k, int n) { return terms.grad(sources[k], part.first_n + n); };
    accumulate(stage, sum, count, Inputs<Stage, decltype(left)>(left, sources, m >= terms.observed, m),
               Across<Stage, decltype(grad)>(grad), [&](const auto& grads) { bias += Stage::total(grads); });
  }
  biases[threadIdx.x] = bias;
  block_barrier();
  F* out = partial + part.slice * jobs.elements + job.offset;
  stage.each(sum, [&](int row, int column, F total) {
    const int64_t m = part.first_m + row, n = part.first_n + column;
    if (m < job.width && n < job.columns) out[m * job.columns + n] = total;
  });
  const int64_t n = part.first_n + threadIdx.x;
  if (part.first_m != 0 || threadIdx.x >= kSquare || n >= job.columns) return;
  F total = 0;
  for (int k = threadIdx.x; k < kThreads; k += kSquare) total += biases[k];
  out[job.width * job.columns + n] = total;
}

template <class F>
__global__ void __launch_bounds__(kThreads)
    add_slices(const __grid_constant__ Sequence p, const __grid_constant__ Jobs jobs, const F* partial) {
  for (int64_t k = thread_index(); k < jobs.elements; k += thread_count()) {
    F sum = 0;
#pragma unroll 8
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
