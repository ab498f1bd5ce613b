// mixing on the GPU, one launch each. A row is one step of one episode. linear: eight lanes share a row. expected: a
// warp takes a row, eight lanes an agent, so that few actions leave few lanes idle. monotonic: a warp takes a row, a
// lane a hidden unit, so that w1, nearly all of the bytes, is read in whole lines.
#include "cuda_stream.h"
#include "mixing/ops.h"

namespace emix::mixing {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, so that 16 warps keep enough loads in flight.
inline constexpr int kBlocks = 4;
inline constexpr int kGroup = 8;  // lanes that share a row (linear) or an agent (expected)

// The sum over the `width` lanes that differ in their lowest bits, in each of them.
template <class F>
__device__ __forceinline__ F group_sum(F value, int width) {
#pragma unroll
  for (int distance = width / 2; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
  return value;
}

template <class T>
__device__ __forceinline__ Wide<T> bias_at(const RowView& bias, int64_t row) {
  return bias.given() ? static_cast<Wide<T>>(*bias.row<T>(row)) : Wide<T>(0);
}

template <class F>
__device__ __forceinline__ F grad_at(const RowView& grad, int64_t row) {
  return grad.given() ? *grad.row<F>(row) : F(1);
}

// Row `row` of a contiguous output; nullptr where it is not wanted.
template <class T>
__device__ __forceinline__ T* output_row(void* data, int64_t row, int64_t elements) {
  return data ? static_cast<T*>(data) + row * elements : nullptr;
}

// Of a row that `kGroup` lanes share, in each of them.
template <class F>
struct WeightedSum {
  F sum, weight_sum;
  __device__ __forceinline__ F mean() const { return sum / divisor(weight_sum); }
};

inline constexpr int kLoads = 4;  // agents of a lane at once, so that their latencies overlap

// Agents first, first + kGroup, ... of a row.
template <class T>
struct Agents {
  using F = Wide<T>;
  T q[kLoads], weight[kLoads];

  __device__ __forceinline__ Agents(const Linear& p, int64_t row, int64_t first) {
    const T *q_row = p.q.row<T>(row) + first, *weight_row = p.weight.row<T>(row) + first;
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const bool there = first + k * kGroup < p.agents;
      q[k] = there ? q_row[k * kGroup] : static_cast<T>(0.0f);
      weight[k] = there ? weight_row[k * kGroup] : static_cast<T>(0.0f);
    }
  }
};

template <class T>
__device__ __forceinline__ WeightedSum<Wide<T>> weighted_sum(const Linear& p, int64_t row, int place) {
  using F = Wide<T>;
  F sum = 0, weight_sum = 0;
  for (int64_t first = place; row < p.rows && first < p.agents; first += kLoads * kGroup) {
    const Agents<T> agents(p, row, first);
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const F u = static_cast<F>(agents.weight[k]);
      if (first + k * kGroup < p.agents) sum += u * static_cast<F>(agents.q[k]), weight_sum += u;
    }
  }
  return {group_sum(sum, kGroup), group_sum(weight_sum, kGroup)};
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks) forward(const __grid_constant__ Linear p, Wide<T>* out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), place = lane % kGroup;
  for (int64_t first = thread_index() / kWarp * (kWarp / kGroup); first < p.rows; first += thread_count() / kGroup) {
    const int64_t row = first + lane / kGroup;
    const Wide<T> bias = row < p.rows ? bias_at<T>(p.bias, row) : Wide<T>(0);
    const auto sum = weighted_sum<T>(p, row, place);
    if (row < p.rows && place == 0) out[row] = sum.mean() + bias;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward(const __grid_constant__ Linear p, const __grid_constant__ LinearGradients g) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), place = lane % kGroup;
  for (int64_t first = thread_index() / kWarp * (kWarp / kGroup); first < p.rows; first += thread_count() / kGroup) {
    const int64_t row = first + lane / kGroup;
    const F grad = row < p.rows ? grad_at<F>(g.grad, row) : F(0);
    const auto sum = weighted_sum<T>(p, row, place);
    if (row >= p.rows) continue;
    F *q_grad = output_row<F>(g.q, row, p.agents), *weight_grad = output_row<F>(g.weight, row, p.agents);
    const F scale = grad / divisor(sum.weight_sum);
    for (int64_t first = place; first < p.agents; first += kLoads * kGroup) {
      const Agents<T> agents(p, row, first);
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        const int64_t i = first + k * kGroup;
        if (i >= p.agents) break;
        q_grad[i] = scale * static_cast<F>(agents.weight[k]);
        weight_grad[i] = scale * (static_cast<F>(agents.q[k]) - sum.mean());
      }
    }
  }
}

