// A unit back by a block, a chunk of joint actions after the other. All is products of 16 x 8 tiles:
//
//   z again, of which a bit an element stays: whether y > 0                                      rows x H2
//   dx = G/K (bits) (W_hidden diag(w_head))', 0 where x is not > 0, 64 units at a time           rows x H
//   dW_action,j = (one-hot a_j, or the numbers)' (sum_i dx_i - dx_j)                             A x H
//   M = x' G/K (bits),   m = sum over rows of G/K (bits)                                         H x H2
//
// from which dW_hidden = M diag(w_head), db_hidden = m w_head, and because y = bits (W_hidden' x + b_hidden),
// dw_head = sum over H of W_hidden M + b_hidden m. Each block adds to sums of its own; another kernel adds up the
// blocks' in order.
#pragma once
#include "marginal/cuda_chunk.h"

namespace emix::marginal {

// A block's sums of gradients, one after the other.
struct SumsLayout {
  int choices;                                    // A padded to 16
  int64_t action, hidden, bits, value, elements;  // begin of [n, A, H], M [H, H2], m [H2], sum of G []

  SumsLayout(const Problem& p, const Layout& l) {
    choices = static_cast<int>((p.choices + 15) / 16 * 16);
    action = 0, hidden = p.agents * choices * l.hidden;
    bits = hidden + int64_t(l.hidden) * l.outputs, value = bits + l.outputs, elements = value + 1;
  }
};

// What of the shared memory is whose.
template <class F>
struct BackwardMemory {
  int bits, x_grad, over_agents, bytes;  // beginnings; in front lies the chunk

  EMIX_HD static int tile_rows() { return 16 * kHigh<F>; }
  EMIX_HD static int rounded(int x, int to) { return (x + to - 1) / to * to; }
  BackwardMemory(const Problem& p, int stride, int panels, int joint) {
    const int rows = rounded(joint * static_cast<int>(p.agents), tile_rows());
    bits = rounded(joint * Chunk<F>::bytes(p, stride) + Chunk<F>::kSlack, 16);
    x_grad = bits + rows / 16 * panels * kWarp * static_cast<int>(sizeof(uint32_t));
    over_agents = x_grad + rows * kPanelStride * static_cast<int>(sizeof(F));
    bytes = over_agents + joint * kPanelStride * static_cast<int>(sizeof(F));
  }
};

template <class Units>
struct BackwardBlock {
  using F = typename Units::Number;
  const Problem& p;
  const Layout& l;
  const Fragments<Units>& w;
  const Gradients& g;
  const SumsLayout& at;
  F* sums;
  Chunk<F> chunk;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, group = lane / 4, item = lane % 4;
  const int tile_count, panels;
  Shared<uint32_t> bits;  // of a tile of 16 rows, a panel and a lane: bit 4 t + i is that of D's number i in tile t
  Shared<F> x_grad;       // of the panel of units [rows, 64]
  Shared<F> over_agents;  // its sum over agents [joint, 64]

  __device__ __forceinline__ BackwardBlock(const Problem& problem, const Layout& layout,
                                           const BackwardMemory<F>& memory, const Fragments<Units>& fragments,
                                           const Gradients& gradients, const SumsLayout& places, F* own_sums)
      : p(problem),
        l(layout),
        w(fragments),
        g(gradients),
        at(places),
        sums(own_sums),
        chunk(problem, layout, 0),
        tile_count(row_tiles(chunk)),
        panels((layout.column_tiles() + kTiles - 1) / kTiles),
        bits(memory.bits, tile_count * kHigh<F> * panels * kWarp),
        x_grad(memory.x_grad, tile_count * BackwardMemory<F>::tile_rows() * kPanelStride),
        over_agents(memory.over_agents, layout.joint() * kPanelStride) {}

  __device__ __forceinline__ uint32_t& word(int row_tile, int panel, int of_lane) const {
    return bits[(row_tile * panels + panel) * kWarp + of_lane];
  }
  __device__ __forceinline__ F scale(const Row& row) const {
    return row.there ? static_cast<const F*>(g.value)[chunk.value_of(row)] / static_cast<F>(p.samples) : F(0);
  }

