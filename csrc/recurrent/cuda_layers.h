// The products that no step waits for: the agent's layers and the input's part of the gates before the walk over time,
// or after it, for all steps at once. A block takes 64 of the [T, B n] and 64 of the columns of a result.
#pragma once
#include "recurrent/cuda_stage.h"

namespace emix::recurrent {

// The block's places among the [T, B n], where they lie elsewhere, and its columns.
template <class Stage>
struct Places {
  int64_t first, first_column;
  int count;
  Shared<int64_t> x_offset, cell, agent;  // in x; in units of [B, T, n]; of the n
  Stage stage;

  static constexpr int kBytes = 3 * kSquare * int(sizeof(int64_t)) + Stage::kBytes;

  static EMIX_HD int64_t tiles(int64_t size) { return (size + kSquare - 1) / kSquare; }

  __device__ __forceinline__ Places(const Sequence& p, int64_t columns)
      : first(int64_t(blockIdx.x) / tiles(columns) * kSquare),
        first_column(int64_t(blockIdx.x) % tiles(columns) * kSquare),
        count(static_cast<int>(p.time * p.rows() - first < kSquare ? p.time * p.rows() - first : kSquare)),
        x_offset(0, kSquare),
        cell(kSquare * sizeof(int64_t), kSquare),
        agent(2 * kSquare * sizeof(int64_t), kSquare),
        stage(3 * kSquare * sizeof(int64_t)) {
    if (static_cast<int>(threadIdx.x) < count) {
      const int64_t t = (first + threadIdx.x) / p.rows(), row = (first + threadIdx.x) % p.rows();
      const int64_t b = row / p.agents, i = row % p.agents;
      x_offset[threadIdx.x] = b * p.x.stride[0] + t * p.x.stride[1] + i * p.x.stride[2];
      cell[threadIdx.x] = (b * p.time + t) * p.agents + i;
      agent[threadIdx.x] = i;
    }
  }
};

// store(m, column, sum over k of left(k, m) right(k, column)) for the places m and the block's columns.
// kRightAlongDepth: neighbours in k are neighbours in right's memory.
template <bool kRightAlongDepth, class Stage, class Left, class Right, class Store>
__device__ __forceinline__ void layer(const Places<Stage>& at, int64_t depth, int64_t columns, const Left& left,
                                      const Right& right, const Store& store) {
  using F = typename Stage::Number;
  const int width = static_cast<int>(columns - at.first_column < kSquare ? columns - at.first_column : kSquare);
  typename Stage::Sums sum = {};
  accumulate<true, kRightAlongDepth>(
      at.stage, sum, depth, [&](int64_t k, int m) { return m < at.count ? left(k, m) : F(0); },
      [&](int64_t k, int n) { return n < width ? right(k, at.first_column + n) : F(0); }, [](const auto&) {});
  at.stage.each(sum, [&](int m, int n, F total) {
    if (m < at.count && n < width) store(m, at.first_column + n, total);
  });
}

// e of the agent.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_encode(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int64_t H = p.hidden, C = p.in_columns();
  const int width = static_cast<int>(p.saved());
  const Places<Stage> at(p, H);
  const F *w_encode = static_cast<const F*>(p.w_encode), *b_encode = static_cast<const F*>(p.b_encode),
          *data = static_cast<const F*>(p.x.data);
  F* saved = static_cast<F*>(out.saved) + at.first * width;
  layer<true>(
      at, p.inputs, H, [&](int64_t k, int m) { return data[at.x_offset[m] + k]; },
      [&](int64_t k, int64_t j) { return w_encode[j * C + k]; },
      [&](int m, int64_t j, F sum) {
        sum += b_encode[j];
        const int64_t action = p.action_columns ? p.last_action[at.cell[m]] : -1;
        if (action >= 0 && action < p.action_columns) sum += Stage::rounded(w_encode[j * C + p.inputs + action]);
        if (p.id_columns) sum += Stage::rounded(w_encode[j * C + p.inputs + p.action_columns + at.agent[m]]);
        saved[m * width + 4 * H + j] = sum < 0 ? F(0) : sum;  // a NaN stays one
      });
}

