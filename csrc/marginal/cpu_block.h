// What a core works on at once: some joint actions of a state, or of several states where K is small, with all agents
// of each. The rows of a block are (state, sample).
#pragma once
#include <algorithm>

#include "cpu_memory.h"
#include "cpu_product.h"
#include "marginal/marginal.h"

namespace emix::marginal {

inline constexpr int64_t kBlockRows = 64;           // where that is not too much memory:
inline constexpr int64_t kBlockElements = 1 << 18;  // of agents x rows x H

// A unit is so many neighbouring states; their samples come in chunks.
struct Units {
  int64_t states, samples, chunks;  // of a unit; of a chunk; of a unit

  explicit Units(const Problem& p) {
    const int64_t row = std::max<int64_t>(1, p.agents * padded(p.hidden, kColumns));
    const int64_t rows = std::clamp(kBlockElements / row / kPadRows * kPadRows, kPadRows, kBlockRows);
    states = std::max<int64_t>(1, rows / p.samples);
    samples = padded((p.samples + std::max<int64_t>(1, (p.samples + rows - 1) / rows) - 1) /
                         std::max<int64_t>(1, (p.samples + rows - 1) / rows),
                     kPadRows);
    samples = std::min(samples, p.samples);
    chunks = (p.samples + samples - 1) / samples;
  }
  int64_t count(const Problem& p) const { return (p.states + states - 1) / states; }
  int64_t rows() const { return padded(states * samples, kPadRows); }
};

// Padded columns.
struct Sizes {
  int64_t choices, hidden, outputs;

  explicit Sizes(const Problem& p)
      : choices(padded(p.choices, kColumns)),
        hidden(padded(p.hidden, kColumns)),
        outputs(padded(p.outputs, kColumns)) {}
};

template <class F>
struct Weights {
  PaddedMatrix<F> action, hidden, b_hidden, head;

  explicit Weights(const Problem& p)
      : action(p.w_action, p.agents * p.choices, p.hidden),
        hidden(p.w_hidden, p.hidden, p.outputs),
        b_hidden(p.b_hidden, 1, p.outputs),
        head(p.w_head, 1, p.outputs) {}
};

template <class F>
EMIX_HD F relu(F x) {
  return x < 0 ? 0 : x;  // a NaN stays one
}

// One chunk of a unit, up to the second layer's sums. Rows that only fill the products' tiles hold something finite, or
// what an earlier block has left.
template <int kBytes, class F>
class Block {
 public:
  F *share = nullptr, *total = nullptr;  // c_j^k [n, rows, H] and S^k [rows, H]
  F *x = nullptr, *z = nullptr;          // an agent's [rows, H] and [rows, H2], before its ReLU
  F* action = nullptr;                   // numbers [n, rows, D]
  int64_t state = 0, states = 0, sample = 0, samples = 0;

  EMIX_HD Block(const Problem& problem, const Weights<F>& weights, const Units& of)
      : p(problem), w(weights), units(of), size(problem) {}

  EMIX_HD void allocate(Memory<F>& memory) {
    share = memory.take(p.agents * units.rows() * size.hidden), total = memory.take(units.rows() * size.hidden);
    x = memory.take(units.rows() * size.hidden), z = memory.take(units.rows() * size.outputs);
    if (p.continuous) action = memory.take(p.agents * units.rows() * size.choices), zeros = memory.take(size.hidden);
  }

  EMIX_HD int64_t rows() const { return states * samples; }
  EMIX_HD F* share_of(int64_t agent) const { return share + agent * units.rows() * size.hidden; }
  EMIX_HD F* action_of(int64_t agent) const { return action + agent * units.rows() * size.choices; }
  EMIX_HD int64_t index(int64_t row, int64_t agent) const { return p.index(place(row, agent)); }

  EMIX_HD void load(int64_t unit, int64_t chunk) {
    state = unit * units.states, states = std::min(units.states, p.states - state);
    sample = chunk * units.samples, samples = std::min(units.samples, p.samples - sample);
    for (int64_t i = 0; i < p.agents; ++i) {
      if (p.continuous)
        load_numbers(i);
      else
        for (int64_t r = 0; r < rows(); ++r)
          copy(w.action.row(i * p.choices + index(r, i)), 1, p.hidden, 0, share_of(i) + r * size.hidden, 0);
    }
    for (int64_t e = 0; e < rows() * size.hidden; ++e) total[e] = 0;
    for (int64_t i = 0; i < p.agents; ++i) add(share_of(i), total);
  }

  // x and z of an agent.
  EMIX_HD void layers(int64_t agent) {
    const int64_t Hp = size.hidden, H = p.hidden;
    const F* own = share_of(agent);
    for (int64_t s = 0; s < states; ++s) {
      const F* first = static_cast<const F*>(p.first) + ((state + s) * p.agents + agent) * H;
      for (int64_t r = s * samples; r < (s + 1) * samples; ++r)
        for (int64_t j = 0; j < H; ++j) x[r * Hp + j] = relu(first[j] + (total[r * Hp + j] - own[r * Hp + j]));
    }
    product<kBytes, F>({x, Hp, 1}, {w.hidden.row(0), size.outputs}, {w.b_hidden.row(0), 0}, {z, size.outputs},
                       padded(rows(), kPadRows), H, size.outputs);
  }

  EMIX_HD void add(const F* __restrict rows_of_one, F* __restrict sum) const {
    for (int64_t e = 0; e < rows() * size.hidden; ++e) sum[e] += rows_of_one[e];
  }

 private:
  const Problem& p;
  const Weights<F>& w;
  const Units& units;
  const Sizes size;
  F* zeros = nullptr;

  EMIX_HD int64_t place(int64_t row, int64_t agent) const {
    return p.place(sample + row % samples, state + row / samples, agent);
  }

  EMIX_HD void load_numbers(int64_t agent) {
    for (int64_t r = 0; r < rows(); ++r)
      copy(static_cast<const F*>(p.actions) + place(r, agent) * p.choices, 1, p.choices, 0,
           action_of(agent) + r * size.choices, 0);
    product<kBytes, F>({action_of(agent), size.choices, 1}, {w.action.row(agent * p.choices), size.hidden}, {zeros, 0},
                       {share_of(agent), size.hidden}, padded(rows(), kPadRows), p.choices, size.hidden);
  }
};

}  // namespace emix::marginal
