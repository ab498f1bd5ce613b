// The GPU's walk over time, for H to 64 and in float32 to 128: the recurrent weights stay in registers. Four
// neighbouring lanes have a unit, each a quarter of the depth of its sums: for H = 64 three gates' 16 weights, 48
// registers of each of 256 threads. A block takes 1, 2 or 4 rows, as few as leave it a multiprocessor of its own, since
// a step waits for the last one. Its states lie in shared memory, twice, in turns; the lanes add up their parts by
// shuffles, after which each has the sums of one row, computes its gates and keeps its state: one barrier a step. What
// a step reads of global memory is loaded one or two steps ahead. Backward is the mirror image: gradients of the gates
// instead of states. The bits of a row do not depend on the number of rows.
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
  // Steps whose numbers are on their way from global memory at once: a step of few units and rows may be shorter than that.
  static constexpr int kAhead = kUnits <= 64 && (kRows == 1 || !kBackward) ? 2 : 1;
  static constexpr int kOperands = kBackward ? 3 : 1;  // a gate's own, or the state for all
  static constexpr int kSums = kBackward ? 1 : 3;
  static constexpr int kLanes = kParts / kRows;  // with the same row, once the parts are added up
  static constexpr int kLine = kUnits + 8;       // a row's units of an operand; spreads a warp's rows over the banks
  static constexpr int kBytes = 2 * kRows * kOperands * kLine * int(sizeof(F));

  const int part = static_cast<int>(threadIdx.x) % kParts, unit = static_cast<int>(threadIdx.x) / kParts,
            row = part / kLanes;  // of the block: this lane's

  __device__ __forceinline__ UnitProduct(const void* w_hh, int hidden)
      : numbers_(0, 2 * kRows * kOperands * kLine), quads_(0, 2 * kRows * kOperands * kLine / 4) {
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
  __device__ __forceinline__ void publish(int buffer, int operand, F value) const {
    if (part % kLanes == 0) numbers_[place(buffer, row, operand) * kLine + unit] = value;
  }

  // Of this lane's row and unit: the gates' sums r, z, m, or backward the one sum over all of them.
  __device__ __forceinline__ void sums(int buffer, F (&own)[kSums]) const {
    F sum[kSums][kRows] = {};
#pragma unroll
    for (int operand = 0; operand < kOperands; ++operand) {
      F of_operand[kSums][kRows] = {};  // backward three chains of additions that wait for each other only at the end
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const Quad<F> right = quads_[place(buffer, r, operand) * (kLine / 4) + i * kParts + part];
#pragma unroll
          for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int s = 0; s < kSums; ++s) of_operand[s][r] += weight_[operand + s][i][c] * right.row[c];
        }
#pragma unroll
      for (int s = 0; s < kSums; ++s)
#pragma unroll
        for (int r = 0; r < kRows; ++r) sum[s][r] = operand == 0 ? of_operand[s][r] : sum[s][r] + of_operand[s][r];
    }
