// The GPU's walk over time where H is too large for the registers (cuda_walk.h): a block of threads takes kWideRows
// rows, and its recurrent weights stay in shared memory where they fit, else in the caches. What a step reads of global
// memory is loaded while the step before is computed.
#pragma once
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

inline constexpr int kWideRows = 4;
// Where each thread has units of its own: threads of a row, and units of a thread, at most.
inline constexpr int kRowThreads = kThreads / kWideRows, kThreadUnits = kMaxHidden / kRowThreads;

// W_hh transposed: [H, 3 H], gates r, z, m.
template <class F>
__global__ void __launch_bounds__(kThreads) transpose_weights(const __grid_constant__ Sequence p, F* to) {
  const int H = static_cast<int>(p.hidden);
  for (int row = blockIdx.x; row < H; row += gridDim.x)
    for (int column = threadIdx.x; column < 3 * H; column += kThreads)
      to[row * 3 * H + column] = static_cast<const F*>(p.w_hh)[column * H + row];
}

// The block's parts of shared memory. Quads hold a number of each of its rows.
template <class F>
struct WideBlock {
  int64_t first;
  int rows;
  Shared<int> reached;  // backward: whether a gradient reaches the row at this step
  Shared<Quad<F>> state, gate, part;
  Shared<F> weights;

  // Bytes without the weights, which come last.
  static EMIX_HD int bytes(int64_t hidden) {
    return kWideRows * sizeof(int) + (4 * static_cast<int>(hidden) + kThreads) * sizeof(Quad<F>);
  }

  __device__ __forceinline__ WideBlock(const Sequence& p, bool with_weights)
      : first(int64_t(blockIdx.x) * kWideRows),
        rows(static_cast<int>(p.rows() - first < kWideRows ? p.rows() - first : kWideRows)),
        reached(0, kWideRows),
        state(kWideRows * sizeof(int), p.hidden),
        gate(kWideRows * sizeof(int) + p.hidden * sizeof(Quad<F>), 3 * p.hidden),
        part(kWideRows * sizeof(int) + 4 * p.hidden * sizeof(Quad<F>), kThreads),
        weights(bytes(p.hidden), with_weights ? 3 * p.hidden * p.hidden : 0) {}

  __device__ __forceinline__ void keep_weights(const F* from, int hidden) const {
    for (int k = threadIdx.x; k < 3 * hidden * hidden; k += kThreads) weights[k] = from[k];
  }

  // f(i, unit, row) for this thread's share of the block's units, its i-th: kRowThreads apart in one row.
  template <class Function>
  __device__ __forceinline__ void each_unit(int hidden, const Function& f) const {
    const int row = static_cast<int>(threadIdx.x) / kRowThreads;
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < kThreadUnits; ++i) {
      const int unit = static_cast<int>(threadIdx.x) % kRowThreads + i * kRowThreads;
      if (unit < hidden) f(i, unit, row);
    }
  }
};

// From the input's part of the gates' sums in `out.saved` to gates, states and their results.
template <class F, bool kShared>
__global__ void __launch_bounds__(kThreads)
    wide_walk_forward(const __grid_constant__ Sequence p, const F* __restrict__ w_hh,
                      const __grid_constant__ Results out) {
  const int H = static_cast<int>(p.hidden);
  const WideBlock<F> at(p, kShared);
  if (kShared) at.keep_weights(w_hh, H);
  const WalkRow mine(p, at.first + threadIdx.x / kRowThreads);
  const int64_t stride = p.rows() * p.saved(), state_stride = p.is_agent ? stride : H;
  const F *h0 = static_cast<const F*>(p.h0), *b_hh = static_cast<const F*>(p.b_hh);
  F* saved = static_cast<F*>(out.saved) + mine.row * p.saved();
  // h_t goes to the results of a GRU, and to what the agent's last layer reads.
  F* states = p.is_agent ? saved + 5 * H : static_cast<F*>(out.out) + mine.cell * H;
  F m_bias[kThreadUnits] = {};
  at.each_unit(H, [&](int i, int j, int r) {
    at.state[j].row[r] = h0 ? h0[mine.row * H + j] : F(0);
    m_bias[i] = b_hh[2 * H + j];
  });
  block_barrier();
  for (int64_t t = 0; t < p.time; ++t) {
    F from_input[3][kThreadUnits] = {};  // n, r, z: loaded while the recurrent product is computed
    at.each_unit(H, [&](int i, int j, int) {
#pragma unroll
      for (int gate = 0; gate < 3; ++gate) from_input[gate][i] = saved[gate * H + j];
    });
    for (int column = threadIdx.x; column < 3 * H; column += kThreads) {
      Quad<F> sum = {};
#pragma unroll 8
      for (int k = 0; k < H; ++k) {
        const F right = kShared ? at.weights[k * 3 * H + column] : w_hh[k * 3 * H + column];
        const Quad<F> left = at.state[k];
#pragma unroll
        for (int r = 0; r < kWideRows; ++r) sum.row[r] += left.row[r] * right;
      }
      at.gate[column] = sum;
    }
    block_barrier();
    at.each_unit(H, [&](int i, int j, int r) {
      const Unit<F> gate = gates<F>({from_input[0][i], from_input[1][i] + at.gate[j].row[r],
                                     from_input[2][i] + at.gate[H + j].row[r], at.gate[2 * H + j].row[r] + m_bias[i]});
      const F next = next_hidden(gate, at.state[j].row[r]);
      at.state[j].row[r] = next;
      saved[j] = gate.n, saved[H + j] = gate.r, saved[2 * H + j] = gate.z, saved[3 * H + j] = gate.m;
      states[j] = next;
    });
    saved += stride, states += state_stride;
    block_barrier();
  }
  if (!out.last) return;
  at.each_unit(H, [&](int, int j, int r) { static_cast<F*>(out.last)[mine.row * H + j] = at.state[j].row[r]; });
}

