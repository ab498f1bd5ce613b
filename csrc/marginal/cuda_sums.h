// The blocks' sums of gradients: where they lie, and from them the gradients.
#pragma once
#include "marginal/cuda_layout.h"

namespace emix::marginal {

// A block's sums, one after the other. Where M has fewer tiles than a block has warps, the rows are dealt to several M.
struct SumsLayout {
  int splits;
  int64_t action, products, bits, value,
      elements;  // begin of [n, A, H], M [splits, H, H2], m [splits, H2], sum of G []

  SumsLayout(const Problem& p, const Layout& l, int warps) {
    splits = std::max(1, warps / std::max(1, l.hidden / kHalfPanel * (l.outputs / kHalfPanel)));
    action = 0, products = p.agents * p.choices * l.hidden;
    bits = products + int64_t(splits) * l.hidden * l.outputs, value = bits + splits * l.outputs;
    elements = (value + 1 + 3) / 4 * 4;  // so that the next block's can be read in vectors, too
  }
};

inline constexpr int kSharers = kSmallBlock / kWarp;

// The blocks' sums into the first one's place. Warp w of a thread block adds up those of blocks w, w + 8, ... for 32
// elements, then the first warp what the warps have.
template <class F>
__global__ void __launch_bounds__(kSmallBlock) sum_blocks(F* sums, int64_t elements, int blocks) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Shared<F> partial(0, kSmallBlock);
  for (int64_t begin = int64_t(blockIdx.x) * kWarp; begin < elements; begin += int64_t(gridDim.x) * kWarp) {
    const int64_t e = begin + lane;
    F total = 0;
    if (e < elements) {
#pragma unroll 8
      for (int block = warp; block < blocks; block += kSharers) total += sums[block * elements + e];
    }
    partial[threadIdx.x] = total;
    block_barrier();
    if (warp == 0 && e < elements) {
#pragma unroll
      for (int other = 1; other < kSharers; ++other) total += partial[other * kWarp + lane];
      sums[e] = total;
    }
    block_barrier();
  }
}

// M at an element, of all the splits.
template <class F>
__device__ __forceinline__ F product_at(const Layout& l, const SumsLayout& at, const F* sums, int64_t row,
                                        int64_t column) {
  F sum = 0;
  for (int split = 0; split < at.splits; ++split)
    sum += sums[at.products + (split * int64_t(l.hidden) + row) * l.outputs + column];
  return sum;
}

// A warp has an output at a time: db_hidden, and dw_head, whose sum over H its lanes share.
template <class F>
__device__ __forceinline__ void write_output_gradients(const Problem& p, const Layout& l, const Gradients& g,
                                                       const SumsLayout& at, const F* sums) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t j = thread_index() / kWarp; j < p.outputs; j += thread_count() / kWarp) {
    F head = 0;
#pragma unroll 4
    for (int64_t row = lane; row < p.hidden; row += kWarp)
      head += static_cast<const F*>(p.w_hidden)[row * p.outputs + j] * product_at(l, at, sums, row, j);
    for (int mask = kWarp / 2; mask > 0; mask /= 2) head += shuffle_xor(head, mask);
    if (lane > 0) continue;
    F of_bits = 0;
    for (int split = 0; split < at.splits; ++split) of_bits += sums[at.bits + int64_t(split) * l.outputs + j];
    static_cast<F*>(g.w_head)[j] = head + static_cast<const F*>(p.b_hidden)[j] * of_bits;
    static_cast<F*>(g.b_hidden)[j] = static_cast<const F*>(p.w_head)[j] * of_bits;
  }
}

template <class F>
__global__ void __launch_bounds__(kSmallBlock)
    write_gradients(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                    const __grid_constant__ Gradients g, const __grid_constant__ SumsLayout at, const F* sums) {
  const int H = static_cast<int>(p.hidden), H2 = static_cast<int>(p.outputs),
            shares = static_cast<int>(p.agents * p.choices);
  const int begin = static_cast<int>(thread_index()), step = static_cast<int>(thread_count());
  for (int e = begin; e < shares * H; e += step)
    static_cast<F*>(g.w_action)[e] = sums[at.action + int64_t(e / H) * l.hidden + e % H];
  for (int e = begin; e < H * H2; e += step)
    static_cast<F*>(g.w_hidden)[e] = static_cast<const F*>(p.w_head)[e % H2] * product_at(l, at, sums, e / H2, e % H2);
  write_output_gradients(p, l, g, at, sums);
  if (thread_index() == 0) *static_cast<F*>(g.b_head) = sums[at.value];
}

}  // namespace emix::marginal
