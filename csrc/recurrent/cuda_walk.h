// The GPU's walk over time: a block of threads takes kRows rows, kChunk steps at once. As on the CPU, what does not
// depend on the step before is a product over the chunk; within it only the recurrent product waits for the last step,
// and its weights stay in shared memory where they fit (H = 64 anywhere, 128 in float32 on an H100), else in the
// caches.
#pragma once
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

// The transposed weights, gates in the order of recurrent.h.
template <class F>
struct Transposed {
  F *in = nullptr, *ih = nullptr, *hh = nullptr, *out = nullptr;
};

template <class F>
__global__ void __launch_bounds__(kThreads) transpose_weights(const __grid_constant__ Sequence p, Transposed<F> to) {
  const int64_t E = p.encoded(), C = p.in_columns();
  const int H = static_cast<int>(p.hidden);
  const auto turn = [&](const void* from, int64_t rows, int columns, F* into, auto source) {
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x)
      for (int column = threadIdx.x; column < columns; column += kThreads)
        into[row * columns + column] = static_cast<const F*>(from)[source(column) * rows + row];
  };
  const auto same = [](int row) { return row; };
  turn(p.w_ih, E, 3 * H, to.ih, [&](int row) { return row < H ? row + 2 * H : row - H; });  // n, r, z
  turn(p.w_hh, H, 3 * H, to.hh, same);
  if (!p.is_agent) return;
  turn(p.w_encode, C, H, to.in, same);
  turn(p.w_head, H, static_cast<int>(p.actions), to.out, same);
}

// Blocks on a multiprocessor at once, which caps the registers: in float32 the weights leave shared memory for two at
// H = 64.
template <class F, bool kShared>
inline constexpr int kBlocks = kShared && sizeof(F) == sizeof(float) ? 2 : 1;

template <class F, bool kShared>
__global__ void __launch_bounds__(kThreads, kBlocks<F, kShared>)
    walk_forward(const __grid_constant__ Sequence p, const __grid_constant__ Transposed<F> w,
                 const __grid_constant__ Results out) {
  const int64_t H = p.hidden, width = p.saved();
  Place<F> at(p, kShared);
  if (kShared) at.keep_weights(w.hh, H);
  const F *h0 = static_cast<const F*>(p.h0), *b_encode = static_cast<const F*>(p.b_encode),
          *b_ih = static_cast<const F*>(p.b_ih), *b_hh = static_cast<const F*>(p.b_hh),
          *b_head = static_cast<const F*>(p.b_head);
  F *saved = static_cast<F*>(out.saved), *result = static_cast<F*>(out.out);
  for (int k = threadIdx.x; k < H * kRows; k += kThreads)
    at.state[k % H].row[k / H] = h0 && k / H < at.rows ? h0[(at.first + k / H) * H + k % H] : F(0);
  block_barrier();
  F m_bias[kUnits] = {};
  at.each_unit(static_cast<int>(H), [&](int i, int j, int) { m_bias[i] = b_hh[2 * H + j]; });
  for (at.start = 0; at.start < p.time; at.start += kChunk) {
    at.steps = static_cast<int>(p.time - at.start < kChunk ? p.time - at.start : kChunk);
    const auto x = [&](int64_t k, int s, int r) {
      return static_cast<const F*>(p.x.data)[at.x_offset[r] + (at.start + s) * p.x.stride[1] + k];
    };
    const auto e = [&](int64_t k, int s, int r) { return saved[at.saved_at(p, s, r) * width + 4 * H + k]; };
    const auto h = [&](int64_t k, int s, int r) { return saved[at.saved_at(p, s, r) * width + 5 * H + k]; };
    const auto keep_sum = [&](int64_t column, int s, int r, F sum) {
      const int64_t j = column < H ? column + 2 * H : column - H;  // torch's place of n, r, z
      saved[at.saved_at(p, s, r) * width + column] = sum + b_ih[j] + (column < H ? F(0) : b_hh[j]);
    };
    if (p.is_agent) {
      product(at, p.inputs, w.in, H, H, x, [&](int64_t j, int s, int r, F sum) {
        sum += b_encode[j];
        const int64_t action = p.action_columns ? p.last_action[at.cell_at(p, s, r)] : -1;
        if (action >= 0 && action < p.action_columns) sum += w.in[(p.inputs + action) * H + j];
        if (p.id_columns) sum += w.in[(p.inputs + p.action_columns + (at.first + r) % p.agents) * H + j];
        saved[at.saved_at(p, s, r) * width + 4 * H + j] = sum < 0 ? F(0) : sum;  // a NaN stays one
      });
      product(at, H, w.ih, 3 * H, 3 * H, e, keep_sum);
    } else {
      product(at, p.inputs, w.ih, 3 * H, 3 * H, x, keep_sum);
    }
    for (int s = 0; s < at.steps; ++s) {
      F from_input[3][kUnits] = {};  // n, r, z: loaded while the recurrent product is computed
      at.each_unit(static_cast<int>(H), [&](int i, int j, int r) {
        const F* row = saved + at.saved_at(p, s, r) * width + j;
#pragma unroll
        for (int gate = 0; gate < 3; ++gate) from_input[gate][i] = row[gate * H];
      });
      for (int column = threadIdx.x; column < 3 * H; column += kThreads) {
        Quad<F> sum = {};
#pragma unroll 8
        for (int k = 0; k < H; ++k) {
          const F right = kShared ? at.weights[k * 3 * H + column] : w.hh[k * 3 * H + column];
          const Quad<F> left = at.state[k];
#pragma unroll
          for (int r = 0; r < kRows; ++r) sum.row[r] += left.row[r] * right;
        }
        at.gate[column] = sum;
      }
      block_barrier();
      at.each_unit(static_cast<int>(H), [&](int i, int j, int r) {
        const Unit<F> gate =
            gates<F>({from_input[0][i], from_input[1][i] + at.gate[j].row[r], from_input[2][i] + at.gate[H + j].row[r],
                      at.gate[2 * H + j].row[r] + m_bias[i]});
        const F next = next_hidden(gate, at.state[j].row[r]);
        at.state[j].row[r] = next;
        F* row = saved + at.saved_at(p, s, r) * width + j;
        row[0] = gate.n, row[H] = gate.r, row[2 * H] = gate.z, row[3 * H] = gate.m;
        if (p.is_agent)
          row[5 * H] = next;
        else
          result[at.cell_at(p, s, r) * H + j] = next;
      });
      block_barrier();
    }
    if (p.is_agent)
      product(at, H, w.out, p.actions, p.actions, h,
              [&](int64_t a, int s, int r, F sum) { result[at.cell_at(p, s, r) * p.actions + a] = sum + b_head[a]; });
  }
  if (!out.last) return;
  for (int k = threadIdx.x; k < H * at.rows; k += kThreads)
    static_cast<F*>(out.last)[(at.first + k / H) * H + k % H] = at.state[k % H].row[k / H];
}