// What comes through the recurrent weights to dL/dh_{t-1}, for each of this thread's units: the depth split over the
// threads that there are, then their parts in order. No barrier is needed behind it: the next step writes `gate` when
// all have read it, and `part` after another one.
template <class F, bool kShared>
__device__ __forceinline__ void add_carry(const WideBlock<F>& at, const F* w_hh, int H, F (&carry)[kThreadUnits]) {
  const int parts = kThreads / H, part = threadIdx.x / H, j = threadIdx.x % H;
  const int depth = (3 * H + parts - 1) / parts, end = (part + 1) * depth < 3 * H ? (part + 1) * depth : 3 * H;
  if (part < parts) {
    Quad<F> sum = {};
#pragma unroll 8
    for (int k = part * depth; k < end; ++k) {
      const F right = kShared ? at.weights[k * H + j] : w_hh[k * H + j];
      const Quad<F> left = at.gate[k];
#pragma unroll
      for (int r = 0; r < kWideRows; ++r) sum.row[r] += left.row[r] * right;
    }
    at.part[threadIdx.x] = sum;
  }
  block_barrier();
  at.each_unit(H, [&](int i, int unit, int r) {
    for (int each = 0; each < parts; ++each) carry[i] += at.part[each * H + unit].row[r];
  });
}

// From dL/dh_t of the layer above (in work.h, or upstream) to the gradients of the gates' sums.
template <class F, bool kShared>
__global__ void __launch_bounds__(kThreads)
    wide_walk_backward(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                       const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden);
  const WideBlock<F> at(p, kShared);
  const F *w_hh = static_cast<const F*>(p.w_hh), *last = static_cast<const F*>(g.last),
          *h0 = static_cast<const F*>(p.h0);
  if (kShared) at.keep_weights(w_hh, H);
  if (threadIdx.x < kWideRows) at.reached[threadIdx.x] = 0;
  block_barrier();
  // Of this thread's row at step t: gates, h_{t-1}, upstream, and the gradients of the gates.
  const WalkRow mine(p, at.first + threadIdx.x / kRowThreads);
  const int64_t end = p.time - 1, place = end * p.rows() + mine.row, stride = p.rows() * p.saved(),
                above_stride = p.is_agent ? p.rows() * H : H;
  const F *saved = static_cast<const F*>(g.saved) + place * p.saved(), *before = g.h.at<F>(mine.b, end - 1, mine.agent),
          *above = p.is_agent ? work.h + place * H : static_cast<const F*>(g.out) + (mine.cell + end) * H;
  F* grads = work.gate + place * 4 * H;
  if (h0) h0 += mine.row * H;
  F carry[kThreadUnits] = {};  // dL/dh_t of the steps after t
  Unit<F> gate[kThreadUnits] = {};
  F h_before[kThreadUnits] = {}, upstream[kThreadUnits] = {};
  const auto fetch = [&](bool is_first) {
    at.each_unit(H, [&](int i, int j, int) {
      gate[i] = {saved[j], saved[H + j], saved[2 * H + j], saved[3 * H + j]};
      h_before[i] = !is_first ? before[j] : h0 ? h0[j] : F(0);
      upstream[i] = above[j];
    });
  };
  if (last) at.each_unit(H, [&](int i, int j, int) { carry[i] = last[mine.row * H + j]; });
  if (p.time > 0) fetch(p.time == 1);
  for (int64_t t = end; t >= 0; --t) {
    at.each_unit(H, [&](int i, int j, int r) {
      const F grad = carry[i] + upstream[i];
      Unit<F> sum = {0, 0, 0, 0};
      carry[i] = 0;
      if (grad != 0) {  // else whatever lies there, NaN too
        sum = gate_gradients(gate[i], h_before[i], grad);
        carry[i] = grad * gate[i].z;
        raise(at.reached[r]);
      }
      at.gate[j].row[r] = sum.r, at.gate[H + j].row[r] = sum.z, at.gate[2 * H + j].row[r] = sum.m;
      grads[j] = sum.n, grads[H + j] = sum.r, grads[2 * H + j] = sum.z, grads[3 * H + j] = sum.m;
    });
    saved -= stride, before -= g.h.stride[1], above -= above_stride, grads -= p.rows() * 4 * H;
    if (t > 0) fetch(t == 1);
    block_barrier();
    if (static_cast<int>(threadIdx.x) < at.rows) {
      work.reached[t * p.rows() + at.first + threadIdx.x] = at.reached[threadIdx.x] != 0;
      at.reached[threadIdx.x] = 0;
    }
    add_carry<F, kShared>(at, w_hh, H, carry);
  }
  if (!g.h0) return;
  at.each_unit(H, [&](int i, int j, int) { static_cast<F*>(g.h0)[mine.row * H + j] = carry[i]; });
}

}  // namespace emix::recurrent
