// On matrix units, the products that no step waits for: the agent's layers and the input's part of the gates before the
// walk over time, or after it, for all steps at once. A block takes 64 of the [T, B n].
#pragma once
#include "matrix_units.h"
#include "recurrent/cuda_walk.h"

namespace emix::recurrent {

inline constexpr int kSquare = 64;                 // rows and columns of a block's product; a warp's part is 16 x 32
inline constexpr int kStageWords = 32;             // of depth, at once in shared memory
inline constexpr int kStageRow = kStageWords + 4;  // keeps a warp's rows in different banks
static_assert(kThreads == 8 * kWarp && kStageWords % kOperationWords == 0);

// C [64, 64] += left [64, depth] right [depth, 64], a stage of the depth after the other.
template <class Type>
class MatrixStage {
 public:
  static constexpr int kDepth = kStageWords * Type::kPerWord;
  static constexpr int kBytes = 2 * kSquare * kStageRow * int(sizeof(uint32_t));
  static constexpr int kTiles = 4;  // of 8 columns: a warp's
  enum Side { kLeft, kRight };
  using Sums = float[kTiles][4];

  explicit __device__ __forceinline__ MatrixStage(int offset) : words_(offset, 2 * kSquare * kStageRow) {}

  // load(d, at) for `count` of the depth and each row of left or column of right; neighbouring threads take neighbours
  // in depth, or else neighbours in `at` (and a thread always the same one).
  template <bool kAlongDepth, class Load>
  __device__ __forceinline__ void fill(Side side, int count, const Load& load) const {
#pragma unroll 4
    for (int k = threadIdx.x; k < kSquare * kStageWords; k += kThreads) {
      const int at = kAlongDepth ? k / kStageWords : k % kSquare, word = kAlongDepth ? k % kStageWords : k / kSquare;
      float values[Type::kPerWord];
#pragma unroll
      for (int part = 0; part < Type::kPerWord; ++part) {
        const int d = word * Type::kPerWord + part;
        values[part] = d < count ? load(d, at) : 0.f;
      }
      words_[(side * kSquare + at) * kStageRow + word] = Type::word(values);
    }
  }

  __device__ __forceinline__ void multiply(Sums& sum) const {
    warp_barrier();  // the lanes that a condition kept apart come together
#pragma unroll
    for (int k = 0; k < kStageWords; k += kOperationWords) {
      const uint4 left = left_words(
          [&](int row, int word) { return words_[(kLeft * kSquare + first_row() + row) * kStageRow + k + word]; });
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        multiply_add<Type>(sum[tile], left, right_words([&](int column, int word) {
                             return words_[(kRight * kSquare + first_column(tile) + column) * kStageRow + k + word];
                           }));
    }
  }

  // f(row, column, sum) for each of this lane's.
  template <class F>
  __device__ __forceinline__ void each(const Sums& sum, const F& f) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(first_row() + sum_row(i), first_column(tile) + sum_column(i), sum[tile][i]);
  }

 private:
  static __device__ __forceinline__ int first_row() { return threadIdx.x / kWarp % 4 * kOperationRows; }
  static __device__ __forceinline__ int first_column(int tile) {
    return (threadIdx.x / (4 * kWarp) * kTiles + tile) * kOperationColumns;
  }

  Shared<uint32_t> words_;
};

// The block's places among the [T, B n], and where they lie elsewhere.
template <class Type>
struct Places {
  int64_t first;
  int count;
  Shared<int64_t> x_offset, cell, agent;  // in x; in units of [B, T, n]; of the n
  MatrixStage<Type> stage;

  static constexpr int kBytes = 3 * kSquare * int(sizeof(int64_t)) + MatrixStage<Type>::kBytes;