  __device__ __forceinline__ void find_bits() const {
    for (int tile = warp; tile < tile_count; tile += kWarps) {
      Row rows[kHigh<F>][2];
      find_rows(chunk, tile, rows);
      for (int panel = 0; panel < panels; ++panel) {
        const Panel<Units> z(chunk, w, rows, panel);
        uint32_t found[kHigh<F>] = {};
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (panel * kTiles + t >= l.column_tiles()) break;
          const int column = (panel * kTiles + t) * 8 + sum_column(0);
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int high = 0; high < kHigh<F>; ++high)
              found[high] |= uint32_t(z.sum[high][t][i] + w.b_hidden[column + i % 2] > 0) << (4 * t + i);
        }
#pragma unroll
        for (int high = 0; high < kHigh<F>; ++high) word(tile * kHigh<F> + high, panel, lane) = found[high];
      }
    }
  }

  // dx of the units 64 of_units .. into shared memory.
  __device__ __forceinline__ void find_x_gradient(int of_units) const {
    const int first_tile = of_units * kTiles;
    for (int tile = warp; tile < tile_count; tile += kWarps) {
      F sum[kHigh<F>][kTiles][4] = {};
#pragma unroll 1
      for (int step = 0; step < l.column_tiles(); ++step) {
        typename Units::ExactLeft left[kHigh<F>];
#pragma unroll
        for (int high = 0; high < kHigh<F>; ++high) {
          const uint32_t found = word(tile * kHigh<F> + high, step / kTiles, lane) >> step % kTiles * 4;
          const F four[4] = {F(found & 1u), F(found >> 2 & 1u), F(found >> 1 & 1u), F(found >> 3 & 1u)};
          left[high] = Units::exact_left(four);
        }
        const typename Units::Right* right = w.backward + (int64_t(step) * l.hidden_tiles() + first_tile) * kWarp;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (first_tile + t >= l.hidden_tiles()) break;
          const typename Units::Right of_tile = right[t * kWarp + lane];
#pragma unroll
          for (int high = 0; high < kHigh<F>; ++high) Units::multiply(sum[high][t], left[high], of_tile);
        }
      }
      Row rows[kHigh<F>][2];
      find_rows(chunk, tile, rows);
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const F factor = scale(rows[high][half]);
          const int row = (tile * kHigh<F> + high) * 16 + half * 8 + group;
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            if (first_tile + t >= l.hidden_tiles()) break;
            const Vector<F, 2> x = chunk.template before_relu<2>(rows[high][half], (first_tile + t) * 4 + item);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const bool passes = rows[high][half].there && x.x[i] > 0;
              x_grad[row * kPanelStride + t * 8 + 2 * item + i] = passes ? factor * sum[high][t][2 * half + i] : F(0);
            }
          }
        }
    }
  }

  // Sums of dx over the agents, and over the samples: the gradient of the first layer, to which each chunk adds.
  __device__ __forceinline__ void sum_x_gradient(int of_units, bool first_chunk) const {
    const int width = l.hidden - of_units * kPanel < kPanel ? l.hidden - of_units * kPanel : kPanel;
    for (int e = static_cast<int>(threadIdx.x); e < l.joint() * kPanel; e += kBlock) {
      const int joint = e / kPanel, column = e % kPanel;
      if (column >= width) continue;
      F sum = 0;
      for (int agent = 0; agent < chunk.agents(); ++agent) sum += x_grad[row_of(joint, agent) * kPanelStride + column];
      over_agents[joint * kPanelStride + column] = sum;
    }
    if (!g.first) return;
    for (int e = static_cast<int>(threadIdx.x); e < l.states * chunk.agents() * kPanel; e += kBlock) {
      const int of_agent = e / kPanel, column = e % kPanel, unit = of_units * kPanel + column;
      const int64_t row = chunk.state * p.agents + of_agent;
      if (unit >= p.hidden || row >= p.states * p.agents) continue;
      F sum = 0;
      for (int k = 0; k < l.samples; ++k) sum += x_grad[(of_agent * l.samples + k) * kPanelStride + column];
      F* to = static_cast<F*>(g.first) + row * p.hidden + unit;
      *to = first_chunk ? sum : *to + sum;
    }
  }

  __device__ __forceinline__ int row_of(int joint, int agent) const {
    int of_state = joint;
    const int of_sample = l.per_state.divide(of_state);
    return (of_state * chunk.agents() + agent) * l.samples + of_sample;
  }

  // A warp has 16 actions of an agent at a time, by 64 units.
  __device__ __forceinline__ void add_action_gradient(int of_units) const {
    const int blocks = at.choices / 16, first_tile = of_units * kTiles;
    for (int task = warp; task < chunk.agents() * blocks; task += kWarps) {
      const int agent = task / blocks, first = task % blocks * 16;
      F sum[kTiles][4] = {};
#pragma unroll 1
      for (int step = 0; step * 8 < l.joint(); ++step) {
        const int joint[2] = {step * 8 + item, step * 8 + item + 4};
        const bool there[2] = {joint[0] < l.joint(), joint[1] < l.joint()};
        const int row[2] = {there[0] ? row_of(joint[0], agent) : 0, there[1] ? row_of(joint[1], agent) : 0};
        F four[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          four[i] = there[i / 2] ? factor(joint[i / 2], agent, first + group + i % 2 * 8) : F(0);
        const typename Units::Left left = Units::left(four);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (first_tile + t >= l.hidden_tiles()) break;
          const int column = t * 8 + group;
          F grad[2];
#pragma unroll
          for (int i = 0; i < 2; ++i)
            grad[i] = there[i] ? over_agents[joint[i] * kPanelStride + column] - x_grad[row[i] * kPanelStride + column]
                               : F(0);
          Units::multiply(sum[t], left, Units::right(grad[0], grad[1]));
        }
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (first_tile + t >= l.hidden_tiles()) break;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int64_t action = int64_t(agent) * at.choices + first + sum_row(i);
          sums[at.action + action * l.hidden + (first_tile + t) * 8 + sum_column(i)] += sum[t][i];
        }
      }
    }
  }

  // What the agent's share of the first layer is, by the row `choice` of its W_action.
  __device__ __forceinline__ F factor(int joint, int agent, int choice) const {
    if (!p.continuous) return F(chunk.own[joint * chunk.agents() + agent] == agent * p.choices + choice);
    int of_state = joint;
    const int of_sample = l.per_state.divide(of_state);
    if (choice >= p.choices) return 0;
    return static_cast<const F*>(p.actions)[chunk.place(of_state, of_sample, agent) * p.choices + choice];
  }

  // A warp has 16 units by 32 outputs at a time; those of the first units have m, too.
  __device__ __forceinline__ void add_products() const {
    constexpr int kHalf = kTiles / 2;
    const int halves = (l.column_tiles() + kHalf - 1) / kHalf;
    for (int task = warp; task < l.hidden / 16 * halves; task += kWarps) {
      const int unit = task / halves * 16 + group, tile = task % halves * kHalf;
      F sum[kHalf][4] = {}, of_bits[kHalf] = {};
#pragma unroll 1
      for (int step = 0; step * 8 < chunk.rows(); ++step) {
        F factors[2], four[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const Row row = chunk.row(step * 8 + item + 4 * i);
          factors[i] = scale(row);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const F x = Chunk<F>::relu(chunk.template before_relu<1>(row, unit + 8 * half).x[0]);
            four[2 * i + half] = row.there ? factors[i] * x : F(0);
          }
        }
        const typename Units::Left left = Units::left(four);
        // Row item of these 8 is row `step % 2 * 8 + item` of its tile of 16: in D of lane 4 item + column / 2.
        const uint32_t found[2] = {word(step / 2, tile / kTiles, 4 * item + group / 2) >> bit(step, tile),
                                   word(step / 2, tile / kTiles, 4 * (item + 4) + group / 2) >> bit(step, tile)};
#pragma unroll
        for (int t = 0; t < kHalf; ++t) {
          if (tile + t >= l.column_tiles()) break;
          const F y[2] = {F(found[0] >> 4 * t & 1u), F(found[1] >> 4 * t & 1u)};
          Units::multiply(sum[t], left, Units::exact_right(y[0], y[1]));
          of_bits[t] += factors[0] * y[0] + factors[1] * y[1];
        }
      }
#pragma unroll
      for (int t = 0; t < kHalf; ++t) {
        if (tile + t >= l.column_tiles()) break;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int64_t row = unit - group + sum_row(i);
          sums[at.hidden + row * l.outputs + (tile + t) * 8 + sum_column(i)] += sum[t][i];
        }
        F total = of_bits[t];
        total += shuffle_xor(total, 1), total += shuffle_xor(total, 2);
        if (task < halves && item == 0) sums[at.bits + (tile + t) * 8 + group] += total;
      }
    }
  }

  // Where in a word of these 8 rows the bit of column `group` of a tile lies.
  __device__ __forceinline__ int bit(int step, int tile) const { return tile % kTiles * 4 + step % 2 * 2 + group % 2; }

  __device__ __forceinline__ void add_values() const {
    F sum = 0;
    const int64_t first = chunk.state * p.agents, end = p.states * p.agents;
    for (int64_t e = first + lane; e < first + l.states * p.agents && e < end; e += kWarp)
      sum += static_cast<const F*>(g.value)[e];
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane == 0) sums[at.value] += sum;
  }
};

