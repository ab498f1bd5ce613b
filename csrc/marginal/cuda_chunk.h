// What a block has of its unit at once: some joint actions of its states, their sums S^k, and the first layer of every
// row from these.
#pragma once
#include "marginal/cuda_layout.h"

namespace emix::marginal {

// Neighbours, loaded in accesses of up to 16 bytes.
template <class F, int kWidth>
struct alignas(kWidth * sizeof(F) > 16 ? 16 : kWidth * sizeof(F)) Vector {
  F x[kWidth];
};

// One row: an agent under one joint action. Absent ones read what another has.
struct Row {
  int joint, agent;  // its joint action of the chunk; its place among the unit's [states, n]
  int share;         // the row of W_action; without an index the agent's number
  bool there;
};

template <class F>
struct Chunk {
  const Problem& p;  // first and w_action with H padded
  const Layout& l;
  const Shared<int32_t> own;  // rows of W_action [joint, n]; -1: out of range
  const int total;            // where S lies in shared memory [joint, stride]
  int64_t state = 0, sample = 0;

  static EMIX_HD int own_bytes(int agents) { return agents * static_cast<int>(sizeof(int32_t)); }

  __device__ __forceinline__ Chunk(const Problem& problem, const Layout& layout, int offset)
      : p(problem),
        l(layout),
        own(offset, layout.joint() * static_cast<int>(problem.agents)),
        total(offset + (layout.joint() * own_bytes(static_cast<int>(problem.agents)) + 15) / 16 * 16) {}

  // Bytes of one joint action, and those that rounding up may add.
  static int bytes(const Problem& p, int stride) {
    return own_bytes(static_cast<int>(p.agents)) + stride * static_cast<int>(sizeof(F));
  }
  static constexpr int kSlack = 16;

  __device__ __forceinline__ int agents() const { return static_cast<int>(p.agents); }
  __device__ __forceinline__ int rows() const { return l.joint() * agents(); }
  __device__ __forceinline__ bool there(int of_state, int of_sample) const {
    return state + of_state < p.states && sample + of_sample < p.samples;
  }
  __device__ __forceinline__ int64_t state_at(int of_state) const {
    return state + of_state < p.states ? state + of_state : p.states - 1;
  }
  __device__ __forceinline__ int64_t place(int of_state, int of_sample, int agent) const {
    const int64_t k = sample + of_sample < p.samples ? sample + of_sample : p.samples - 1;
    return p.place(k, state_at(of_state), agent);
  }

  // All of the block's threads together; the sums are there after the next barrier.
  __device__ __forceinline__ void load(int64_t unit, int chunk) {
    state = unit * l.states, sample = int64_t(chunk) * l.samples;
    if (!p.continuous) {
      for (int at = static_cast<int>(threadIdx.x); at < rows(); at += kBlock) {
        int joint = at;
        const int agent = l.agents.divide(joint);
        int of_state = joint;
        const int of_sample = l.per_state.divide(of_state);
        const int64_t index = p.index(place(of_state, of_sample, agent));
        own[at] = index >= 0 && index < p.choices ? static_cast<int32_t>(agent * p.choices + index) : -1;
      }
      block_barrier();
    }
    const Shared<Vector<F, 4>> sums(total, l.joint() * l.stride / 4);
    for (int at = static_cast<int>(threadIdx.x); at < l.joint() * l.hidden / 4; at += kBlock) {
      int joint = at;
      const int quad = l.quads.divide(joint);
      Vector<F, 4> sum = {};
#pragma unroll 2
      for (int agent = 0; agent < agents(); ++agent) {
        const Vector<F, 4> share = share_of<4>(row_of(joint, agent), quad);
        const bool known = p.continuous || own[joint * agents() + agent] >= 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) sum.x[e] += known ? share.x[e] : F(NAN);
      }
      sums[joint * l.stride / 4 + quad] = sum;
    }
  }

  __device__ __forceinline__ Row row(int at) const {
    const int last = rows() - 1;
    int agent = at < last ? at : last;
    const int of_sample = l.per_state.divide(agent);
    int of_state = agent;
    agent = l.agents.divide(of_state);
    Row result = row_of(of_state * l.samples + of_sample, agent);
    result.agent = static_cast<int>(state_at(of_state) - state) * agents() + agent;
    result.there = at <= last && there(of_state, of_sample);
    return result;
  }

  // Where the row's agent and state lie among [R, n].
  __device__ __forceinline__ int64_t value_of(const Row& row) const { return state * p.agents + row.agent; }

