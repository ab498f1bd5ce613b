// A core's walk over time for a block of rows.
#pragma once
#include "recurrent/cpu_chunk.h"

namespace emix::recurrent {

// One row's units. Separate pointers, so that the compiler knows that they do not overlap, and vectorises.
template <class F>
EMIX_HD void apply_gates(F* __restrict n, F* __restrict r, F* __restrict z, const F* __restrict m,
                         const F* __restrict before, F* __restrict after, int64_t units) {
  for (int64_t j = 0; j < units; ++j) {
    const Unit<F> gate = gates<F>({n[j], r[j], z[j], m[j]});
    n[j] = gate.n, r[j] = gate.r, z[j] = gate.z;
    after[j] = next_hidden(gate, before[j]);
  }
}

template <int kBytes, class F>
class ForwardWalk {
 public:
  EMIX_HD ForwardWalk(const Sequence& sequence, const ForwardWeights<F>& weights, const Results& results)
      : p(sequence), w(weights), out(results), size(sequence) {
    memory.allocate([&] {
      x = memory.take(kChunkRows * size.inputs);
      if (p.is_agent) e = memory.take(kChunkRows * size.hidden), q = memory.take(kChunkRows * size.actions);
      gate = memory.take(kChunkRows * kGates * size.hidden);
      h = memory.take((kChunkRows + kBlockRows) * size.hidden);
    });
  }

  EMIX_HD void block(int64_t first_row) {
    Chunk c(p, first_row);
    const int64_t H = p.hidden, Hp = size.hidden;
    for (int64_t r = 0; r < c.rows; ++r) {
      const F* h0 = static_cast<const F*>(p.h0);
      for (int64_t j = 0; j < H; ++j) h[r * Hp + j] = h0 ? h0[(c.first + r) * H + j] : 0;
    }
    for (c.start = 0; c.start < p.time; c.start += kChunkSteps) {
      c.steps = std::min(kChunkSteps, p.time - c.start);
      project(c);
      for (int64_t s = 0; s < c.steps; ++s) step(c, s);
      store(c);
      copy(h + c.size() * Hp, c.rows, Hp, Hp, h, Hp);
    }
    if (out.last) copy(h, c.rows, H, Hp, static_cast<F*>(out.last) + c.first * H, H);
  }

 private:
  const Sequence& p;
  const ForwardWeights<F>& w;
  const Results& out;
  const Sizes size;
  Memory<F> memory;
  // [S * rows, ...]; h: [(S + 1) * rows, H], from the state before the chunk on
  F *x = nullptr, *e = nullptr, *gate = nullptr, *h = nullptr, *q = nullptr;

  // Everything of the gates' sums that does not depend on h.
  EMIX_HD void project(const Chunk& c) {
    const int64_t Hp = size.hidden, I = p.inputs;
    c.for_each(
        p, [&](int64_t at, int64_t b, int64_t t, int64_t i) __attribute__((always_inline)) {
          memcpy(x + at * size.inputs, p.x.at<F>(b, t, i), I * sizeof(F));
          if (p.is_agent) first_layer_columns(e + at * Hp, b, t, i);
        });
    if (p.is_agent) {
      product<kBytes, F>({x, size.inputs, 1}, {w.in, Hp}, {e, Hp}, {e, Hp}, c.size(), I, Hp);
      for (int64_t k = 0; k < c.size() * Hp; ++k) e[k] = e[k] < 0 ? 0 : e[k];  // a NaN stays one
    }
    const Left<F> input = p.is_agent ? Left<F>{e, Hp, 1} : Left<F>{x, size.inputs, 1};
    product<kBytes, F>(input, {w.ih, 3 * Hp}, {w.bias, 0}, {gate, 4 * Hp}, c.size(), p.encoded(), 3 * Hp);
    for (int64_t k = 0; k < c.size(); ++k) memcpy(gate + (k * 4 + 3) * Hp, w.bias + 3 * Hp, Hp * sizeof(F));
  }

  // What a bias and the one-hot inputs add: columns of the weights.
  EMIX_HD void first_layer_columns(F* row, int64_t b, int64_t t, int64_t i) const {
    const int64_t Hp = size.hidden;
    for (int64_t j = 0; j < Hp; ++j) row[j] = w.b_encode[j];
    const int64_t action = p.action_columns ? p.last_action[(b * p.time + t) * p.agents + i] : -1;
    if (action >= 0 && action < p.action_columns) add(row, w.in + (p.inputs + action) * Hp);
    if (p.id_columns) add(row, w.in + (p.inputs + p.action_columns + i) * Hp);
  }

  EMIX_HD void add(F* row, const F* column) const {
    for (int64_t j = 0; j < size.hidden; ++j) row[j] += column[j];
  }

  EMIX_HD void step(const Chunk& c, int64_t s) {
    const int64_t H = p.hidden, Hp = size.hidden;
    F *before = h + s * c.stride * Hp, *sums = gate + s * c.stride * 4 * Hp;
    product<kBytes, F>({before, Hp, 1}, {w.hh, 3 * Hp}, {sums + Hp, 4 * Hp}, {sums + Hp, 4 * Hp}, c.stride, H, 3 * Hp);
    for (int64_t r = 0; r < c.stride; ++r) {
      F* unit = sums + r * 4 * Hp;
      apply_gates(unit, unit + Hp, unit + 2 * Hp, unit + 3 * Hp, before + r * Hp, before + (c.stride + r) * Hp, Hp);
    }
  }

  EMIX_HD void store(const Chunk& c) {
    const int64_t H = p.hidden, Hp = size.hidden, O = p.outputs();
    const F* after = h + c.stride * Hp;
    if (p.is_agent)
      product<kBytes, F>({after, Hp, 1}, {w.out, size.actions}, {w.b_head, 0}, {q, size.actions}, c.size(), H,
                         size.actions);
    c.for_each(
        p, [&](int64_t at, int64_t b, int64_t t, int64_t i) __attribute__((always_inline)) {
          const F* row = p.is_agent ? q + at * size.actions : after + at * Hp;
          memcpy(static_cast<F*>(out.out) + ((b * p.time + t) * p.agents + i) * O, row, O * sizeof(F));
          if (!out.saved) return;
          F* saved = static_cast<F*>(out.saved) + (t * p.rows() + b * p.agents + i) * p.saved();
          copy(gate + at * 4 * Hp, 4, H, Hp, saved, H);
          if (p.is_agent)
            copy(e + at * Hp, 1, H, H, saved + 4 * H, H), copy(after + at * Hp, 1, H, H, saved + 5 * H, H);
        });
  }
};

}  // namespace emix::recurrent