template <class Units>
__global__ void __launch_bounds__(kBlock, kBlocksAtOnce)
    marginal_backward(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                      const __grid_constant__ BackwardMemory<typename Units::Number> memory,
                      const __grid_constant__ Fragments<Units> w, const __grid_constant__ Gradients g,
                      const __grid_constant__ SumsLayout places, typename Units::Number* sums) {
  using F = typename Units::Number;
  F* own = sums + blockIdx.x * places.elements;
  for (int64_t e = threadIdx.x; e < places.elements; e += kBlock) own[e] = 0;
  BackwardBlock<Units> block(p, l, memory, w, g, places, own);
  block_barrier();
  for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
    for (int part = 0; part < l.chunks; ++part) {
      block.chunk.load(unit, part);
      block_barrier();
      block.find_bits();
      if (part == 0 && block.warp == 0) block.add_values();
      for (int of_units = 0; of_units * kTiles < l.hidden_tiles(); ++of_units) {
        block_barrier();
        block.find_x_gradient(of_units);
        block_barrier();
        block.sum_x_gradient(of_units, part == 0);
        block_barrier();
        block.add_action_gradient(of_units);
      }
      block.add_products();
      block_barrier();
    }
  }
}

// The blocks' sums, in order, into the first one's place.
template <class F>
__global__ void __launch_bounds__(kBlock) sum_blocks(F* sums, int64_t elements, int blocks) {
  for (int64_t e = thread_index(); e < elements; e += thread_count()) {
    F total = sums[e];
    for (int block = 1; block < blocks; ++block) total += sums[block * elements + e];
    sums[e] = total;
  }
}