// The gates' sums but for h_{t-1}'s part, into `saved`.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_gates(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int64_t H = p.hidden, E = p.encoded();
  const int width = static_cast<int>(p.saved());
  const Places<Stage> at(p, 3 * H);
  const F *w_ih = static_cast<const F*>(p.w_ih), *b_ih = static_cast<const F*>(p.b_ih),
          *b_hh = static_cast<const F*>(p.b_hh);
  F* saved = static_cast<F*>(out.saved) + at.first * width;
  const F* data = p.is_agent ? saved + 4 * H : static_cast<const F*>(p.x.data);
  layer<true>(
      at, E, 3 * H, [&](int64_t k, int m) { return data[(p.is_agent ? m * width : at.x_offset[m]) + k]; },
      [&](int64_t k, int64_t column) { return w_ih[torch_gate(column, H) * E + k]; },
      [&](int m, int64_t column, F sum) {
        const int64_t j = torch_gate(column, H);
        saved[m * width + column] = sum + b_ih[j] + (column < H ? F(0) : b_hh[j]);
      });
}

// The agent's q from h in `saved`.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_head(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int H = static_cast<int>(p.hidden), width = static_cast<int>(p.saved());
  const Places<Stage> at(p, p.actions);
  const F *w_head = static_cast<const F*>(p.w_head), *b_head = static_cast<const F*>(p.b_head),
          *saved = static_cast<const F*>(out.saved) + at.first * width;
  layer<true>(
      at, H, p.actions, [&](int64_t k, int m) { return saved[m * width + 5 * H + k]; },
      [&](int64_t k, int64_t a) { return w_head[a * H + k]; },
      [&](int m, int64_t a, F sum) { static_cast<F*>(out.out)[at.cell[m] * p.actions + a] = sum + b_head[a]; });
}

// The agent's dL/dh from dL/dq.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_head_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                    const __grid_constant__ Work<F> work) {
  const int64_t H = p.hidden;
  const Places<Stage> at(p, H);
  const F *above = static_cast<const F*>(g.out), *w_head = static_cast<const F*>(p.w_head);
  const auto q_grad = [&](int64_t a, int m) { return above ? above[at.cell[m] * p.actions + a] : F(0); };
  layer<false>(
      at, p.actions, H, q_grad, [&](int64_t a, int64_t j) { return w_head[a * H + j]; },
      [&](int m, int64_t j, F sum) { work.h[(at.first + m) * H + j] = sum; });
  if (at.first_column > 0 || static_cast<int>(threadIdx.x) >= at.count) return;
  bool asked = false;
  for (int64_t a = 0; a < p.actions; ++a) asked |= q_grad(a, threadIdx.x) != 0;
  work.asked[at.first + threadIdx.x] = asked;
}

// What comes back through the gates: to the first layer's sums of the agent, or to x.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_gates_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                     const __grid_constant__ Work<F> work) {
  const int64_t H = p.hidden, E = p.encoded();
  const int width = static_cast<int>(p.saved()), gates = static_cast<int>(kGates * H);
  const Places<Stage> at(p, E);
  const F *w_ih = static_cast<const F*>(p.w_ih), *grads = work.gate + at.first * 4 * H,
          *e = static_cast<const F*>(g.saved) + at.first * width + 4 * H;
  layer<false>(
      at, 3 * H, E, [&](int64_t k, int m) { return grads[m * gates + k]; },  // n, r, z
      [&](int64_t k, int64_t j) { return w_ih[torch_gate(k, H) * E + j]; },
      [&](int m, int64_t j, F sum) {
        if (p.is_agent)
          work.e[(at.first + m) * H + j] = e[m * width + j] > 0 ? sum : F(0);
        else
          static_cast<F*>(g.x)[at.cell[m] * p.inputs + j] = sum;
      });
}

// From the first layer's sums to x of the agent.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, 2)
    layer_encode_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                      const __grid_constant__ Work<F> work) {
  const int64_t H = p.hidden, C = p.in_columns();
  const Places<Stage> at(p, p.inputs);
  const F *w_encode = static_cast<const F*>(p.w_encode), *grads = work.e + at.first * H;
  layer<false>(
      at, H, p.inputs, [&](int64_t k, int m) { return grads[m * H + k]; },
      [&](int64_t k, int64_t j) { return w_encode[k * C + j]; },
      [&](int m, int64_t j, F sum) { static_cast<F*>(g.x)[at.cell[m] * p.inputs + j] = sum; });
}

}  // namespace emix::recurrent