// The weights of a row, summed by the warp.
template <class T>
__device__ __forceinline__ Wide<T> weight_divisor(const T* weight, int64_t agents, int lane) {
  Wide<T> sum = 0;
  for (int64_t i = lane; i < agents; i += kWarp) sum += static_cast<Wide<T>>(weight[i]);
  return divisor(group_sum(sum, kWarp));
}

// One action of one agent.
template <class T>
struct Action {
  using F = Wide<T>;
  F pi, q, uncertainty;

  __device__ __forceinline__ Action(const Expected& p, const T* pi_row, const T* q_row, const T* uncertainty_row,
                                    int64_t at)
      : pi(static_cast<F>(pi_row[at])),
        q(static_cast<F>(q_row[at])),
        uncertainty(p.uncertainty.given() ? static_cast<F>(uncertainty_row[at]) : F(1)) {}
  __device__ __forceinline__ F value() const { return uncertainty * q; }
};

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks) forward(const __grid_constant__ Expected p, Wide<T>* out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), place = lane % kGroup;
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    const T *q = p.q.row<T>(row), *pi = p.pi.row<T>(row), *uncertainty = p.uncertainty.row<T>(row),
            *weight = p.weight.row<T>(row);
    const F bias = bias_at<T>(p.bias, row);
    F sum = 0, weight_sum = 0;
    for (int64_t i = lane / kGroup; i < p.agents; i += kWarp / kGroup) {
      const F u = static_cast<F>(weight[i]);
      F expectation = 0;
#pragma unroll 4
      for (int64_t a = place; a < p.actions; a += kGroup) {
        const Action<T> action(p, pi, q, uncertainty, i * p.actions + a);
        expectation += expectation_term(action.pi, action.value());
      }
      sum += u * expectation;
      if (place == 0) weight_sum += u;
    }
    sum = group_sum(sum, kWarp), weight_sum = group_sum(weight_sum, kWarp);
    if (lane == 0) out[row] = sum / divisor(weight_sum) + bias;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward(const __grid_constant__ Expected p, const __grid_constant__ ExpectedGradients g) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), place = lane % kGroup;
  const int64_t elements = p.agents * p.actions;
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    const T *q = p.q.row<T>(row), *pi = p.pi.row<T>(row), *uncertainty = p.uncertainty.row<T>(row),
            *weight = p.weight.row<T>(row);
    T *q_grad = output_row<T>(g.q, row, elements), *pi_grad = output_row<T>(g.pi, row, elements),
      *uncertainty_grad = output_row<T>(g.uncertainty, row, elements);
    F* weight_grad = output_row<F>(g.weight, row, p.agents);  // first each agent's expectation
    const F grad = grad_at<F>(g.grad, row), total = weight_divisor<T>(weight, p.agents, lane), scale = grad / total;
    F sum = 0;
    for (int64_t first = 0; first < p.agents; first += kWarp / kGroup) {
      const int64_t i = first + lane / kGroup;
      const F u = i < p.agents ? static_cast<F>(weight[i]) : F(0);
      F expectation = 0;
#pragma unroll 2
      for (int64_t a = place; a < (i < p.agents ? p.actions : 0); a += kGroup) {
        const int64_t at = i * p.actions + a;
        const Action<T> action(p, pi, q, uncertainty, at);
        expectation += expectation_term(action.pi, action.value());
        if (q_grad) q_grad[at] = static_cast<T>(scale * u * expectation_term(action.pi, action.uncertainty));
        if (pi_grad) pi_grad[at] = static_cast<T>(scale * u * expectation_slope(action.pi, action.value()));
        if (uncertainty_grad) uncertainty_grad[at] = static_cast<T>(scale * u * expectation_term(action.pi, action.q));
      }
      if (!weight_grad) continue;
      expectation = group_sum(expectation, kGroup);
      if (place == 0 && i < p.agents) weight_grad[i] = expectation, sum += u * expectation;
    }
    if (!weight_grad) continue;
    sum = group_sum(sum, kWarp);
    warp_barrier();  // the expectations were written by other lanes
    for (int64_t i = lane; i < p.agents; i += kWarp) weight_grad[i] = scale * (weight_grad[i] - sum / total);
  }
}