// What the backward walk leaves for the sums over all rows and steps, each [T, B n, ...].
template <class F>
struct Work {
  F* gate = nullptr;  // [4 H]: dL/d(the gates' sums)
  F* e = nullptr;     // [encoded]: dL/d(the sums of the first layer), or dL/dx
  F* h = nullptr;     // [H]: the last layer's part of dL/dh
  // Whether any gradient reaches a step's gates, and its q: what a step read is not looked at where not
  uint8_t *reached = nullptr, *asked = nullptr;
};

// What comes through the recurrent weights to dL/dh_{t-1}, for each of this thread's units: the depth split over the
// threads that there are, then their parts in order. No barrier is needed behind it: the next step writes `gate` when
// all have read it, and `stage` after another one.
template <class F, bool kShared>
__device__ __forceinline__ void add_carry(const Place<F>& at, const F* w_hh, int H, F (&carry)[kUnits]) {
  const int parts = kThreads / H, part = threadIdx.x / H, j = threadIdx.x % H;
  const int depth = (3 * H + parts - 1) / parts, end = (part + 1) * depth < 3 * H ? (part + 1) * depth : 3 * H;
  if (part < parts) {
    Quad<F> sum = {};
#pragma unroll 8
    for (int k = part * depth; k < end; ++k) {
      const F right = kShared ? at.weights[k * H + j] : w_hh[k * H + j];
      const Quad<F> left = at.gate[k];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum.row[r] += left.row[r] * right;
    }
    at.stage[threadIdx.x] = sum;
  }
  block_barrier();
  at.each_unit(H, [&](int i, int unit, int r) {
    for (int each = 0; each < parts; ++each) carry[i] += at.stage[each * H + unit].row[r];
  });
}

