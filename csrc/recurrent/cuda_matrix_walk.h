// The GPU's walk over time on matrix units. A block takes 8 rows and a warp 16 units of them: it multiplies its rows of
// the recurrent weights, which it keeps in registers (in shared memory or the caches where H is large), by the block's
// last states. What a lane gets of the product are all the gates of two units of two rows, so that states and gradients
// stay in its registers from step to step and only the next product's operands are exchanged: one barrier a step. What
// no step waits for is done for all steps at once, before and after (cuda_layers.h); what a step reads of it is
// loaded while the step before is computed.
#pragma once
#include "matrix_units.h"
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

// A tile of units are the rows of an operation, a block's rows of the batch its columns.
inline constexpr int kTileUnits = kOperationRows, kBlockRows = kOperationColumns;

// Sums over h_{t-1} (backward: over the gradients of the gates r, z, m), from and to a lane's registers. kOperations:
// operations that the depth H takes, with the weights in registers; 0: more, and they are read each time.
template <class Type, bool kBackward, int kOperations>
class RecurrentProduct {
 public:
  static constexpr int kWarps =
      (kOperations > 0 ? kOperations * kOperationWords * Type::kPerWord : kMaxHidden) / kTileUnits;  // at most
  static constexpr int kOperands = kBackward ? 3 : 1;  // a gate's own, or the state for all

  static EMIX_HD int warps(int hidden) { return (hidden + kTileUnits - 1) / kTileUnits; }
  static EMIX_HD int operations(int hidden) {
    return kOperations > 0 ? kOperations : warps(hidden) * kTileWords / kOperationWords;
  }
  // A row's words; the four more keep a warp's rows in different banks.
  static EMIX_HD int row_words(int hidden) { return kOperands * operations(hidden) * kOperationWords + 4; }
  static EMIX_HD int operand_bytes(int hidden) { return 2 * kBlockRows * row_words(hidden) * int(sizeof(uint32_t)); }
  static EMIX_HD int weight_bytes(int hidden) {
    return kOperations > 0 ? 0 : 3 * warps(hidden) * operations(hidden) * kWarp * int(sizeof(uint4));
  }

  // In shared memory from `offset` on; with the weights there, where they are neither in registers nor too many.
  __device__ __forceinline__ RecurrentProduct(const void* w_hh, int hidden, int offset, bool weights_in_shared)
      : w_hh_(static_cast<const float*>(w_hh)),
        hidden_(hidden),
        operations_(operations(hidden)),
        row_words_(row_words(hidden)),
        operands_(offset, 2 * kBlockRows * row_words_),
        weights_(offset + operand_bytes(hidden),
                 weights_in_shared ? weight_bytes(hidden) / static_cast<int>(sizeof(uint4)) : 0),
        weights_in_shared_(weights_in_shared) {
    for (int k = threadIdx.x; k < 2 * kBlockRows * row_words_; k += blockDim.x) operands_[k] = 0;
    if constexpr (kOperations > 0) {
#pragma unroll
      for (int k = 0; k < kOperations; ++k)
#pragma unroll
        for (int gate = 0; gate < 3; ++gate) held_[gate][k] = read(gate, k);
    } else if (weights_in_shared) {
      for (int k = 0; k < operations_; ++k)
        for (int gate = 0; gate < 3; ++gate) weights_[place(gate, k)] = read(gate, k);
    }
    block_barrier();
  }

  // This lane's units and rows of an operand, as a sum's, into one of two buffers.
  __device__ __forceinline__ void publish(int64_t buffer, int operand, const float (&values)[4]) const {
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int row = (buffer % 2 * kBlockRows + sum_column(column)) * row_words_;
      const float both[2] = {values[column], values[column + 2]};
#pragma unroll
      for (int i = 0; i < 2; i += Type::kPerWord)
        operands_[row + operand * operations_ * kOperationWords + threadIdx.x / kWarp * kTileWords + sum_row(2 * i)] =
            Type::word(both + i);
    }
  }

  // Adds this warp's weights times what was published: gates r, z, m.
  __device__ __forceinline__ void add(int64_t buffer, float (&sum)[3][4]) const {
    const int row = buffer % 2 * kBlockRows;
    warp_barrier();  // the lanes that a condition kept apart come together
    if constexpr (kOperations > 0) {
#pragma unroll
      for (int k = 0; k < kOperations; ++k) multiply(row, k, sum, [&](int gate) { return held_[gate][k]; });
    } else {
#pragma unroll 2
      for (int k = 0; k < operations_; ++k)
        multiply(row, k, sum, [&](int gate) { return weights_in_shared_ ? weights_[place(gate, k)] : read(gate, k); });
    }
  }

 private:
  static constexpr int kTileWords = kTileUnits / Type::kPerWord;

  template <class Weights>
  __device__ __forceinline__ void multiply(int first, int k, float (&sum)[3][4], const Weights& weights) const {
    uint2 right[kOperands];
#pragma unroll
    for (int operand = 0; operand < kOperands; ++operand)
      right[operand] = right_words([&](int row, int word) {
        return operands_[(first + row) * row_words_ + (operand * operations_ + k) * kOperationWords + word];
      });
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) multiply_add<Type>(sum[gate], weights(gate), right[gate % kOperands]);
  }

  __device__ __forceinline__ int place(int gate, int k) const {
    return ((threadIdx.x / kWarp * 3 + gate) * operations_ + k) * kWarp + threadIdx.x % kWarp;
  }

  // This lane's words of W_hh for operation k. Depth has the order in which publish() finds it: two bf16 of a word are
  // the units that a lane has of a row, 8 apart.
  __device__ __forceinline__ uint4 read(int gate, int k) const {
    return left_words([&](int row, int word) {
      const int unit = threadIdx.x / kWarp * kTileUnits + row, at = k * kOperationWords + word;
      float values[Type::kPerWord];
#pragma unroll
      for (int part = 0; part < Type::kPerWord; ++part) {
        const int depth = at / kTileWords * kTileUnits + at % kTileWords + 8 * part;
        const int from = (gate * hidden_ + (kBackward ? depth : unit)) * hidden_ + (kBackward ? unit : depth);
        values[part] = unit < hidden_ && depth < hidden_ ? w_hh_[from] : 0.f;
      }
      return Type::word(values);
    });
  }

  const float* w_hh_;
  int hidden_, operations_, row_words_;
  Shared<uint32_t> operands_;
  Shared<uint4> weights_;
  bool weights_in_shared_;
  uint4 held_[3][kOperations > 0 ? kOperations : 1];
};

