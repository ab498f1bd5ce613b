// What a chunk adds to its block's sums of gradients.
#pragma once
#include "marginal/cuda_backward_block.h"
#include "marginal/cuda_sums.h"

namespace emix::marginal {

template <class Units>
struct BlockSums {
  using F = typename Units::Number;
  const BackwardBlock<Units>& block;
  const Problem& p;
  const Layout& l;
  const SumsLayout& at;
  F* sums;  // of this block

  // A warp has 32 units by 32 outputs at a time, of every `splits`th 16 rows. The lane has units 4 group .. of these:
  // two tiles of 16, the first with units 0 and 1 of every four.
  __device__ __forceinline__ void add_products(bool first_chunk) const {
    const int across = l.outputs / kHalfPanel;
    for (int task = warp_index(); task < l.hidden / kHalfPanel * across * at.splits; task += warps()) {
      const int split = task % at.splits, tile = task / at.splits;
      const int unit = tile / across * kHalfPanel, output = tile % across * kHalfPanel;
      F sum[2][kHalf][4] = {}, of_bits[kHalf] = {};
#pragma unroll 1
      for (int rows = split; rows < block.chunk.memory.rows / 16; rows += at.splits) {
#pragma unroll
        for (int half = 0; half < 2; ++half) multiply_rows(sum, of_bits, rows, half, unit, output);
      }
      F* to = sums + at.products + (int64_t(split) * l.hidden + unit + 4 * lane_group()) * l.outputs + output +
              2 * lane_item();
      Vector<F, 2> pairs[4 * kHalf];
#pragma unroll
      for (int k = 0; k < 4 * kHalf; ++k) {
        const F* pair = sum[k / 2 % 2][k / 4] + k % 2 * 2;
        pairs[k] = {pair[0], pair[1]};
      }
      F* const rows[4] = {to, to + l.outputs, to + 2 * l.outputs, to + 3 * l.outputs};
      add_vectors(pairs, first_chunk, [&](int k) { return rows[k % 4] + k / 4 * 8; }, [](int) { return true; });
      if (unit == 0) add_bits(sums + at.bits + int64_t(split) * l.outputs + output, of_bits, first_chunk);
    }
  }

  // A warp has 16 actions of an agent by 64 units at a time. Number `column` of tile t is unit 4 column + t % 4 of the
  // half panel t / 4.
  __device__ __forceinline__ void add_action_gradient(bool first_chunk) const {
    const int blocks = static_cast<int>((p.choices + 15) / 16), panels = l.hidden_panels();
    for (int task = warp_index(); task < l.agents * blocks * panels; task += warps()) {
      const int panel = task % panels, agent = task / panels / blocks,
                choice = task / panels % blocks * 16 + lane_group();
      F sum[1][kTiles][4] = {};
      if (p.continuous)
        multiply_actions<true>(sum, agent, choice, panel);
      else
        multiply_actions<false>(sum, agent, choice, panel);
      Vector<F, 4> fours[8];
#pragma unroll
      for (int k = 0; k < 8; ++k)
#pragma unroll
        for (int t = 0; t < kHalf; ++t) fours[k].x[t] = sum[0][k / 4 * kHalf + t][k % 4];
      F* to = sums + at.action + (int64_t(agent) * p.choices + choice) * l.hidden + panel * kPanel + 8 * lane_item();
      F* const rows[2] = {to, to + 8 * l.hidden};
      const bool chosen[2] = {choice < p.choices, choice + 8 < p.choices};
      const bool units[2] = {true, panel * kTiles + kHalf < l.hidden_tiles()};
      add_vectors(
          fours, first_chunk, [&](int k) { return rows[k / 2 % 2] + k / 4 * kHalfPanel + k % 2 * 4; },
          [&](int k) { return chosen[k / 2 % 2] && units[k / 4]; });
    }
  }

  __device__ __forceinline__ void add_values(bool first_chunk) const {
    F sum = 0;
    const int64_t first = block.chunk.state * p.agents, end = p.states * p.agents;
    for (int64_t e = first + lane_index(); e < first + l.states * p.agents && e < end; e += kWarp)
      sum += static_cast<const F*>(block.g.value)[e];
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane_index() == 0) sums[at.value] = first_chunk ? sum : sums[at.value] + sum;
  }

