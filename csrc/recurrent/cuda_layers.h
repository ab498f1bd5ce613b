// The products that no step waits for: the agent's layers and the input's part of the gates before the walk over time,
// or after it, for all steps at once. A block takes 64 of the [T, B n] and 64 of the columns of a result.
#pragma once
#include "recurrent/cuda_stage.h"

namespace emix::recurrent {

// The block's places among the [T, B n], where they lie elsewhere, and its columns.
template <class Stage>
struct Places {
  int64_t first, first_column;
  int count, columns;
  Shared<int64_t> x_offset, cell, agent;  // in x; in units of [B, T, n]; of the n
  Stage stage;

  static constexpr int kBytes = 3 * kSquare * int(sizeof(int64_t)) + Stage::kBytes;

  static EMIX_HD int64_t tiles(int64_t size) { return (size + kSquare - 1) / kSquare; }

  __device__ __forceinline__ Places(const Sequence& p, int64_t all_columns)
      : first(int64_t(blockIdx.x) / tiles(all_columns) * kSquare),
        first_column(int64_t(blockIdx.x) % tiles(all_columns) * kSquare),
        count(static_cast<int>(p.time * p.rows() - first < kSquare ? p.time * p.rows() - first : kSquare)),
        columns(static_cast<int>(all_columns - first_column < kSquare ? all_columns - first_column : kSquare)),
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
    block_barrier();
  }
};

// f(m, n, number) for the block's places and columns.
template <class Stage, class F>
__device__ __forceinline__ void each_result(const Places<Stage>& at, typename Stage::Sums& sum, const F& f) {
  at.stage.each(sum, [&](int m, int n, typename Stage::Number& number) {
    if (m < at.count && n < at.columns) f(m, n, number);
  });
}

// sum = start(column) + sum over k of left[m, k] right[k, column] for the block's places m and columns.
template <class Stage, class Left, class Right, class Start>
__device__ __forceinline__ void layer(const Places<Stage>& at, int64_t depth, typename Stage::Sums& sum,
                                      const Left& left, const Right& right, const Start& start) {
  using F = typename Stage::Number;
  at.stage.start(sum, [&](int n) { return n < at.columns ? start(at.first_column + n) : F(0); });
  accumulate(at.stage, sum, depth, left, right, [](const auto&) {});
}

// The left side: what place m has, from line(m) on.
template <class Stage, class Line>
__device__ __forceinline__ Lines<Stage, kLeft> place_lines(const Places<Stage>& at, const Line& line) {
  using F = typename Stage::Number;
  return Lines<Stage, kLeft>([&](int m) -> const F* { return m < at.count ? line(m) : nullptr; });
}

// The right side: weights [columns, depth], from line(column) on.
template <class Stage, class Line>
__device__ __forceinline__ Lines<Stage, kRight> weight_lines(const Places<Stage>& at, const Line& line) {
  using F = typename Stage::Number;
  return Lines<Stage, kRight>([&](int n) -> const F* { return n < at.columns ? line(at.first_column + n) : nullptr; });
}

// Backward: weights [depth, columns], row k from row(k) on, and no bias.
template <class Stage, class Left, class Row>
__device__ __forceinline__ void layer_back(const Places<Stage>& at, int64_t depth, typename Stage::Sums& sum,
                                           const Left& left, const Row& row) {
  using F = typename Stage::Number;
  const bool exists = static_cast<int>(threadIdx.x) % kSquare < at.columns;
  const auto weight = [&](int64_t k, int n) -> Element<F> { return {row(k) + at.first_column + n, exists}; };
  layer(at, depth, sum, place_lines(at, left), Across<Stage, decltype(weight)>(weight), [](int64_t) { return F(0); });
}

// The left side of the agent's first layer: what was observed, then one-hot the last action and the agent.
template <class Stage>
class Observed {
 public:
  static constexpr bool kAlongDepth = true;
  using F = typename Stage::Number;

  __device__ __forceinline__ Observed(const Sequence& p, const Places<Stage>& at)
      : length_(static_cast<int>(p.inputs)) {
#pragma unroll
    for (int i = 0; i < Stage::kLines; ++i) {
      const int m = Stage::template line<kLeft>(i);
      lines_[i] = m < at.count ? static_cast<const F*>(p.x.data) + at.x_offset[m] : nullptr;
      const int64_t action = p.action_columns && m < at.count ? p.last_action[at.cell[m]] : -1;
      action_[i] = static_cast<int>(action >= 0 && action < p.action_columns ? p.inputs + action : -1);
      agent_[i] = static_cast<int>(p.id_columns && m < at.count ? p.inputs + p.action_columns + at.agent[m] : -1);
    }
  }

  __device__ __forceinline__ void fetch(typename Stage::Held& held, int64_t from, int) const {
#pragma unroll
    for (int line = 0; line < Stage::kLines; ++line)
#pragma unroll
      for (int i = 0; i < Stage::kOfLine; ++i) {
        const int k = static_cast<int>(from) + Stage::depth_of_line(i);
        F value = F((k == action_[line]) | (k == agent_[line]));  // -1: none
        if (lines_[line] != nullptr && k < length_) value = lines_[line][k];
        held[line * Stage::kOfLine + i] = value;
      }
  }

 private:
  const F* lines_[Stage::kLines];
  int action_[Stage::kLines], agent_[Stage::kLines], length_;
};