#pragma unroll
    for (int s = 0; s < kSums; ++s) own[s] = of_own_row(sum[s]);
  }

 private:
  static constexpr int kLoads = kUnits / 4 / kParts;

  static __device__ __forceinline__ int place(int buffer, int row, int operand) {
    return (buffer * kRows + row) * kOperands + operand;
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

// From one step to the next, in elements: the products that they are would take a part of the step's time.
struct StepStrides {
  int64_t rows, saved, state, above, grads;

  explicit StepStrides(const Sequence& p)
      : rows(p.rows()),
        saved(rows * p.saved()),
        state(p.is_agent ? saved : p.hidden),
        above(p.is_agent ? rows * p.hidden : p.hidden),
        grads(rows * kGates * p.hidden) {}
};

// From the input's part of the gates' sums in `out.saved` to gates, states and their results.
template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, false>>
__global__ void __launch_bounds__(Product::kThreads, Product::kBlocks)
    walk_forward(const __grid_constant__ Sequence p, const __grid_constant__ StepStrides stride,
                 const __grid_constant__ Results out) {
  const int H = static_cast<int>(p.hidden);
  const Product product(p.w_hh, H);
  const WalkRow at(p, int64_t(blockIdx.x) * kRows + product.row);
  const int j = product.unit;
  const bool works = at.row < p.rows() && j < H, stores = works && product.part % Product::kLanes == 0;
  F* saved = static_cast<F*>(out.saved) + at.row * p.saved() + j;
  // h_t goes to the results of a GRU, and to what the agent's last layer reads.
  F* states = p.is_agent ? saved + 5 * H : static_cast<F*>(out.out) + at.cell * H + j;
  F from_input[Product::kAhead][3] = {}, state = 0, m_bias = 0;  // n, r, z of a step
  const F* ahead = saved;
  int64_t fetched = 0;
  const auto fetch = [&](int slot) {
    if (works && fetched < p.time) {
#pragma unroll
      for (int gate = 0; gate < 3; ++gate) from_input[slot][gate] = ahead[gate * H];
    }
    ahead += stride.saved, ++fetched;
  };
  if (works) {
    m_bias = static_cast<const F*>(p.b_hh)[2 * H + j];
    if (p.h0) state = static_cast<const F*>(p.h0)[at.row * H + j];
  }
#pragma unroll
  for (int slot = 0; slot < Product::kAhead; ++slot) fetch(slot);
  product.publish(0, 0, state);
  block_barrier();
  int buffer = 0;
  for (int64_t t = 0; t < p.time; t += Product::kAhead) {
#pragma unroll
    for (int slot = 0; slot < Product::kAhead; ++slot) {
      if (t + slot >= p.time) break;
      F sum[3];
      product.sums(buffer, sum);
      const F* in = from_input[slot];
      const Unit<F> gate = gates<F>({in[0], in[1] + sum[0], in[2] + sum[1], sum[2] + m_bias});
      fetch(slot);
      if (works) state = next_hidden(gate, state);  // the others' stay 0
      buffer ^= 1;
      product.publish(buffer, 0, state);
      if (stores) {
        saved[0] = gate.n, saved[H] = gate.r, saved[2 * H] = gate.z, saved[3 * H] = gate.m;
        *states = state;
      }
      saved += stride.saved, states += stride.state;
      block_barrier();
    }
  }
  if (out.last && stores) static_cast<F*>(out.last)[at.row * H + j] = state;
}

// Bit r: whether a gradient reaches row r of the block. flags: of each warp, its lanes that one reaches.
template <int kRows, int kWarps>
__device__ __forceinline__ unsigned rows_reached(const Shared<unsigned>& flags, int buffer) {
  const unsigned lanes = flags[buffer * kWarps + threadIdx.x % kWarps];
  unsigned rows = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows |= unsigned(ballot((lanes >> r * (kParts / kRows) & 0x11111111u) != 0) != 0) << r;
  return rows;
}

// From dL/dh_t of the layer above (in work.h, or upstream) to the gradients of the gates' sums.
template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, true>>
__global__ void __launch_bounds__(Product::kThreads, Product::kBlocks)
    walk_backward(const __grid_constant__ Sequence p, const __grid_constant__ StepStrides stride,
                  const __grid_constant__ Gradients g, const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Product product(p.w_hh, H);
  const Shared<unsigned> flags(Product::kBytes, 2 * Product::kWarps);  // twice: a warp's lanes that a gradient reaches
  const WalkRow at(p, int64_t(blockIdx.x) * kRows + product.row);
  const int j = product.unit;
  const bool works = at.row < p.rows() && j < H, stores = works && product.part % Product::kLanes == 0;
  // Of the row at step t: gates, h_{t-1}, upstream, and the gradients of the gates.
  const int64_t end = p.time - 1, place = end * p.rows() + at.row;
  const F *saved = static_cast<const F*>(g.saved) + place * p.saved() + j,
          *before = g.h.at<F>(at.b, end - 1, at.agent) + j,
          *above = p.is_agent ? work.h + place * H + j : static_cast<const F*>(g.out) + (at.cell + end) * H + j;
  F* grads = work.gate + place * 4 * H + j;
  const int64_t told = int64_t(blockIdx.x) * kRows + threadIdx.x;  // the row of which this thread tells
  Unit<F> gate[Product::kAhead] = {};
  F h_before[Product::kAhead] = {}, upstream[Product::kAhead] = {}, carry = 0;  // carry: dL/dh_t of the steps after t
  const auto fetch = [&](int slot, int64_t t) {
    if (works && t >= 0) {
      gate[slot] = {saved[0], saved[H], saved[2 * H], saved[3 * H]};
      h_before[slot] = t > 0 ? *before : p.h0 ? static_cast<const F*>(p.h0)[at.row * H + j] : F(0);
      upstream[slot] = *above;
    }
    saved -= stride.saved, before -= g.h.stride[1], above -= stride.above;
  };
  if (works && g.last) carry = static_cast<const F*>(g.last)[at.row * H + j];
#pragma unroll
  for (int slot = 0; slot < Product::kAhead; ++slot) fetch(slot, end - slot);
  int buffer = 0;
  for (int64_t last = end; last >= 0; last -= Product::kAhead) {
#pragma unroll
    for (int slot = 0; slot < Product::kAhead; ++slot) {
      const int64_t t = last - slot;
      if (t < 0) break;
      const F grad = works ? carry + upstream[slot] : F(0);
      const bool reached = grad != 0;
      Unit<F> sum = {0, 0, 0, 0};
      carry = 0;
      if (reached) {  // else whatever lies there, NaN too
        sum = gate_gradients(gate[slot], h_before[slot], grad);
        carry = grad * gate[slot].z;
      }
      fetch(slot, t - Product::kAhead);
      product.publish(buffer, 0, sum.r), product.publish(buffer, 1, sum.z), product.publish(buffer, 2, sum.m);
      const unsigned lanes = ballot(reached);
      if (lane == 0) flags[buffer * Product::kWarps + warp] = lanes;
      if (stores) grads[0] = sum.n, grads[H] = sum.r, grads[2 * H] = sum.z, grads[3 * H] = sum.m;
      grads -= stride.grads;
      block_barrier();
      const unsigned rows = rows_reached<kRows, Product::kWarps>(flags, buffer);
      if (threadIdx.x < kRows && told < stride.rows) work.reached[t * stride.rows + told] = rows >> threadIdx.x & 1;
      F from_gates[1];
      product.sums(buffer, from_gates);
      carry += from_gates[0];
      buffer ^= 1;
    }
  }
  if (g.h0 && stores) static_cast<F*>(g.h0)[at.row * H + j] = carry;
}

template <class F, int kUnits, int kRows, class Product = UnitProduct<F, kUnits, kRows, true>>
inline constexpr int kBackwardBytes = Product::kBytes + 2 * Product::kWarps * int(sizeof(unsigned));

}  // namespace emix::recurrent
