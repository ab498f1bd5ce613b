// What a block has of its unit at once, in shared memory: x of every row of some joint actions. Every element is
// computed once and read by many warps, in three ways:
//
//   as the left side of z = x W_hidden, and written as dx: 8 rows by 4 pairs of columns at a time
//   as the left side of x' (...), and as the right side of (...)' dx: 4 rows by 8 groups of 4 columns
//
// Rows are 16 banks apart (H is a multiple of 32, and 16 more lie between), and in every second pair of rows the two
// halves of 16 columns have changed places: so neither way do lanes that are served together share a bank.
#pragma once
#include "marginal/cuda_layout.h"

namespace emix::marginal {

__device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }
__device__ __forceinline__ int warps() { return threads() / kWarp; }
__device__ __forceinline__ int warp_index() { return threadIdx.x / kWarp; }
__device__ __forceinline__ int lane_index() { return threadIdx.x % kWarp; }
__device__ __forceinline__ int lane_group() { return lane_index() / 4; }  // group and item of matrix_units.h
__device__ __forceinline__ int lane_item() { return threadIdx.x % 4; }

inline constexpr int kAtOnce = 5;  // agents whose numbers a thread has under way together

template <class F>
class Chunk {
 public:
  // Places in shared memory. What lies behind the chunk begins at `end`, a multiple of 16.
  struct Memory {
    int rows, stride;  // of x, rows rounded up to whole tiles
    int own, end;

    Memory(const Layout& l)
        : rows((l.rows() + kTileRows<F> - 1) / kTileRows<F> * kTileRows<F>),
          stride(l.hidden + 16),
          own(rows * stride * static_cast<int>(sizeof(F))),
          end((own + l.rows() * static_cast<int>(sizeof(int32_t)) + 15) / 16 * 16) {}
  };

  const Problem& p;  // first and w_action with H padded
  const Layout& l;
  const Memory& memory;
  const Shared<F> x;          // see vector()
  const Shared<int32_t> own;  // a row's row of W_action; -1: out of range
  int64_t state = 0, sample = 0;

  __device__ __forceinline__ Chunk(const Problem& problem, const Layout& layout, const Memory& places)
      : p(problem), l(layout), memory(places), x(0, places.rows * places.stride), own(places.own, layout.rows()) {
    for (int at = l.rows() * l.hidden + static_cast<int>(threadIdx.x); at < memory.rows * l.hidden; at += threads())
      vector<1>(at / l.hidden, at % l.hidden).x[0] = 0;
  }

  // kWidth columns of a row of x, of which `column` is the first and a multiple of kWidth.
  template <int kWidth>
  __device__ __forceinline__ Vector<F, kWidth>& vector(int row, int column) const {
    return reinterpret_cast<Vector<F, kWidth>&>(x[row * memory.stride + (column ^ (row & 2) << 2)]);
  }

  // Past the last agent comes the last one again, for loops that have kAtOnce at a time.
  __device__ __forceinline__ int agent_of(int agent) const { return agent < l.agents ? agent : l.agents - 1; }
  __device__ __forceinline__ int row_of(int agent, int joint) const { return agent_of(agent) * l.joint() + joint; }

  __device__ __forceinline__ bool there(int joint) const {
    const int of_sample = l.per_state.divide(joint);
    return state + joint < p.states && sample + of_sample < p.samples;
  }
  // Where the action of an agent under a joint action lies among [K, R, n]; absent ones have what another has.
  __device__ __forceinline__ int64_t place(int joint, int agent) const {
    const int of_sample = l.per_state.divide(joint);
    return p.place(sample + of_sample < p.samples ? sample + of_sample : p.samples - 1, state_at(joint), agent);
  }

  // All of the block's threads together; the indices are there after the next barrier.
  __device__ __forceinline__ void load_actions(int64_t unit, int chunk) {
    state = unit * l.states, sample = int64_t(chunk) * l.samples;
    if (p.continuous) return;
    for (int at = static_cast<int>(threadIdx.x); at < l.rows(); at += threads()) {
      int joint = at;
      const int agent = l.of_agents.divide(joint);
      const int64_t index = p.index(place(joint, agent));
      own[agent * l.joint() + joint] =
          index >= 0 && index < p.choices ? static_cast<int32_t>(agent * p.choices + index) : -1;
    }
  }

  // x = ReLU(first_i + S^k - c_i^k); 0 where there is no such joint action. A thread has four units of all agents of a
  // joint action: it puts their c_i^k in place, then x.
  __device__ __forceinline__ void find_x() const { p.continuous ? find_x_of<true>() : find_x_of<false>(); }

  static __device__ __forceinline__ F relu(F x) { return x < 0 ? F(0) : x; }  // a NaN stays one

 private:
  __device__ __forceinline__ int64_t state_at(int of_state) const {
    return state + of_state < p.states ? state + of_state : p.states - 1;
  }