// h of hidden unit e.
template <class T>
__device__ __forceinline__ Wide<T> hidden_unit(const Monotonic& p, int64_t row, int64_t e) {
  using F = Wide<T>;
  const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row) + e;
  F h = static_cast<F>(p.b1.row<T>(row)[e]);
#pragma unroll 8
  for (int64_t i = 0; i < p.agents; ++i) h += static_cast<F>(q[i]) * std::fabs(static_cast<F>(w1[i * p.embed]));
  return h;
}

// Of several values, in kernels of their own: the loop over them would cost those of one value registers.
struct Many : Monotonic {};

// A hidden unit is computed once, and the warp sums each value.
template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks) forward(const __grid_constant__ Many p, Wide<T>* out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    const T *w2 = p.w2.row<T>(row), *v = p.v.row<T>(row);
    F* const values = out + row * p.outputs;
    int64_t first = 0;
    do {  // once at least: without hidden units a value is its bias
      const int64_t e = first + lane;
      const F unit = e < p.embed ? elu(hidden_unit<T>(p, row, e)).value : F(0);
      for (int64_t k = 0; k < p.outputs; k += kLoads) {
        T weight[kLoads];
        F before[kLoads];  // in the lane that writes it
#pragma unroll
        for (int j = 0; j < kLoads; ++j) {
          const bool there = k + j < p.outputs, mine = there && lane == (k + j) % kWarp;
          weight[j] = there && e < p.embed ? w2[e * p.outputs + k + j] : static_cast<T>(0.0f);
          before[j] = !mine ? F(0) : first > 0 ? values[k + j] : static_cast<F>(v[k + j]);
        }
#pragma unroll
        for (int j = 0; j < kLoads; ++j) {
          const F sum = group_sum(unit * std::fabs(static_cast<F>(weight[j])), kWarp);
          if (k + j < p.outputs && lane == (k + j) % kWarp) values[k + j] = before[j] + sum;
        }
      }
    } while ((first += kWarp) < p.embed);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks) forward(const __grid_constant__ Monotonic p, Wide<T>* out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    const F bias = bias_at<T>(p.v, row);
    const T* const w2 = p.w2.row<T>(row);
    F sum = 0;
    for (int64_t e = lane; e < p.embed; e += kWarp) {
      const T weight = w2[e];
      sum += elu(hidden_unit<T>(p, row, e)).value * std::fabs(static_cast<F>(weight));
    }
    sum = group_sum(sum, kWarp);
    if (lane == 0) out[row] = sum + bias;
  }
}

