// The GPU's walk over time, for H to 64 and in float32 to 128: the recurrent weights stay in registers. Four
// neighbouring lanes have a unit, each a quarter of the depth of its sums: for H = 64 three gates' 16 weights, 48
// registers of each of 256 threads. A block takes 1, 2 or 4 rows, as few as still fill the GPU, since a step waits for
// the last one. Its states lie in shared memory, twice, in turns; the lanes add up their parts by shuffles, after which
// each has the sums of one row, computes its gates and keeps its state: one barrier a step. What a step reads of global
// memory is loaded while the step before is computed. Backward is the mirror image: gradients of the gates instead of
// states. The bits of a row do not depend on the number of rows.
#pragma once
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

inline constexpr int kParts = 4;  // lanes of a unit

// Sums over h_{t-1}, or backward over the gradients of the gates r, z, m, of a block's rows.
template <class F, int kUnits, int kRows, bool kBackward>
class UnitProduct {
 public:
  static constexpr int kThreads = kUnits * kParts, kWarps = kThreads / kWarp;
  // Blocks on a multiprocessor at once, which caps the registers.
  static constexpr int kBlocks = kThreads <= 256 && sizeof(F) == sizeof(float) ? 2 : 1;
  static constexpr int kOperands = kBackward ? 3 : 1;  // a gate's own, or the state for all
  static constexpr int kSums = kBackward ? 1 : 3;
  static constexpr int kLanes = kParts / kRows;  // with the same row, once the parts are added up
  static constexpr int kBytes = 2 * kRows * kOperands * kUnits * int(sizeof(F));

  const int part = static_cast<int>(threadIdx.x) % kParts, unit = static_cast<int>(threadIdx.x) / kParts,
            row = part / kLanes;  // of the block: this lane's

  __device__ __forceinline__ UnitProduct(const void* w_hh, int hidden, int offset)
      : numbers_(offset, 2 * kRows * kOperands * kUnits), quads_(offset, 2 * kRows * kOperands * kQuads) {
    const F* from = static_cast<const F*>(w_hh);
#pragma unroll
    for (int gate = 0; gate < 3; ++gate)
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int k = (i * kParts + part) * 4 + c, left = kBackward ? k : unit, right = kBackward ? unit : k;
          weight_[gate][i][c] = unit < hidden && k < hidden ? from[(gate * hidden + left) * hidden + right] : F(0);
        }
  }

  // This lane's number of its row, into one of two buffers.
  __device__ __forceinline__ void publish(int64_t buffer, int operand, F value) const {
    if (part % kLanes == 0) numbers_[place(buffer, row, operand) * kUnits + unit] = value;
  }

  // Of this lane's row and unit: the gates' sums r, z, m, or backward the one sum over all of them.
  __device__ __forceinline__ void sums(int64_t buffer, F (&own)[kSums]) const {
    F sum[kSums][kRows] = {};
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
#pragma unroll
      for (int operand = 0; operand < kOperands; ++operand)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const Quad<F> right = quads_[place(buffer, r, operand) * kQuads + i * kParts + part];
#pragma unroll
          for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int s = 0; s < kSums; ++s) sum[s][r] += weight_[kBackward ? operand : s][i][c] * right.row[c];
        }
#pragma unroll
    for (int s = 0; s < kSums; ++s) own[s] = of_own_row(sum[s]);
  }

 private:
  static constexpr int kQuads = kUnits / 4, kLoads = kQuads / kParts;

  static __device__ __forceinline__ int place(int64_t buffer, int row, int operand) {
    return (static_cast<int>(buffer % 2) * kRows + row) * kOperands + operand;
  }

  // Parts 0 and 2, 1 and 3, then both, however many rows there are.
  __device__ __forceinline__ F of_own_row(const F (&sum)[kRows]) const {
    const bool upper = part >= 2, odd = part % 2 == 1;
    if constexpr (kRows == 4) {
      const F even_row = (upper ? sum[2] : sum[0]) + shuffle_xor(upper ? sum[0] : sum[2], 2),
              odd_row = (upper ? sum[3] : sum[1]) + shuffle_xor(upper ? sum[1] : sum[3], 2);
      return (odd ? odd_row : even_row) + shuffle_xor(odd ? even_row : odd_row, 1);
    } else {
      const F half = (upper ? sum[kRows - 1] : sum[0]) + shuffle_xor(upper ? sum[0] : sum[kRows - 1], 2);
      return half + shuffle_xor(half, 1);
    }
  }

  Shared<F> numbers_;
  Shared<Quad<F>> quads_;  // the same
  F weight_[3][kLoads][4];
};