  explicit __device__ __forceinline__ Places(const Sequence& p)
      : first(int64_t(blockIdx.x) * kSquare),
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

// store(m, column, sum over k of left(k, m) right(k, column)) for the places m. kRightAlongDepth: neighbours in k are
// neighbours in right's memory.
template <bool kRightAlongDepth, class Type, class Left, class Right, class Store>
__device__ __forceinline__ void matrix_product(const Places<Type>& at, int64_t depth, int64_t columns, const Left& left,
                                               const Right& right, const Store& store) {
  using Stage = MatrixStage<Type>;
  for (int64_t first = 0; first < columns; first += kSquare) {
    typename Stage::Sums sum = {};
    for (int64_t from = 0; from < depth; from += Stage::kDepth) {
      const int count = static_cast<int>(depth - from < Stage::kDepth ? depth - from : Stage::kDepth);
      block_barrier();
      at.stage.template fill<true>(Stage::kLeft, count,
                                   [&](int d, int m) { return m < at.count ? left(from + d, m) : 0.f; });
      at.stage.template fill<kRightAlongDepth>(
          Stage::kRight, count, [&](int d, int n) { return first + n < columns ? right(from + d, first + n) : 0.f; });
      block_barrier();
      at.stage.multiply(sum);
    }
    at.stage.each(sum, [&](int m, int n, float total) {
      if (m < at.count && first + n < columns) store(m, first + n, total);
    });
  }
  block_barrier();
}

// torch's place of a gate's column, r, z, n, for n, r, z.
__device__ __forceinline__ int64_t torch_gate(int64_t column, int64_t hidden) {
  return column < hidden ? column + 2 * hidden : column - hidden;
}

// e of the agent, then the gates' sums but for h_{t-1}'s part, into `saved`.
template <class Type>
__global__ void __launch_bounds__(kThreads, 2)
    matrix_before_walk(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const Places<Type> at(p);
  const int64_t H = p.hidden, C = p.in_columns(), E = p.encoded(), width = p.saved();
  const float *w_encode = static_cast<const float*>(p.w_encode), *b_encode = static_cast<const float*>(p.b_encode),
              *w_ih = static_cast<const float*>(p.w_ih), *b_ih = static_cast<const float*>(p.b_ih),
              *b_hh = static_cast<const float*>(p.b_hh), *data = static_cast<const float*>(p.x.data);
  float* saved = static_cast<float*>(out.saved) + at.first * width;
  const auto x = [&](int64_t k, int m) { return data[at.x_offset[m] + k]; };
  const auto e = [&](int64_t k, int m) { return saved[m * width + 4 * H + k]; };
  const auto gate_weight = [&](int64_t k, int64_t column) { return w_ih[torch_gate(column, H) * E + k]; };
  const auto keep_sum = [&](int m, int64_t column, float sum) {
    const int64_t j = torch_gate(column, H);
    saved[m * width + column] = sum + b_ih[j] + (column < H ? 0.f : b_hh[j]);
  };
  if (!p.is_agent) return matrix_product<true>(at, E, 3 * H, x, gate_weight, keep_sum);
  block_barrier();
  const auto weight = [&](int64_t k, int64_t j) { return w_encode[j * C + k]; };
  matrix_product<true>(at, p.inputs, H, x, weight, [&](int m, int64_t j, float sum) {
    sum += b_encode[j];
    const int64_t action = p.action_columns ? p.last_action[at.cell[m]] : -1;
    if (action >= 0 && action < p.action_columns) sum += rounded<Type>(w_encode[j * C + p.inputs + action]);
    if (p.id_columns) sum += rounded<Type>(w_encode[j * C + p.inputs + p.action_columns + at.agent[m]]);
    saved[m * width + 4 * H + j] = sum < 0 ? 0.f : sum;  // a NaN stays one
  });
  matrix_product<true>(at, H, 3 * H, e, gate_weight, keep_sum);
}

// The agent's q from h in `saved`.
template <class Type>
__global__ void __launch_bounds__(kThreads, 2)
    matrix_after_walk(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const Places<Type> at(p);
  const int64_t H = p.hidden, width = p.saved();
  const float *w_head = static_cast<const float*>(p.w_head), *b_head = static_cast<const float*>(p.b_head),
              *saved = static_cast<const float*>(out.saved) + at.first * width;
  matrix_product<true>(
      at, H, p.actions, [&](int64_t k, int m) { return saved[m * width + 5 * H + k]; },
      [&](int64_t k, int64_t a) { return w_head[a * H + k]; },
      [&](int m, int64_t a, float sum) { static_cast<float*>(out.out)[at.cell[m] * p.actions + a] = sum + b_head[a]; });
}

// The agent's dL/dh from dL/dq.
template <class Type>
__global__ void __launch_bounds__(kThreads, 2)
    matrix_before_walk_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                            const __grid_constant__ Work<float> work) {
  const Places<Type> at(p);
  const int64_t H = p.hidden;
  const float *above = static_cast<const float*>(g.out), *w_head = static_cast<const float*>(p.w_head);
  block_barrier();
  const auto q_grad = [&](int64_t a, int m) { return above ? above[at.cell[m] * p.actions + a] : 0.f; };
  matrix_product<false>(
      at, p.actions, H, q_grad, [&](int64_t a, int64_t j) { return w_head[a * H + j]; },
      [&](int m, int64_t j, float sum) { work.h[(at.first + m) * H + j] = sum; });
  if (static_cast<int>(threadIdx.x) >= at.count) return;
  bool asked = false;
  for (int64_t a = 0; a < p.actions; ++a) asked |= q_grad(a, threadIdx.x) != 0;
  work.asked[at.first + threadIdx.x] = asked;
}

// What comes back through the gates: to the first layer's sums and x of the agent, or to x.
template <class Type>
__global__ void __launch_bounds__(kThreads, 2)
    matrix_after_walk_back(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                           const __grid_constant__ Work<float> work) {
  const Places<Type> at(p);
  const int64_t H = p.hidden, E = p.encoded(), C = p.in_columns();
  const float *w_ih = static_cast<const float*>(p.w_ih), *w_encode = static_cast<const float*>(p.w_encode);
  const auto gate_grad = [&](int64_t k, int m) { return work.gate[(at.first + m) * 4 * H + k]; };  // n, r, z
  const auto gate_weight = [&](int64_t k, int64_t j) { return w_ih[torch_gate(k, H) * E + j]; };
  const auto x_out = [&](int m, int64_t j, float sum) { static_cast<float*>(g.x)[at.cell[m] * p.inputs + j] = sum; };
  if (!p.is_agent) return matrix_product<false>(at, 3 * H, E, gate_grad, gate_weight, x_out);
  const float* e = static_cast<const float*>(g.saved) + 4 * H;
  matrix_product<false>(at, 3 * H, E, gate_grad, gate_weight, [&](int m, int64_t j, float sum) {
    work.e[(at.first + m) * H + j] = e[(at.first + m) * p.saved() + j] > 0 ? sum : 0.f;
  });
  if (!g.x) return;
  matrix_product<false>(
      at, H, p.inputs, [&](int64_t k, int m) { return work.e[(at.first + m) * H + k]; },
      [&](int64_t k, int64_t j) { return w_encode[k * C + j]; }, x_out);
}

}  // namespace emix::recurrent
