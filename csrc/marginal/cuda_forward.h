// The values of a unit by a block, a chunk of joint actions after the other: a warp takes 32 rows of x and 64 outputs
// through the second layer at a time and keeps one number of each row, its share of w_head' y.
#pragma once
#include "marginal/cuda_chunk.h"

namespace emix::marginal {

template <class F>
struct ForwardMemory {
  typename Chunk<F>::Memory chunk;
  int head, sums, bytes;  // w_head' y [panels, rows]; over the samples [states, n]

  ForwardMemory(const Layout& l) : chunk(l) {
    const int number = static_cast<int>(sizeof(F));
    head = chunk.end, sums = head + l.output_panels() * chunk.rows * number;
    bytes = sums + l.states * l.agents * number;
  }
};

template <class Units>
struct ForwardBlock {
  using F = typename Units::Number;
  const Problem& p;
  const Layout& l;
  const Fragments<Units>& w;
  Chunk<F> chunk;
  Shared<F> head, sums;

  __device__ __forceinline__ ForwardBlock(const Problem& problem, const Layout& layout, const ForwardMemory<F>& memory,
                                          const Fragments<Units>& fragments)
      : p(problem),
        l(layout),
        w(fragments),
        chunk(problem, layout, memory.chunk),
        head(memory.head, layout.output_panels() * memory.chunk.rows),
        sums(memory.sums, layout.states * layout.agents) {}

  __device__ __forceinline__ void find_head() const {
    const int row_tiles = chunk.memory.rows / kTileRows<F>;
    for (int task = warp_index(); task < row_tiles * l.output_panels(); task += warps()) {
      const int panel = task / row_tiles, tile = task % row_tiles;
      F total[kHigh<F>][2] = {};
      add_outputs(tile, panel, total);
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          F x = total[high][half];
          x += shuffle_xor(x, 1), x += shuffle_xor(x, 2);
          if (lane_item() == 0)
            head[panel * chunk.memory.rows + tile * kTileRows<F> + 16 * high + 8 * half + lane_group()] = x;
        }
    }
  }

  __device__ __forceinline__ void add_samples(bool first_chunk) const {
    const int count = static_cast<int>(p.samples - chunk.sample < l.samples ? p.samples - chunk.sample : l.samples);
    for (int at = static_cast<int>(threadIdx.x); at < l.states * l.agents; at += threads()) {
      int of_state = at;
      const int agent = l.of_agents.divide(of_state), row = agent * l.joint() + of_state * l.samples;
      F sum = first_chunk ? F(0) : sums[at];
      for (int panel = 0; panel < l.output_panels(); ++panel) {
#pragma unroll 8
        for (int k = 0; k < count; ++k) sum += head[panel * chunk.memory.rows + row + k];
      }
      sums[at] = sum;
    }
  }

  // Each thread what it has summed itself.
  __device__ __forceinline__ void write(F* value) const {
    for (int at = static_cast<int>(threadIdx.x); at < l.states * l.agents; at += threads())
      if (chunk.state * p.agents + at < p.states * p.agents)
        value[chunk.state * p.agents + at] = sums[at] / static_cast<F>(p.samples) + *static_cast<const F*>(p.b_head);
  }

 private:
  // What the lane has of w_head' ReLU(z + b_hidden), a number a row.
  __device__ __forceinline__ void add_outputs(int tile, int panel, F (&total)[kHigh<F>][2]) const {
    const Panel<Units> z(chunk, w, tile, panel);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
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
};

template <class Units>
__global__ void __launch_bounds__(kMostThreads<typename Units::Number>)
    marginal_forward(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                     const __grid_constant__ ForwardMemory<typename Units::Number> memory,
                     const __grid_constant__ Fragments<Units> w, typename Units::Number* value) {
  ForwardBlock<Units> block(p, l, memory, w);
  for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
    for (int part = 0; part < l.chunks; ++part) {
      block.chunk.load_actions(unit, part);
      block_barrier();
      block.chunk.find_x();
      block_barrier();
      block.find_head();
      block_barrier();
      block.add_samples(part == 0);
    }
    block.write(value);
  }
}

}  // namespace emix::marginal