// What a step reads is loaded while the step after it is computed.
template <class F, bool kShared>
__global__ void __launch_bounds__(kThreads, kBlocks<F, kShared>)
    walk_backward(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                  const __grid_constant__ Work<F> work) {
  const int H = static_cast<int>(p.hidden), width = static_cast<int>(p.saved());
  Place<F> at(p, kShared);
  const F *w_ih = static_cast<const F*>(p.w_ih), *w_hh = static_cast<const F*>(p.w_hh);
  if (kShared) at.keep_weights(w_hh, H);
  const F *q_grads = static_cast<const F*>(g.out), *last = static_cast<const F*>(g.last),
          *h0 = static_cast<const F*>(p.h0);
  if (threadIdx.x < kRows) at.reached[threadIdx.x] = 0;
  block_barrier();
  // Of this thread's row at step t: gates, h_{t-1}, upstream, and the gradients of the gates.
  const WalkRow mine(p, at.first + threadIdx.x / kRowThreads);
  const int64_t end = p.time - 1, place = end * p.rows() + mine.row, above_stride = p.is_agent ? p.rows() * H : H;
  const F *saved = static_cast<const F*>(g.saved) + place * width, *before = g.h.at<F>(mine.b, end - 1, mine.agent),
          *above = p.is_agent ? work.h + place * H : q_grads + (mine.cell + end) * H;
  F* grads = work.gate + place * 4 * H;
  if (h0) h0 += mine.row * H;
  F carry[kUnits] = {};  // dL/dh_t of the steps after t
  Unit<F> gate[kUnits] = {};
  F h_before[kUnits] = {}, upstream[kUnits] = {};
  const auto fetch = [&](bool is_first) {
    at.each_unit(H, [&](int i, int j, int) {
      gate[i] = {saved[j], saved[H + j], saved[2 * H + j], saved[3 * H + j]};
      h_before[i] = !is_first ? before[j] : h0 ? h0[j] : F(0);
      upstream[i] = above[j];
    });
  };
  if (last) at.each_unit(H, [&](int i, int j, int) { carry[i] = last[mine.row * H + j]; });
  for (at.start = (p.time - 1) / kChunk * kChunk; at.start >= 0 && p.time > 0; at.start -= kChunk) {
    at.steps = static_cast<int>(p.time - at.start < kChunk ? p.time - at.start : kChunk);
    const auto q_grad = [&](int64_t a, int s, int r) {
      return q_grads ? q_grads[at.cell_at(p, s, r) * p.actions + a] : F(0);
    };
    if (p.is_agent)
      product(at, p.actions, static_cast<const F*>(p.w_head), H, H, q_grad,
              [&](int64_t j, int s, int r, F sum) { work.h[at.saved_at(p, s, r) * H + j] = sum; });
    fetch(at.start + at.steps == 1);
    if (p.is_agent && static_cast<int>(threadIdx.x) < at.steps * at.rows) {
      const int s = threadIdx.x / at.rows, r = threadIdx.x % at.rows;
      bool asked = false;
      for (int64_t a = 0; a < p.actions; ++a) asked |= q_grad(a, s, r) != 0;
      work.asked[at.saved_at(p, s, r)] = asked;
    }
    for (int s = at.steps; s-- > 0;) {
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
      saved -= p.rows() * width, before -= g.h.stride[1], above -= above_stride, grads -= p.rows() * 4 * H;
      if (s > 0) fetch(at.start + s == 1);
      block_barrier();
      if (static_cast<int>(threadIdx.x) < at.rows) {
        work.reached[at.saved_at(p, s, threadIdx.x)] = at.reached[threadIdx.x] != 0;
        at.reached[threadIdx.x] = 0;
      }
      add_carry<F, kShared>(at, w_hh, H, carry);
    }
    // Gates in torch's order, as W_ih's rows are: r, z, n.
    const auto gate_grad = [&](int64_t k, int s, int r) {
      return work.gate[at.saved_at(p, s, r) * 4 * H + (k < 2 * H ? k + H : k - 2 * H)];
    };
    const auto x_out = [&](int64_t j, int s, int r, F sum) {
      if (g.x) static_cast<F*>(g.x)[at.cell_at(p, s, r) * p.inputs + j] = sum;
    };
    if (!p.is_agent) {
      if (g.x) product(at, 3 * H, w_ih, p.inputs, p.inputs, gate_grad, x_out);
      continue;
    }
    product(at, 3 * H, w_ih, H, H, gate_grad, [&](int64_t j, int s, int r, F sum) {
      const int64_t here = at.saved_at(p, s, r);
      work.e[here * H + j] = static_cast<const F*>(g.saved)[here * width + 4 * H + j] > 0 ? sum : F(0);
    });
    const auto e_grad = [&](int64_t k, int s, int r) { return work.e[at.saved_at(p, s, r) * H + k]; };
    if (g.x) product(at, H, static_cast<const F*>(p.w_encode), p.in_columns(), p.inputs, e_grad, x_out);
  }
  if (!g.h0) return;
  at.each_unit(H, [&](int i, int j, int) { static_cast<F*>(g.h0)[mine.row * H + j] = carry[i]; });
}

}  // namespace emix::recurrent
