// A chunk back by a block, from x to dx and on to the gradient of the agents' shares, each in the place of the one
// before.
#pragma once
#include "marginal/cuda_chunk.h"

namespace emix::marginal {

template <class F>
struct BackwardMemory {
  typename Chunk<F>::Memory chunk;
  int scale, bits, bytes;  // G/K [rows]; see BackwardBlock

  BackwardMemory(const Layout& l) : chunk(l) {
    scale = chunk.end;
    bits = scale + chunk.rows * static_cast<int>(sizeof(F));
    bytes = bits + chunk.rows / 16 * l.output_panels() * kWarp * static_cast<int>(sizeof(uint32_t));
  }
};

template <class Units>
struct BackwardBlock {
  using F = typename Units::Number;
  const Problem& p;
  const Layout& l;
  const Fragments<Units>& w;
  const Gradients& g;
  Chunk<F> chunk;
  Shared<F> scale;        // G/K of a row; 0 where there is none
  Shared<uint32_t> bits;  // of a tile of 16 rows, a panel and a lane: bit 4 t + i is that of D's number i in tile t

  __device__ __forceinline__ BackwardBlock(const Problem& problem, const Layout& layout,
                                           const BackwardMemory<F>& memory, const Fragments<Units>& fragments,
                                           const Gradients& gradients)
      : p(problem),
        l(layout),
        w(fragments),
        g(gradients),
        chunk(problem, layout, memory.chunk),
        scale(memory.scale, memory.chunk.rows),
        bits(memory.bits, memory.chunk.rows / 16 * layout.output_panels() * kWarp) {}

  __device__ __forceinline__ uint32_t& word(int row_tile, int panel, int of_lane) const {
    return bits[(row_tile * l.output_panels() + panel) * kWarp + of_lane];
  }
  __device__ __forceinline__ int row_tiles() const { return chunk.memory.rows / kTileRows<F>; }

  __device__ __forceinline__ void load(int64_t unit, int part) {
    chunk.load_actions(unit, part);
    for (int row = static_cast<int>(threadIdx.x); row < chunk.memory.rows; row += threads()) {
      int agent = row;
      const int joint = l.per_agent.divide(agent);
      int of_state = joint;
      l.per_state.divide(of_state);
      const bool present = row < l.rows() && chunk.there(joint);
      const F* grad = static_cast<const F*>(g.value) + (chunk.state + of_state) * p.agents + agent;
      scale[row] = present ? *grad / static_cast<F>(p.samples) : F(0);
    }
  }

  __device__ __forceinline__ void find_bits() const {
    for (int task = warp_index(); task < row_tiles() * l.output_panels(); task += warps()) {
      const int panel = task / row_tiles(), tile = task % row_tiles();
      const Panel<Units> z(chunk, w, tile, panel);
      uint32_t found[kHigh<F>] = {};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int column = (panel * kTiles + t) * 8 + sum_column(0);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int high = 0; high < kHigh<F>; ++high)
            found[high] |= uint32_t(z.sum[high][t][i] + w.b_hidden[column + i % 2] > 0) << (4 * t + i);
      }
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high) word(tile * kHigh<F> + high, panel, lane_index()) = found[high];
    }
  }

  // dx takes the place of x.
  __device__ __forceinline__ void find_x_gradient() const {
    for (int task = warp_index(); task < row_tiles() * l.hidden_panels(); task += warps()) {
      const int panel = task / row_tiles(), tile = task % row_tiles(), tiles = l.hidden_tiles();
      F sum[kHigh<F>][kTiles][4] = {};
      uint32_t found[kHigh<F>] = {};  // of the outputs of a panel: those of the next steps come lowest
      const typename Units::Right* right = w.backward + panel * kTiles * kWarp + lane_index();
#pragma unroll 1
      for (int step = 0; step < steps(p.outputs); ++step, right += tiles * kWarp) {
        typename Units::ExactLeft left[kHigh<F>];
#pragma unroll
        for (int high = 0; high < kHigh<F>; ++high) {
          if (step % kTiles == 0) found[high] = word(tile * kHigh<F> + high, step / kTiles, lane_index());
          left[high] = Units::exact_left({Units::bit(found[high], 0), Units::bit(found[high], 2),
                                          Units::bit(found[high], 1), Units::bit(found[high], 3)});
          found[high] >>= 4;
        }
        multiply_panel<Units>(sum, left, right, tiles - panel * kTiles);
      }
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = tile * kTileRows<F> + 16 * high + 8 * half + lane_group();
          const F factor = scale[row];
#pragma unroll
          for (int first = 0; first < kTiles; first += kHalf) {
            if (panel * kTiles + first >= tiles) break;
            Vector<F, 2> x[kHalf];
#pragma unroll
            for (int t = 0; t < kHalf; ++t) x[t] = of_row(row, panel * kTiles + first + t);
#pragma unroll
            for (int t = 0; t < kHalf; ++t) {
              const F* grad = sum[high][first + t] + 2 * half;
              of_row(row, panel * kTiles + first + t) = {x[t].x[0] > 0 ? factor * grad[0] : F(0),
                                                         x[t].x[1] > 0 ? factor * grad[1] : F(0)};
            }
          }
        }
    }
  }

  // The gradient of the first layer: dx over the samples, to which each chunk adds.
  __device__ __forceinline__ void add_first_gradient(bool first_part) const {
    if (!g.first) return;
    for (int e = static_cast<int>(threadIdx.x); e < l.states * l.agents * l.hidden; e += threads()) {
      const int of_agent = e / l.hidden, unit = e % l.hidden;  // of the unit's [states, n]
      int of_state = of_agent;
      const int agent = l.of_agents.divide(of_state), row = agent * l.joint() + of_state * l.samples;
      if (unit >= p.hidden || chunk.state + of_state >= p.states) continue;
      F* to = static_cast<F*>(g.first) + (chunk.state * p.agents + of_agent) * p.hidden + unit;
      const F before = first_part ? F(0) : *to;
      F sum = 0;
#pragma unroll 8
      for (int k = 0; k < l.samples; ++k) sum += chunk.template vector<1>(row + k, unit).x[0];
      *to = before + sum;
    }
  }

  // dc_j = sum_i dx_i - dx_j takes the place of dx.
  __device__ __forceinline__ void find_share_gradient() const {
    for (int e = static_cast<int>(threadIdx.x); e < l.joint() * l.hidden / 4; e += threads()) {
      int joint = e;
      const int column = l.quads.divide(joint) * 4;
      Vector<F, 4> sum = {};
#pragma unroll 4
      for (int agent = 0; agent < l.agents; ++agent) {
        const Vector<F, 4> x = chunk.template vector<4>(agent * l.joint() + joint, column);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum.x[i] += x.x[i];
      }
#pragma unroll 1
      for (int begin = 0; begin < l.agents; begin += kAtOnce) {
        Vector<F, 4> x[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) x[k] = chunk.template vector<4>(chunk.row_of(begin + k, joint), column);
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) x[k].x[i] = sum.x[i] - x[k].x[i];
          chunk.template vector<4>(chunk.row_of(begin + k, joint), column) = x[k];
        }
      }
    }
  }

 private:
  // What the lane has of a row of x in a tile of columns.
  __device__ __forceinline__ Vector<F, 2>& of_row(int row, int tile) const {
    return chunk.template vector<2>(row, 8 * tile + 2 * lane_item());
  }
};

}  // namespace emix::marginal