  // Units kWidth at .. of first_i + S^k - c_i^k, before the ReLU.
  template <int kWidth>
  __device__ __forceinline__ Vector<F, kWidth> before_relu(const Row& row, int at) const {
    const F* first = static_cast<const F*>(p.first) + state * p.agents * l.hidden;
    Vector<F, kWidth> x = reinterpret_cast<const Vector<F, kWidth>*>(first + int64_t(row.agent) * l.hidden)[at];
    const Vector<F, kWidth> sum =
        Shared<Vector<F, kWidth>>(total, l.joint() * l.stride / kWidth)[row.joint * l.stride / kWidth + at];
    const Vector<F, kWidth> share = share_of<kWidth>(row, at);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) x.x[e] += sum.x[e] - share.x[e];
    return x;
  }

  static __device__ __forceinline__ F relu(F x) { return x < 0 ? F(0) : x; }  // a NaN stays one

 private:
  __device__ __forceinline__ Row row_of(int joint, int agent) const {
    const int index = p.continuous ? agent : own[joint * agents() + agent];
    return {joint, agent, index < 0 ? 0 : index, false};
  }

  template <int kWidth>
  __device__ __forceinline__ Vector<F, kWidth> share_of(const Row& row, int at) const {
    const F* w_action = static_cast<const F*>(p.w_action);
    if (!p.continuous) return reinterpret_cast<const Vector<F, kWidth>*>(w_action + int64_t(row.share) * l.hidden)[at];
    int of_state = row.joint;
    const int of_sample = l.per_state.divide(of_state);
    const F* action = static_cast<const F*>(p.actions) + place(of_state, of_sample, row.share) * p.choices;
    Vector<F, kWidth> share = {};
#pragma unroll 1
    for (int d = 0; d < p.choices; ++d) {
      const F* of_number = w_action + (row.share * p.choices + d) * l.hidden;
      const Vector<F, kWidth> w = reinterpret_cast<const Vector<F, kWidth>*>(of_number)[at];
#pragma unroll
      for (int e = 0; e < kWidth; ++e) share.x[e] += action[d] * w.x[e];
    }
    return share;
  }
};

// z of kHigh tiles of 16 rows and one panel of columns, up to the bias: sums of a lane in the places of D.
template <class Units, class F = typename Units::Number>
struct Panel {
  F sum[kHigh<F>][kTiles][4];

  __device__ __forceinline__ Panel(const Chunk<F>& chunk, const Fragments<Units>& w, const Row (&rows)[kHigh<F>][2],
                                   int panel) {
    const int lane = threadIdx.x % kWarp, item = lane % 4, tiles = chunk.l.column_tiles();
#pragma unroll
    for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[high][t][i] = 0;
#pragma unroll 1  // what a lane holds of the next ones would not fit into its registers
    for (int group = 0; group < chunk.l.hidden / 16; ++group) {
      Vector<F, 4> x[kHigh<F>][2];
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          x[high][half] = chunk.template before_relu<4>(rows[high][half], 4 * group + item);
#pragma unroll
          for (int e = 0; e < 4; ++e) x[high][half].x[e] = Chunk<F>::relu(x[high][half].x[e]);
        }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        typename Units::Left left[kHigh<F>];
#pragma unroll
        for (int high = 0; high < kHigh<F>; ++high) {
          const F four[4] = {x[high][0].x[2 * step], x[high][1].x[2 * step], x[high][0].x[2 * step + 1],
                             x[high][1].x[2 * step + 1]};
          left[high] = Units::left(four);
        }
        const typename Units::Right* right = w.forward + (int64_t(2 * group + step) * tiles + panel * kTiles) * kWarp;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (panel * kTiles + t >= tiles) break;
          const typename Units::Right of_tile = right[t * kWarp + lane];
#pragma unroll
          for (int high = 0; high < kHigh<F>; ++high) Units::multiply(sum[high][t], left[high], of_tile);
        }
      }
    }
  }
};

// The lane's rows of a warp's tile: those of D, and of A.
template <class F>
__device__ __forceinline__ void find_rows(const Chunk<F>& chunk, int tile, Row (&rows)[kHigh<F>][2]) {
  const int group = threadIdx.x % kWarp / 4;
#pragma unroll
  for (int high = 0; high < kHigh<F>; ++high)
#pragma unroll
    for (int half = 0; half < 2; ++half) rows[high][half] = chunk.row((tile * kHigh<F> + high) * 16 + half * 8 + group);
}

template <class F>
__device__ __forceinline__ int row_tiles(const Chunk<F>& chunk) {
  return (chunk.rows() + 16 * kHigh<F> - 1) / (16 * kHigh<F>);
}

}  // namespace emix::marginal