// f(i, column, unit) for this lane's units of its two rows, as far as they exist: i as a sum's.
template <class F>
__device__ __forceinline__ void for_each_unit(const Sequence& p, const F& f) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int unit = threadIdx.x / kWarp * kTileUnits + sum_row(i);
    if (int64_t(blockIdx.x) * kBlockRows + sum_column(i) < p.rows() && unit < p.hidden) f(i, i % 2, unit);
  }
}

// One of this lane's two rows.
__device__ __forceinline__ WalkRow lane_row(const Sequence& p, int column) {
  return {p, int64_t(blockIdx.x) * kBlockRows + sum_column(column)};
}

// From the input's part of the gates' sums in `out.saved` to gates, states and their results.
template <class Type, int kOperations>
__global__ void __launch_bounds__(RecurrentProduct<Type, false, kOperations>::kWarps* kWarp, 1)
    matrix_walk_forward(const __grid_constant__ Sequence p, const __grid_constant__ Results out,
                        bool weights_in_shared) {
  const int H = static_cast<int>(p.hidden);
  const RecurrentProduct<Type, false, kOperations> product(p.w_hh, H, 0, weights_in_shared);
  const WalkRow rows[2] = {lane_row(p, 0), lane_row(p, 1)};
  const int64_t stride = p.rows() * p.saved();
  const float *h0 = static_cast<const float*>(p.h0), *b_hh = static_cast<const float*>(p.b_hh);
  float* saved[2] = {static_cast<float*>(out.saved) + rows[0].row * p.saved(),
                     static_cast<float*>(out.saved) + rows[1].row * p.saved()};
  // h_t goes to the results of a GRU, and to what the agent's last layer reads.
  float* states[2] = {saved[0] + 5 * H, saved[1] + 5 * H};
  if (!p.is_agent)
    for (int column = 0; column < 2; ++column) states[column] = static_cast<float*>(out.out) + rows[column].cell * H;
  const int64_t state_stride = p.is_agent ? stride : H;
  float state[4] = {}, m_bias[4] = {}, from_input[3][4] = {};  // n, r, z
  const auto fetch = [&](int64_t ahead) {
    for_each_unit(p, [&](int i, int column, int unit) {
#pragma unroll
      for (int gate = 0; gate < 3; ++gate) from_input[gate][i] = saved[column][ahead + gate * H + unit];
    });
  };
  for_each_unit(p, [&](int i, int column, int unit) {
    state[i] = h0 ? h0[rows[column].row * H + unit] : 0.f;
    m_bias[i] = b_hh[2 * H + unit];
  });
  product.publish(0, 0, state);
  if (p.time > 0) fetch(0);
  block_barrier();
  for (int64_t t = 0; t < p.time; ++t) {
    float sum[3][4] = {};  // r, z, m
    product.add(t, sum);
    for_each_unit(p, [&](int i, int column, int unit) {
      const Unit<float> gate = gates<float>(
          {from_input[0][i], from_input[1][i] + sum[0][i], from_input[2][i] + sum[1][i], sum[2][i] + m_bias[i]});
      state[i] = next_hidden(gate, state[i]);
      float* to = saved[column] + unit;
      to[0] = gate.n, to[H] = gate.r, to[2 * H] = gate.z, to[3 * H] = gate.m;
      states[column][unit] = state[i];
    });
    product.publish(t + 1, 0, state);
    if (t + 1 < p.time) fetch(stride);
#pragma unroll
    for (int column = 0; column < 2; ++column) saved[column] += stride, states[column] += state_stride;
    block_barrier();
  }
  if (!out.last) return;
  for_each_unit(
      p, [&](int i, int column, int unit) { static_cast<float*>(out.last)[rows[column].row * H + unit] = state[i]; });
}