// e of the agent.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_encode(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int64_t H = p.hidden, C = p.in_columns();
  const int width = static_cast<int>(p.saved());
  const Places<Stage> at(p, H);
  const F *w_encode = static_cast<const F*>(p.w_encode), *b_encode = static_cast<const F*>(p.b_encode);
  F* e = static_cast<F*>(out.saved) + at.first * width + 4 * H + at.first_column;
  typename Stage::Sums sum;
  layer(at, C, sum, Observed<Stage>(p, at), weight_lines(at, [&](int64_t j) { return w_encode + j * C; }),
        [&](int64_t j) { return b_encode[j]; });
  each_result(at, sum, [&](int m, int n, F x) { e[m * width + n] = x < 0 ? F(0) : x; });  // a NaN stays one
}

// The gates' sums but for h_{t-1}'s part, into `saved`.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_gates(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int64_t H = p.hidden, E = p.encoded();
  const int width = static_cast<int>(p.saved());
  const Places<Stage> at(p, 3 * H);
  const F *w_ih = static_cast<const F*>(p.w_ih), *b_ih = static_cast<const F*>(p.b_ih),
          *b_hh = static_cast<const F*>(p.b_hh), *x = static_cast<const F*>(p.x.data);
  F *saved = static_cast<F*>(out.saved) + at.first * width, *sums = saved + at.first_column;
  typename Stage::Sums sum;
  layer(at, E, sum, place_lines(at, [&](int m) { return p.is_agent ? saved + m * width + 4 * H : x + at.x_offset[m]; }),
        weight_lines(at, [&](int64_t column) { return w_ih + torch_gate(column, H) * E; }), [&](int64_t column) {
          const int64_t j = torch_gate(column, H);
          return b_ih[j] + (column < H ? F(0) : b_hh[j]);
        });
  each_result(at, sum, [&](int m, int n, F total) { sums[m * width + n] = total; });
}

// The agent's q from h in `saved`.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_head(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int H = static_cast<int>(p.hidden), width = static_cast<int>(p.saved());
  const Places<Stage> at(p, p.actions);
  const F *w_head = static_cast<const F*>(p.w_head), *b_head = static_cast<const F*>(p.b_head),
          *h = static_cast<const F*>(out.saved) + at.first * width + 5 * H;
  F* q = static_cast<F*>(out.out) + at.first_column;
  typename Stage::Sums sum;
  layer(at, H, sum, place_lines(at, [&](int m) { return h + m * width; }),
        weight_lines(at, [&](int64_t a) { return w_head + a * H; }), [&](int64_t a) { return b_head[a]; });
  each_result(at, sum, [&](int m, int n, F total) { q[at.cell[m] * p.actions + n] = total; });
}

// The agent's dL/dh from dL/dq.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_head_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                    const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden);
  const Places<Stage> at(p, H);
  const F *above = static_cast<const F*>(g.out), *w_head = static_cast<const F*>(p.w_head);
  F* h = work.h + at.first * H + at.first_column;
  const auto q_grads = [&](int m) -> const F* { return above ? above + at.cell[m] * p.actions : nullptr; };
  typename Stage::Sums sum;
  layer_back(at, p.actions, sum, q_grads, [&](int64_t a) { return w_head + a * H; });
  each_result(at, sum, [&](int m, int n, F total) { h[m * H + n] = total; });
  if (at.first_column > 0 || static_cast<int>(threadIdx.x) >= at.count) return;
  bool asked = false;
  const F* grads = q_grads(threadIdx.x);
  for (int64_t a = 0; grads && a < p.actions; ++a) asked |= grads[a] != 0;
  work.asked[at.first + threadIdx.x] = asked;
}

// What comes back through the gates: to the first layer's sums of the agent, or to x.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_gates_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                     const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden), width = static_cast<int>(p.saved());
  const int64_t E = p.encoded();
  const Places<Stage> at(p, E);
  const F *w_ih = static_cast<const F*>(p.w_ih), *grads = work.gate + at.first * 4 * H;
  typename Stage::Sums sum;
  layer_back(
      at, 3 * H, sum, [&](int m) { return grads + m * 4 * H; },  // n, r, z
      [&](int64_t k) { return w_ih + torch_gate(k, H) * E; });
  if (!p.is_agent) {
    F* x = static_cast<F*>(g.x) + at.first_column;
    return each_result(at, sum, [&](int m, int n, F total) { x[at.cell[m] * E + n] = total; });
  }
  const F* read = static_cast<const F*>(g.saved) + at.first * width + 4 * H + at.first_column;
  F* e = work.e + at.first * H + at.first_column;
  typename Stage::Sums found = {};  // all loaded before the first is looked at
  each_result(at, found, [&](int m, int n, F& value) { value = read[m * width + n]; });
  Stage::each_pair(sum, found, [](F& total, F value) { total = value > 0 ? total : F(0); });
  each_result(at, sum, [&](int m, int n, F total) { e[m * H + n] = total; });
}

// From the first layer's sums to x of the agent.
template <class Stage, class F = typename Stage::Number>
__global__ void __launch_bounds__(kThreads, Stage::kBlocks)
    layer_encode_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                      const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden);
  const int64_t C = p.in_columns();
  const Places<Stage> at(p, p.inputs);
  const F *w_encode = static_cast<const F*>(p.w_encode), *grads = work.e + at.first * H;
  F* x = static_cast<F*>(g.x) + at.first_column;
  typename Stage::Sums sum;
  layer_back(at, H, sum, [&](int m) { return grads + m * H; }, [&](int64_t k) { return w_encode + k * C; });
  each_result(at, sum, [&](int m, int n, F total) { x[at.cell[m] * p.inputs + n] = total; });
}

}  // namespace emix::recurrent