// From the input's part of the gates' sums in `out.saved` to gates, states and their results.
template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, false>>
__global__ void __launch_bounds__(Product::kThreads, Product::kBlocks)
    walk_forward(const __grid_constant__ Sequence p, const __grid_constant__ Results out) {
  const int H = static_cast<int>(p.hidden);
  const Product product(p.w_hh, H, 0);
  const WalkRow at(p, int64_t(blockIdx.x) * kRows + product.row);
  const int j = product.unit;
  const bool works = at.row < p.rows() && j < H, stores = works && product.part % Product::kLanes == 0;
  const int64_t stride = p.rows() * p.saved(), state_stride = p.is_agent ? stride : H;
  F* saved = static_cast<F*>(out.saved) + at.row * p.saved() + j;
  // h_t goes to the results of a GRU, and to what the agent's last layer reads.
  F* states = p.is_agent ? saved + 5 * H : static_cast<F*>(out.out) + at.cell * H + j;
  F from_input[3] = {}, next[3] = {}, state = 0, m_bias = 0;  // n, r, z
  if (works) {
    m_bias = static_cast<const F*>(p.b_hh)[2 * H + j];
    if (p.h0) state = static_cast<const F*>(p.h0)[at.row * H + j];
#pragma unroll
    for (int gate = 0; gate < 3; ++gate)
      if (p.time > 0) from_input[gate] = saved[gate * H];
  }
  product.publish(0, 0, state);
  block_barrier();
  for (int64_t t = 0; t < p.time; ++t) {
    if (works && t + 1 < p.time) {
#pragma unroll
      for (int gate = 0; gate < 3; ++gate) next[gate] = saved[stride + gate * H];
    }
    F sum[3];
    product.sums(t, sum);
    const Unit<F> gate = gates<F>({from_input[0], from_input[1] + sum[0], from_input[2] + sum[1], sum[2] + m_bias});
    if (works) state = next_hidden(gate, state);  // the others' stay 0
    product.publish(t + 1, 0, state);
    if (stores) {
      saved[0] = gate.n, saved[H] = gate.r, saved[2 * H] = gate.z, saved[3 * H] = gate.m;
      *states = state;
    }
    saved += stride, states += state_stride;
#pragma unroll
    for (int each = 0; each < 3; ++each) from_input[each] = next[each];
    block_barrier();
  }
  if (out.last && stores) static_cast<F*>(out.last)[at.row * H + j] = state;
}

// From dL/dh_t of the layer above (in work.h, or upstream) to the gradients of the gates' sums.
template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, true>>
__global__ void __launch_bounds__(Product::kThreads, Product::kBlocks)
    walk_backward(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                  const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Product product(p.w_hh, H, 0);
  const Shared<unsigned> flags(Product::kBytes, 2 * Product::kWarps);  // twice: a warp's lanes that a gradient reaches
  const WalkRow at(p, int64_t(blockIdx.x) * kRows + product.row);
  const int j = product.unit;
  const bool works = at.row < p.rows() && j < H, stores = works && product.part % Product::kLanes == 0;
  // Of the row at step t: gates, h_{t-1}, upstream, and the gradients of the gates.
  const int64_t end = p.time - 1, place = end * p.rows() + at.row, stride = p.rows() * p.saved(),
                above_stride = p.is_agent ? p.rows() * H : H;
  const F *saved = static_cast<const F*>(g.saved) + place * p.saved() + j,
          *before = g.h.at<F>(at.b, end - 1, at.agent) + j,
          *above = p.is_agent ? work.h + place * H + j : static_cast<const F*>(g.out) + (at.cell + end) * H + j,
          *h0 = p.h0 ? static_cast<const F*>(p.h0) + at.row * H + j : nullptr;
  F* grads = work.gate + place * 4 * H + j;
  struct Step {
    Unit<F> gate;
    F h_before, upstream;
  } now = {}, next = {};
  const auto fetch = [&](bool is_first) -> Step {
    return {{saved[0], saved[H], saved[2 * H], saved[3 * H]}, !is_first ? *before : h0 ? *h0 : F(0), *above};
  };
  const auto step_back = [&] { saved -= stride, before -= g.h.stride[1], above -= above_stride; };
  F carry = 0;  // dL/dh_t of the steps after t
  if (works) {
    if (g.last) carry = static_cast<const F*>(g.last)[at.row * H + j];
    if (p.time > 0) now = fetch(p.time == 1);
  }
  for (int64_t t = end; t >= 0; --t) {
    step_back();
    if (works && t > 0) next = fetch(t == 1);
    const F grad = works ? carry + now.upstream : F(0);
    const bool reached = grad != 0;
    Unit<F> sum = {0, 0, 0, 0};
    carry = 0;
    if (reached) {  // else whatever lies there, NaN too
      sum = gate_gradients(now.gate, now.h_before, grad);
      carry = grad * now.gate.z;
    }
    product.publish(t, 0, sum.r), product.publish(t, 1, sum.z), product.publish(t, 2, sum.m);
    const unsigned lanes = ballot(reached);
    if (lane == 0) flags[t % 2 * Product::kWarps + warp] = lanes;
    if (stores) grads[0] = sum.n, grads[H] = sum.r, grads[2 * H] = sum.z, grads[3 * H] = sum.m;
    grads -= p.rows() * 4 * H;
    block_barrier();
    F from_gates[1];
    product.sums(t, from_gates);
    carry += from_gates[0];
    now = next;
    if (warp > 0) continue;
    const unsigned found = lane < Product::kWarps ? flags[t % 2 * Product::kWarps + lane] : 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = int64_t(blockIdx.x) * kRows + r;
      const bool any = ballot((found >> r * Product::kLanes & 0x11111111u) != 0) != 0;  // of the row's lanes
      if (lane == r && row < p.rows()) work.reached[t * p.rows() + row] = any;
    }
  }
  if (g.h0 && stores) static_cast<F*>(g.h0)[at.row * H + j] = carry;
}

template <class F, int kUnits, int kRows>
inline constexpr int kForwardBytes = UnitProduct<F, kUnits, kRows, false>::kBytes;
template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, true>>
inline constexpr int kBackwardBytes = Product::kBytes + 2 * Product::kWarps * int(sizeof(unsigned));

}  // namespace emix::recurrent
