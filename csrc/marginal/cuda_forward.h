// The values of a unit by a block: each warp takes 32 rows through both layers and keeps one number of each.
#pragma once
#include "marginal/cuda_chunk.h"

namespace emix::marginal {

template <class F>
int forward_bytes(const Problem& p, int stride, int joint) {
  const int rows = joint * static_cast<int>(p.agents);
  return joint * Chunk<F>::bytes(p, stride) + Chunk<F>::kSlack + 2 * rows * static_cast<int>(sizeof(F));
}

template <class Units>
__global__ void __launch_bounds__(kBlock, kBlocksAtOnce)
    marginal_forward(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                     const __grid_constant__ Fragments<Units> w, typename Units::Number* value) {
  using F = typename Units::Number;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  Chunk<F> chunk(p, l, 0);
  const int rows = chunk.rows(), of_unit = l.states * chunk.agents();
  const int end = chunk.total + l.joint() * l.stride * static_cast<int>(sizeof(F));
  const Shared<F> head(end, rows);                                          // w_head' y of each row
  const Shared<F> sums(end + rows * static_cast<int>(sizeof(F)), of_unit);  // over the samples
  for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
    for (int at = static_cast<int>(threadIdx.x); at < of_unit; at += kBlock) sums[at] = 0;
    for (int part = 0; part < l.chunks; ++part) {
      chunk.load(unit, part);
      block_barrier();
      for (int tile = warp; tile < row_tiles(chunk); tile += kWarps) {
        Row at[kHigh<F>][2];
        find_rows(chunk, tile, at);
        F total[kHigh<F>][2] = {};
#pragma unroll 1
        for (int panel = 0; panel * kTiles < l.column_tiles(); ++panel) {
          const Panel<Units> z(chunk, w, at, panel);
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            if (panel * kTiles + t >= l.column_tiles()) break;
            const int column = (panel * kTiles + t) * 8 + sum_column(0);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const F bias = w.b_hidden[column + i], weight = w.w_head[column + i];
#pragma unroll
              for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                  total[high][half] += weight * Chunk<F>::relu(z.sum[high][t][2 * half + i] + bias);
            }
          }
        }
#pragma unroll
        for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            F x = total[high][half];
            x += shuffle_xor(x, 1), x += shuffle_xor(x, 2);
            const int row = (tile * kHigh<F> + high) * 16 + half * 8 + lane / 4;
            if (lane % 4 == 0 && row < rows) head[row] = x;
          }
      }
      block_barrier();
      for (int at = warp; at < of_unit; at += kWarps) {
        F sum = 0;
        for (int k = lane; k < l.samples && chunk.sample + k < p.samples; k += kWarp) sum += head[at * l.samples + k];
        for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        if (lane == 0) sums[at] += sum;
      }
    }
    block_barrier();
    for (int at = static_cast<int>(threadIdx.x); at < of_unit; at += kBlock)
      if (chunk.state * p.agents + at < p.states * p.agents)
        value[chunk.state * p.agents + at] = sums[at] / static_cast<F>(p.samples) + *static_cast<const F*>(p.b_head);
    block_barrier();
  }
}

}  // namespace emix::marginal