// For each warp, twice: which of its lanes a gradient reaches, in their first and in their second row.
inline constexpr int kMaxWarps = kMaxHidden / kTileUnits, kFlagBytes = 2 * kMaxWarps * sizeof(uint2);

// From dL/dh_t of the layer above (in work.h, or upstream) to the gradients of the gates' sums.
template <class Type, int kOperations>
__global__ void __launch_bounds__(RecurrentProduct<Type, true, kOperations>::kWarps* kWarp, 1)
    matrix_walk_backward(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                         const __grid_constant__ Work<float> work, bool weights_in_shared) {
  const int H = static_cast<int>(p.hidden), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const Shared<uint2> flags(0, 2 * kMaxWarps);
  const RecurrentProduct<Type, true, kOperations> product(p.w_hh, H, kFlagBytes, weights_in_shared);
  const WalkRow rows[2] = {lane_row(p, 0), lane_row(p, 1)};
  const float *last = static_cast<const float*>(g.last), *h0 = static_cast<const float*>(p.h0);
  // Of the rows at step t: gates, h_{t-1}, upstream, and the gradients of the gates.
  const float *saved[2], *before[2], *above[2];
  float* grads[2];
  const int64_t width = p.saved(), end = p.time - 1, above_stride = p.is_agent ? p.rows() * H : H;
#pragma unroll
  for (int column = 0; column < 2; ++column) {
    const WalkRow& at = rows[column];
    const int64_t place = end * p.rows() + at.row;
    saved[column] = static_cast<const float*>(g.saved) + place * width;
    before[column] = g.h.at<float>(at.b, end - 1, at.agent);
    above[column] = p.is_agent ? work.h + place * H : static_cast<const float*>(g.out) + (at.cell + end) * H;
    grads[column] = work.gate + place * 4 * H;
  }
  float carry[4] = {};  // dL/dh_t of the steps after t
  Unit<float> gate[4] = {};
  float upstream[4] = {}, h_before[4] = {};
  const auto fetch = [&](bool is_first) {
    for_each_unit(p, [&](int i, int column, int unit) {
      const float* from = saved[column] + unit;
      gate[i] = {from[0], from[H], from[2 * H], from[3 * H]};
      upstream[i] = above[column][unit];
      h_before[i] = !is_first ? before[column][unit] : h0 ? h0[rows[column].row * H + unit] : 0.f;
    });
  };
  if (last) for_each_unit(p, [&](int i, int column, int unit) { carry[i] = last[rows[column].row * H + unit]; });
  if (p.time > 0) fetch(p.time == 1);
  for (int64_t t = end; t >= 0; --t) {
    float r[4] = {}, z[4] = {}, m[4] = {};
    bool reached[2] = {};
    for_each_unit(p, [&](int i, int column, int unit) {
      const float grad = carry[i] + upstream[i];
      Unit<float> sum = {0, 0, 0, 0};
      carry[i] = 0;
      if (grad != 0) {  // else whatever lies there, NaN too
        sum = gate_gradients(gate[i], h_before[i], grad);
        carry[i] = grad * gate[i].z;
        reached[column] = true;
      }
      r[i] = sum.r, z[i] = sum.z, m[i] = sum.m;
      float* to = grads[column] + unit;
      to[0] = sum.n, to[H] = sum.r, to[2 * H] = sum.z, to[3 * H] = sum.m;
    });
    product.publish(t, 0, r), product.publish(t, 1, z), product.publish(t, 2, m);
    const uint2 lanes = {ballot(reached[0]), ballot(reached[1])};
    if (threadIdx.x % kWarp == 0) flags[t % 2 * kMaxWarps + warp] = lanes;
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      saved[column] -= p.rows() * width, before[column] -= g.h.stride[1];
      above[column] -= above_stride, grads[column] -= p.rows() * 4 * H;
    }
    if (t > 0) fetch(t == 1);
    block_barrier();
    float sum[3][4] = {};
    product.add(t, sum);
#pragma unroll
    for (int i = 0; i < 4; ++i) carry[i] += sum[0][i] + sum[1][i] + sum[2][i];
    const int64_t row = int64_t(blockIdx.x) * kBlockRows + threadIdx.x;
    if (threadIdx.x < kBlockRows && row < p.rows()) {
      unsigned found = 0;
      for (int each = 0; each < warps; ++each) {
        const uint2 of_warp = flags[t % 2 * kMaxWarps + each];
        found |= threadIdx.x % 2 == 0 ? of_warp.x : of_warp.y;
      }
      work.reached[t * p.rows() + row] = (found >> threadIdx.x / 2 & 0x11111111u) != 0;  // the row's lanes
    }
  }
  if (!g.h0) return;
  for_each_unit(
      p, [&](int i, int column, int unit) { static_cast<float*>(g.h0)[rows[column].row * H + unit] = carry[i]; });
}

}  // namespace emix::recurrent