template <class T, bool kMany>
__device__ __forceinline__ void monotonic_backward(const Monotonic& p, const MonotonicGradients& g) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row);
    F* q_grad = output_row<F>(g.q, row, p.agents);
    T *w1_grad = output_row<T>(g.w1, row, p.agents * p.embed), *b1_grad = output_row<T>(g.b1, row, p.embed),
      *w2_grad = output_row<T>(g.w2, row, kMany ? p.embed * p.outputs : p.embed);
    const F grad = kMany ? F(0) : grad_at<F>(g.grad, row);
    int64_t first = 0;
    do {  // once at least: without hidden units q's gradient is 0
      const int64_t e = first + lane;
      F h_grad = 0;
      if (e < p.embed) {
        const T* const w2 = p.w2.row<T>(row) + (kMany ? e * p.outputs : e);
        const Elu<F> unit = elu(hidden_unit<T>(p, row, e));
        if constexpr (kMany) {
          const F* const grads = g.grad.row<F>(row);
          for (int64_t k = 0; k < p.outputs; ++k) {
            const F weight = static_cast<F>(w2[k]);
            h_grad += grads[k] * std::fabs(weight);
            if (w2_grad) w2_grad[e * p.outputs + k] = static_cast<T>(with_sign(weight, grads[k] * unit.value));
          }
          h_grad *= unit.slope;
        } else {
          const F weight = static_cast<F>(*w2);
          h_grad = grad * std::fabs(weight) * unit.slope;
          if (w2_grad) w2_grad[e] = static_cast<T>(with_sign(weight, grad * unit.value));
        }
        if (b1_grad) b1_grad[e] = static_cast<T>(h_grad);
      }
      for (int64_t i = 0; i < p.agents; i += kLoads) {
        T weight[kLoads], value[kLoads];
        F before[kLoads];  // from the hidden units before these, in the lane that writes it
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          const bool there = i + k < p.agents;
          weight[k] = there && e < p.embed ? w1[(i + k) * p.embed + e] : static_cast<T>(0.0f);
          value[k] = there ? q[i + k] : static_cast<T>(0.0f);
          before[k] = there && first > 0 && lane == (i + k) % kWarp ? q_grad[i + k] : F(0);
        }
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          if (i + k >= p.agents) break;
          const F w = static_cast<F>(weight[k]);
          if (w1_grad && e < p.embed)
            w1_grad[(i + k) * p.embed + e] = static_cast<T>(with_sign(w, static_cast<F>(value[k]) * h_grad));
          const F sum = group_sum(h_grad * std::fabs(w), kWarp);
          if (lane == (i + k) % kWarp) q_grad[i + k] = before[k] + sum;
        }
      }
    } while ((first += kWarp) < p.embed);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward(const __grid_constant__ Monotonic p, const __grid_constant__ MonotonicGradients g) {
  monotonic_backward<T, false>(p, g);
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward(const __grid_constant__ Many p, const __grid_constant__ MonotonicGradients g) {
  monotonic_backward<T, true>(p, g);
}

int64_t threads(const Linear& p) { return p.rows * kGroup; }
int64_t threads(const Expected& p) { return p.rows * kWarp; }
int64_t threads(const Monotonic& p) { return p.rows * kWarp; }

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T, class Problem>
  void run_forward(const Problem& problem, Wide<T>* out) const {
    if constexpr (std::is_same_v<Problem, Monotonic>)
      if (problem.outputs != 1) return run_forward<T>(Many{problem}, out);
    void (*kernel)(Problem, Wide<T>*) = forward<T>;
    launch("mixing_forward", kernel, blocks_for(threads(problem), kBlock), kBlock, current.stream, problem, out);
  }

  template <class T, class Problem, class Gradients>
  void run_backward(const Problem& problem, const Gradients& gradients) const {
    if constexpr (std::is_same_v<Problem, Monotonic>)
      if (problem.outputs != 1) return run_backward<T>(Many{problem}, gradients);
    void (*kernel)(Problem, Gradients) = backward<T>;
    launch("mixing_backward", kernel, blocks_for(threads(problem), kBlock), kBlock, current.stream, problem, gradients);
  }
};

}  // namespace
}  // namespace emix::mixing

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::mixing::register_ops<emix::mixing::Cuda>(m); }
