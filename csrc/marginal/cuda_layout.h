// What the host decides of a launch, and the weights as the kernels read them.
#pragma once
#include <algorithm>

#include "divider.h"
#include "marginal/cuda_products.h"
#include "marginal/marginal.h"

namespace emix::marginal {

inline constexpr int kSmallBlock = 256;        // threads
inline constexpr int kTiles = 8;               // of 8 columns: what a warp works on at once
inline constexpr int kHalf = kTiles / 2;       // whose weights it holds at once
inline constexpr int kPanel = 8 * kTiles;      // columns
inline constexpr int kHalfPanel = kPanel / 2;  // H and H2 are padded to it

// A block's most threads: float64 needs more registers than 128, which 512 threads have each.
template <class F>
inline constexpr int kMostThreads = sizeof(F) == 8 ? kSmallBlock : 512;

// Tiles of 16 rows that a warp works on at once, and their rows.
template <class F>
inline constexpr int kHigh = sizeof(F) == 8 ? 1 : 2;
template <class F>
inline constexpr int kTileRows = 16 * kHigh<F>;

// Vectors of kWidth numbers, loaded in accesses of up to 16 bytes.
template <class F, int kWidth>
struct alignas(kWidth * sizeof(F) > 16 ? 16 : kWidth * sizeof(F)) Vector {
  F x[kWidth];
};

EMIX_HD int steps(int64_t depth) { return static_cast<int>((depth + 7) / 8); }

// A block takes units of `states` states, and of each `samples` joint actions at a time: a chunk of
// joint() = states * samples joint actions. Row agent * joint() + state * samples + sample of a chunk is an agent under
// a joint action.
struct Layout {
  int states, samples, chunks;
  int64_t units;
  int agents, hidden, outputs;  // H and H2 padded to 32, with units of weight 0
  Divider<int32_t> per_state, per_agent, of_agents, quads;

  // `most` joint actions at once, and `wanted` units at least where there are states enough.
  Layout(const Problem& p, int64_t most, int64_t wanted) {
    const int64_t parts = (p.samples + most - 1) / most;
    samples = static_cast<int>((p.samples + parts - 1) / parts);
    chunks = static_cast<int>((p.samples + samples - 1) / samples);
    const int64_t spread = (p.states + wanted - 1) / wanted;
    states = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(chunks > 1 ? 1 : most / samples, spread)));
    units = (p.states + states - 1) / states;
    agents = static_cast<int>(p.agents), hidden = padded(p.hidden), outputs = padded(p.outputs);
    per_state = Divider<int32_t>(samples), per_agent = Divider<int32_t>(joint());
    of_agents = Divider<int32_t>(std::max(1, agents)), quads = Divider<int32_t>(hidden / 4);
  }

  static int padded(int64_t x) { return static_cast<int>((x + kHalfPanel - 1) / kHalfPanel * kHalfPanel); }
  EMIX_HD int joint() const { return states * samples; }
  EMIX_HD int rows() const { return agents * joint(); }
  EMIX_HD int column_tiles() const { return outputs / 8; }
  EMIX_HD int hidden_tiles() const { return hidden / 8; }
  EMIX_HD int output_panels() const { return (outputs + kPanel - 1) / kPanel; }
  EMIX_HD int hidden_panels() const { return (hidden + kPanel - 1) / kPanel; }
};

// Weights for the products, from W_hidden [H, H2]: fragments [step of 8 in depth][tile of 8 columns][lane].
template <class Units>
struct Fragments {
  typename Units::Right *forward, *backward;  // of W_hidden, and of (W_hidden diag(w_head))'; or nullptr
  typename Units::Number *b_hidden, *w_head;  // padded with 0 to whole panels

  static int64_t bytes(const Layout& l, bool with_backward) {
    return count(l) * (with_backward ? 2 : 1) * sizeof(typename Units::Right) +
           2 * vector(l) * sizeof(typename Units::Number);
  }
  Fragments(const Layout& l, void* memory, bool with_backward) {
    forward = static_cast<typename Units::Right*>(memory);
    backward = with_backward ? forward + count(l) : nullptr;
    b_hidden = reinterpret_cast<typename Units::Number*>(forward + count(l) * (with_backward ? 2 : 1));
    w_head = b_hidden + vector(l);
  }
  static EMIX_HD int vector(const Layout& l) { return l.output_panels() * kPanel; }
  static EMIX_HD int64_t count(const Layout& l) { return int64_t(l.hidden_tiles()) * l.column_tiles() * kWarp; }
};

// In step s of depth a lane has units 8 s + 2 item and the next: what it holds of a sum, too.
template <class Units>
__global__ void __launch_bounds__(kSmallBlock)
    lay_out(const __grid_constant__ Problem p, const __grid_constant__ Layout l, Fragments<Units> out) {
  using F = typename Units::Number;
  const F *w = static_cast<const F*>(p.w_hidden), *head = static_cast<const F*>(p.w_head);
  const int H = static_cast<int>(p.hidden), H2 = static_cast<int>(p.outputs);
  const auto weight = [&](int row, int column) {
    return row < H && column < H2 ? w[int64_t(row) * H2 + column] : F(0);
  };
  const auto head_at = [&](int column) { return column < H2 ? head[column] : F(0); };
  for (int64_t at = thread_index(); at < Fragments<Units>::count(l); at += thread_count()) {
    const int lane = static_cast<int>(at % kWarp), group = lane / 4, item = lane % 4;
    const int tile = static_cast<int>(at / kWarp);
    {
      const int row = tile / l.column_tiles() * 8 + 2 * item, column = tile % l.column_tiles() * 8 + group;
      out.forward[at] = Units::right(weight(row, column), weight(row + 1, column));
    }
    if (!out.backward) continue;
    const int row = tile / l.hidden_tiles() * 8 + 2 * item, column = tile % l.hidden_tiles() * 8 + group;
    out.backward[at] = Units::right(head_at(row) * weight(column, row), head_at(row + 1) * weight(column, row + 1));
  }
  for (int64_t j = thread_index(); j < Fragments<Units>::vector(l); j += thread_count()) {
    out.b_hidden[j] = j < H2 ? static_cast<const F*>(p.b_hidden)[j] : F(0);
    out.w_head[j] = head_at(static_cast<int>(j));
  }
}

// [rows, H] with H padded.
template <class F>
__global__ void __launch_bounds__(kSmallBlock) pad_rows(const F* from, int64_t rows, int width, F* to, int padded) {
  for (int64_t at = thread_index(); at < rows * padded; at += thread_count()) {
    const int64_t row = at / padded;
    const int column = static_cast<int>(at - row * padded);
    to[at] = column < width ? from[row * width + column] : F(0);
  }
}

}  // namespace emix::marginal
