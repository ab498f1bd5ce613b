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

  // A warp has 32 units, the lane those of add_products, by 32 actions of an agent at a time.
  __device__ __forceinline__ void add_action_gradient(bool first_chunk) const {
    const int across = l.hidden / kHalfPanel, blocks = (choices() + kHalfPanel - 1) / kHalfPanel;
    for (int task = warp_index(); task < l.agents * blocks * across; task += warps()) {
      const int unit = task % across * kHalfPanel, agent = task / across / blocks;
      const int choice = task / across % blocks * kHalfPanel, left = choices() - choice;
      F sum[2][kHalf][4] = {};
      p.continuous ? multiply_actions<true>(sum, agent, choice, unit)
                   : multiply_actions<false>(sum, agent, choice, unit);
      Vector<F, 4> fours[2 * kHalf];
#pragma unroll
      for (int k = 0; k < 2 * kHalf; ++k)
#pragma unroll
        for (int e = 0; e < 4; ++e) fours[k].x[e] = sum[e / 2][k / 2][e % 2 * 2 + k % 2];
      F* to = sums + at.action + (int64_t(agent) * choices() + choice + 2 * lane_item()) * l.hidden + unit +
              4 * lane_group();
      add_vectors(
          fours, first_chunk, [&](int k) { return to + (k / 2 * 8 + k % 2) * l.hidden; },
          [&](int k) { return k / 2 * 8 + 2 * lane_item() + k % 2 < left; });
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

  // dW_action of a warp's units and actions. The left side is dc, the right side what the agent chose.
  template <bool kNumbers>
  __device__ __forceinline__ void multiply_actions(F (&sum)[2][kHalf][4], int agent, int choice, int unit) const {
#pragma unroll 1
    for (int step = 0; step < steps(l.joint()); ++step) {
      const int joint[2] = {step * 8 + lane_item(), step * 8 + lane_item() + 4};
      Vector<F, 4> grad[2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        grad[i] = block.chunk.template vector<4>(row_of(agent, joint[i]), unit + 4 * lane_group());
      typename Units::Left left[2];
#pragma unroll
      for (int high = 0; high < 2; ++high)
        left[high] =
            Units::left({grad[0].x[2 * high], grad[0].x[2 * high + 1], grad[1].x[2 * high], grad[1].x[2 * high + 1]});
#pragma unroll
      for (int t = 0; t < kHalf; ++t) {
        if (choice + 8 * t >= choices()) break;
        const int of_lane = choice + 8 * t + lane_group();
        if constexpr (kNumbers) {
          const typename Units::Right right[1] = {
              Units::right(number(joint[0], agent, of_lane), number(joint[1], agent, of_lane))};
          Units::multiply(sum, t, left, right);
        } else {
          const typename Units::ExactRight right[1] = {
              Units::exact_right(chosen(joint[0], agent, of_lane), chosen(joint[1], agent, of_lane))};
          Units::multiply(sum, t, left, right);
        }
      }
    }
  }

  __device__ __forceinline__ int choices() const { return static_cast<int>(p.choices); }
  // Past the last joint action comes the first one again, times 0.
  __device__ __forceinline__ int row_of(int agent, int joint) const {
    return agent * l.joint() + (joint < l.joint() ? joint : 0);
  }
  __device__ __forceinline__ typename Units::Exact chosen(int joint, int agent, int choice) const {
    return Units::one(block.chunk.own[row_of(agent, joint)] == agent * choices() + choice && joint < l.joint() &&
                      choice < choices());
  }
  __device__ __forceinline__ F number(int joint, int agent, int choice) const {
    if (joint >= l.joint() || choice >= choices()) return 0;
    return static_cast<const F*>(p.actions)[block.chunk.place(joint, agent) * choices() + choice];
  }
};

}  // namespace emix::marginal