template <class F>
__global__ void __launch_bounds__(kBlock)
    write_gradients(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                    const __grid_constant__ Gradients g, const __grid_constant__ SumsLayout at, const F* sums) {
  const F *w_hidden = static_cast<const F*>(p.w_hidden), *w_head = static_cast<const F*>(p.w_head);
  const int H = static_cast<int>(p.hidden), H2 = static_cast<int>(p.outputs), A = static_cast<int>(p.choices);
  for (int64_t e = thread_index(); e < p.agents * A * H; e += thread_count()) {
    const int64_t row = e / H, agent = row / A;
    static_cast<F*>(g.w_action)[e] = sums[at.action + (agent * at.choices + row - agent * A) * l.hidden + e - row * H];
  }
  for (int64_t e = thread_index(); e < int64_t(H) * H2; e += thread_count()) {
    const int64_t row = e / H2, column = e - row * H2;
    static_cast<F*>(g.w_hidden)[e] = w_head[column] * sums[at.hidden + row * l.outputs + column];
  }
  for (int64_t j = thread_index(); j < H2; j += thread_count()) {
    const F of_bits = sums[at.bits + j];
    F head = static_cast<const F*>(p.b_hidden)[j] * of_bits;
    for (int row = 0; row < H; ++row)
      head += w_hidden[int64_t(row) * H2 + j] * sums[at.hidden + int64_t(row) * l.outputs + j];
    static_cast<F*>(g.w_head)[j] = head;
    static_cast<F*>(g.b_hidden)[j] = w_head[j] * of_bits;
  }
  if (thread_index() == 0) *static_cast<F*>(g.b_head) = sums[at.value];
}

}  // namespace emix::marginal