  template <bool kNumbers>
  __device__ __forceinline__ void find_x_of() const {
    for (int at = static_cast<int>(threadIdx.x); at < l.joint() * l.hidden / 4; at += threads()) {
      int joint = at;
      const int column = l.quads.divide(joint) * 4;
      if (there(joint)) {
        add_first(joint, column, place_shares<kNumbers>(joint, column));
      } else {
        for (int agent = 0; agent < l.agents; ++agent) vector<4>(agent * l.joint() + joint, column) = {};
      }
    }
  }

  // c_j^k of all agents to where their x will be; S^k is returned. NaN where an index is out of range. Of kAtOnce agents
  // at a time everything is loaded before anything is stored; past the last one come its numbers again.
  template <bool kNumbers>
  __device__ __forceinline__ Vector<F, 4> place_shares(int joint, int column) const {
    Vector<F, 4> sum = {};
#pragma unroll 1
    for (int begin = 0; begin < l.agents; begin += kAtOnce) {
      Vector<F, 4> share[kAtOnce];
      F known[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int index = kNumbers ? 0 : own[row_of(begin + i, joint)];
        known[i] = index < 0 ? F(NAN) : F(0);
        share[i] = kNumbers ? product_of(joint, agent_of(begin + i), column)
                            : load(p.w_action, int64_t(index < 0 ? 0 : index) * l.hidden + column);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        vector<4>(row_of(begin + i, joint), column) = share[i];
#pragma unroll
        for (int e = 0; e < 4; ++e) sum.x[e] += begin + i < l.agents ? share[i].x[e] + known[i] : F(0);
      }
    }
    return sum;
  }

  __device__ __forceinline__ void add_first(int joint, int column, const Vector<F, 4>& sum) const {
    int of_state = joint;
    l.per_state.divide(of_state);
    const int64_t first = (state + of_state) * p.agents * l.hidden + column;
#pragma unroll 1
    for (int begin = 0; begin < l.agents; begin += kAtOnce) {
      Vector<F, 4> x[kAtOnce], share[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        x[i] = load(p.first, first + int64_t(agent_of(begin + i)) * l.hidden);
        share[i] = vector<4>(row_of(begin + i, joint), column);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) x[i].x[e] = relu(x[i].x[e] + (sum.x[e] - share[i].x[e]));
        vector<4>(row_of(begin + i, joint), column) = x[i];
      }
    }
  }

  static __device__ __forceinline__ Vector<F, 4> load(const void* from, int64_t at) {
    return *reinterpret_cast<const Vector<F, 4>*>(static_cast<const F*>(from) + at);
  }

  // c_i^k of an action of D numbers.
  __device__ __forceinline__ Vector<F, 4> product_of(int joint, int agent, int column) const {
    const F* action = static_cast<const F*>(p.actions) + place(joint, agent) * p.choices;
    Vector<F, 4> share = {};
#pragma unroll 1
    for (int d = 0; d < p.choices; ++d) {
      const Vector<F, 4> w = load(p.w_action, (agent * p.choices + d) * l.hidden + column);
#pragma unroll
      for (int e = 0; e < 4; ++e) share.x[e] += action[d] * w.x[e];
    }
    return share;
  }
};

// Of a warp's tile of rows and a panel of columns, `tiles` of 8 of which are left: sum += left right, by one step of
// depth.
template <class Units, int kRows, class Left, class F = typename Units::Number>
__device__ __forceinline__ void multiply_panel(F (&sum)[kRows][kTiles][4], const Left (&left)[kRows],
                                               const typename Units::Right* right, int tiles) {
#pragma unroll
  for (int first = 0; first < kTiles; first += kHalf) {
    if (first >= tiles) break;
    typename Units::Right held[kHalf];
#pragma unroll
    for (int t = 0; t < kHalf; ++t) held[t] = right[(first + t) * kWarp];
    Units::multiply(sum, first, left, held);
  }
}

// z of a warp's tile of rows and a panel of columns, up to the bias: sums of a lane in the places of D.
template <class Units, class F = typename Units::Number>
struct Panel {
  F sum[kHigh<F>][kTiles][4] = {};

  __device__ __forceinline__ Panel(const Chunk<F>& chunk, const Fragments<Units>& w, int tile, int panel) {
    const int group = lane_group(), item = lane_item(), tiles = chunk.l.column_tiles();
    const typename Units::Right* right = w.forward + panel * kTiles * kWarp + lane_index();
#pragma unroll 1
    for (int step = 0; step < steps(chunk.p.hidden); ++step, right += tiles * kWarp) {
      typename Units::Left left[kHigh<F>];
#pragma unroll
      for (int high = 0; high < kHigh<F>; ++high) {
        const int row = tile * kTileRows<F> + 16 * high + group, column = 8 * step + 2 * item;
        const Vector<F, 2> upper = chunk.template vector<2>(row, column);
        const Vector<F, 2> lower = chunk.template vector<2>(row + 8, column);
        left[high] = Units::left({upper.x[0], lower.x[0], upper.x[1], lower.x[1]});
      }
      multiply_panel<Units>(sum, left, right, tiles - panel * kTiles);
    }
  }
};

}  // namespace emix::marginal
