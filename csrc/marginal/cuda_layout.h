// What the host decides of a launch, and the weights as the kernels read them.
#pragma once
#include <algorithm>

#include "divider.h"
#include "marginal/cuda_products.h"
#include "marginal/marginal.h"

namespace emix::marginal {

inline constexpr int kBlock = 128;
inline constexpr int kWarps = kBlock / kWarp;
inline constexpr int kBlocksAtOnce = 3;          // on a multiprocessor: caps the registers at 168, which suffice
inline constexpr int kTiles = 8;                 // of 8 columns: what a warp works on at once
inline constexpr int kPanel = 8 * kTiles;        // columns
inline constexpr int kPanelStride = kPanel + 8;  // in shared memory: a warp's lanes of a column tile in different banks

// Tiles of 16 rows that a warp works on at once.
template <class F>
inline constexpr int kHigh = sizeof(F) == 8 ? 1 : 2;

// A block takes units of `states` states, and of each `samples` joint actions at a time. Row
// (state * agents + agent) * samples + sample of a unit is an agent's, joint action state * samples + sample is of all.
struct Layout {
  int states, samples, chunks;
  int64_t units;
  int hidden, outputs;  // H padded to 16, H2 to 8: with units of weight 0
  int stride;  // from a joint action's H sums to the next's, in shared memory: so that neighbours share no bank
  Divider<int32_t> per_state, agents, quads;

  // `joint`: as many joint actions at once as there is memory for.
  Layout(const Problem& p, int joint, int64_t wanted_units) {
    const int64_t parts = (p.samples + joint - 1) / joint;
    samples = static_cast<int>((p.samples + parts - 1) / parts);
    chunks = static_cast<int>((p.samples + samples - 1) / samples);
    const int64_t spread = (p.states + wanted_units - 1) / wanted_units;
    states = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(chunks > 1 ? 1 : joint / samples, spread)));
    units = (p.states + states - 1) / states;
    hidden = padded_hidden(p), outputs = padded_outputs(p), stride = hidden + (hidden % 32 ? 0 : 16);
    per_state = Divider<int32_t>(samples), agents = Divider<int32_t>(std::max<int32_t>(1, p.agents));
    quads = Divider<int32_t>(hidden / 4);
  }

  static int padded_hidden(const Problem& p) { return static_cast<int>((p.hidden + 15) / 16 * 16); }
  static int padded_outputs(const Problem& p) { return static_cast<int>((p.outputs + 7) / 8 * 8); }
  EMIX_HD int joint() const { return states * samples; }
  EMIX_HD int column_tiles() const { return outputs / 8; }
  EMIX_HD int hidden_tiles() const { return hidden / 8; }
};

// Weights for the products, from W_hidden [H, H2]: fragments [step of 8 in depth][tile of 8 columns][lane].
template <class Units>
struct Fragments {
  typename Units::Right *forward, *backward;  // of W_hidden, and of (W_hidden diag(w_head))'; or nullptr
  typename Units::Number *b_hidden, *w_head;  // padded with 0

  static int64_t bytes(const Layout& l, bool with_backward) {
    const int64_t fragments = int64_t(l.hidden) / 8 * l.column_tiles() * kWarp * (with_backward ? 2 : 1);
    return fragments * sizeof(typename Units::Right) + 2 * l.outputs * sizeof(typename Units::Number);
  }
  Fragments(const Layout& l, void* memory, bool with_backward) {
    const int64_t count = int64_t(l.hidden) / 8 * l.column_tiles() * kWarp;
    forward = static_cast<typename Units::Right*>(memory);
    backward = with_backward ? forward + count : nullptr;
    b_hidden = reinterpret_cast<typename Units::Number*>(forward + count * (with_backward ? 2 : 1));
    w_head = b_hidden + l.outputs;
  }
};

// Depth is numbered as it suits who makes the left side. Forward a lane makes four neighbouring units of x at once: it
// has unit 16 q + 4 item + e in step 2 q + e / 2 at word item (e even) or item + 4 (e odd). Backward the left side is
// what the lane holds of a sum: of step s units 8 s + 2 item and the next.
template <class Units>
__global__ void __launch_bounds__(kBlock)
    lay_out(const __grid_constant__ Problem p, const __grid_constant__ Layout l, Fragments<Units> out) {
  using F = typename Units::Number;
  const F *w = static_cast<const F*>(p.w_hidden), *head = static_cast<const F*>(p.w_head);
  const int H = static_cast<int>(p.hidden), H2 = static_cast<int>(p.outputs);
  const auto weight = [&](int row, int column) {
    return row < H && column < H2 ? w[int64_t(row) * H2 + column] : F(0);
  };
  const auto head_at = [&](int column) { return column < H2 ? head[column] : F(0); };
  const int64_t count = int64_t(l.hidden) / 8 * l.column_tiles() * kWarp;
  for (int64_t at = thread_index(); at < count; at += thread_count()) {
    const int lane = static_cast<int>(at % kWarp), group = lane / 4, item = lane % 4;
    const int tile = static_cast<int>(at / kWarp);
    {
      const int step = tile / l.column_tiles(), column = tile % l.column_tiles() * 8 + group;
      const int row = step / 2 * 16 + 4 * item + step % 2 * 2;
      out.forward[at] = Units::right(weight(row, column), weight(row + 1, column));
    }
    if (!out.backward) continue;
    const int row = tile / l.hidden_tiles() * 8 + 2 * item, column = tile % l.hidden_tiles() * 8 + group;
    out.backward[at] = Units::right(head_at(row) * weight(column, row), head_at(row + 1) * weight(column, row + 1));
  }
  for (int64_t j = thread_index(); j < l.outputs; j += thread_count()) {
    out.b_hidden[j] = j < H2 ? static_cast<const F*>(p.b_hidden)[j] : F(0);
    out.w_head[j] = head_at(static_cast<int>(j));
  }
}

// [rows, H] with H padded.
template <class F>
__global__ void __launch_bounds__(kBlock) pad_rows(const F* from, int64_t rows, int width, F* to, int padded) {
  for (int64_t at = thread_index(); at < rows * padded; at += thread_count()) {
    const int64_t row = at / padded;
    const int column = static_cast<int>(at - row * padded);
    to[at] = column < width ? from[row * width + column] : F(0);
  }
}

}  // namespace emix::marginal