 private:
  // M of a warp's units and outputs, and m, by the 8 rows of a half of a tile of 16.
  __device__ __forceinline__ void multiply_rows(F (&sum)[2][kHalf][4], F (&of_bits)[kHalf], int tile, int half,
                                                int unit, int output) const {
    Vector<F, 4> x[2];
    F factors[2];
    uint32_t found[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int of_half = lane_item() + 4 * i, row = tile * 16 + half * 8 + of_half;
      factors[i] = block.scale[row], x[i] = block.chunk.template vector<4>(row, unit + 4 * lane_group());
      // The row's bit of column `group` is in D of lane 4 of_half + group / 2, number 2 half + group % 2.
      found[i] = block.word(tile, output / kPanel, 4 * of_half + lane_group() / 2) >>
                 (output % kPanel / 2 + 2 * half + lane_group() % 2);
    }
    typename Units::Left left[2];
#pragma unroll
    for (int high = 0; high < 2; ++high)
      left[high] = Units::left({factors[0] * x[0].x[2 * high], factors[0] * x[0].x[2 * high + 1],
                                factors[1] * x[1].x[2 * high], factors[1] * x[1].x[2 * high + 1]});
    typename Units::ExactRight right[kHalf];
#pragma unroll
    for (int t = 0; t < kHalf; ++t)
      right[t] = Units::exact_right(Units::bit(found[0], 4 * t), Units::bit(found[1], 4 * t));
    Units::multiply(sum, 0, left, right);
    if (unit > 0) return;
#pragma unroll
    for (int t = 0; t < kHalf; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i) of_bits[t] += found[i] >> 4 * t & 1u ? factors[i] : F(0);
  }

  // Vectors to those of the block's sums at place(k), where there(k) holds: all are loaded before one is stored.
  template <int kWidth, int kCount, class Place, class There>
  static __device__ __forceinline__ void add_vectors(Vector<F, kWidth> (&x)[kCount], bool first_chunk,
                                                     const Place& place, const There& there) {
    if (!first_chunk) {
      Vector<F, kWidth> before[kCount] = {};
#pragma unroll
      for (int k = 0; k < kCount; ++k)
        if (there(k)) before[k] = *reinterpret_cast<const Vector<F, kWidth>*>(place(k));
#pragma unroll
      for (int k = 0; k < kCount; ++k)
#pragma unroll
        for (int e = 0; e < kWidth; ++e) x[k].x[e] += before[k].x[e];
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (there(k)) *reinterpret_cast<Vector<F, kWidth>*>(place(k)) = x[k];
  }

  // m of the outputs of a half panel.
  __device__ __forceinline__ void add_bits(F* to, const F (&of_bits)[kHalf], bool first_chunk) const {
    Vector<F, 1> totals[kHalf];
#pragma unroll
    for (int t = 0; t < kHalf; ++t) {
      F total = of_bits[t];
      total += shuffle_xor(total, 1), total += shuffle_xor(total, 2);
      totals[t].x[0] = total;
    }
    add_vectors(
        totals, first_chunk, [&](int t) { return to + 8 * t + lane_group(); }, [](int) { return lane_item() == 0; });
  }

  template <bool kNumbers>
  __device__ __forceinline__ void multiply_actions(F (&sum)[1][kTiles][4], int agent, int choice, int panel) const {
#pragma unroll 1
    for (int step = 0; step * 8 < l.joint(); ++step) {
      const int joint[2] = {step * 8 + lane_item(), step * 8 + lane_item() + 4};
      std::conditional_t<kNumbers, typename Units::Left, typename Units::ExactLeft> left[1];
      if constexpr (kNumbers)
        left[0] = Units::left({number(joint[0], agent, choice), number(joint[0], agent, choice + 8),
                               number(joint[1], agent, choice), number(joint[1], agent, choice + 8)});
      else
        left[0] = Units::exact_left({chosen(joint[0], agent, choice), chosen(joint[0], agent, choice + 8),
                                     chosen(joint[1], agent, choice), chosen(joint[1], agent, choice + 8)});
#pragma unroll
      for (int first = 0; first < kTiles; first += kHalf) {
        if (panel * kTiles + first >= l.hidden_tiles()) break;
        Vector<F, 4> grad[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          grad[i] = block.chunk.template vector<4>(agent * l.joint() + (joint[i] < l.joint() ? joint[i] : 0),
                                                   panel * kPanel + 8 * first + 4 * lane_group());
        typename Units::Right right[kHalf];
#pragma unroll
        for (int t = 0; t < kHalf; ++t) right[t] = Units::right(grad[0].x[t], grad[1].x[t]);
        Units::multiply(sum, first, left, right);
      }
    }
  }

  __device__ __forceinline__ typename Units::Exact chosen(int joint, int agent, int choice) const {
    const int wanted = agent * static_cast<int>(p.choices) + choice;
    const int own = block.chunk.own[agent * l.joint() + (joint < l.joint() ? joint : 0)];
    return Units::one(own == wanted && joint < l.joint());
  }
  __device__ __forceinline__ F number(int joint, int agent, int choice) const {
    if (joint >= l.joint() || choice >= p.choices) return 0;
    return static_cast<const F*>(p.actions)[block.chunk.place(joint, agent) * p.choices + choice];
  }
};

}  // namespace emix::marginal
