// The walk back: gradients of the gates' sums step by step, all others a chunk at once.
#pragma once
#include "recurrent/cpu_chunk.h"

namespace emix::recurrent {

// grad: dL/dh_t becomes what of dL/dh_{t-1} comes past the gates.
template <class F>
EMIX_HD void apply_gate_gradients(F* __restrict n, F* __restrict r, F* __restrict z, F* __restrict m,
                                  const F* __restrict before, F* __restrict grad, int64_t units) {
  for (int64_t j = 0; j < units; ++j) {
    const Unit<F> gate{n[j], r[j], z[j], m[j]}, sum = gate_gradients(gate, before[j], grad[j]);
    n[j] = sum.n, r[j] = sum.r, z[j] = sum.z, m[j] = sum.m;
    grad[j] *= gate.z;
  }
}

// Whether any of the sums is not 0.
template <class F>
EMIX_HD bool add_gradient(F* __restrict grad, const F* __restrict more, int64_t units) {
  int nonzero = 0;
  for (int64_t j = 0; j < units; ++j) grad[j] += more[j], nonzero |= grad[j] != 0;
  return nonzero;
}

template <int kBytes, class F>
class BackwardWalk {
 public:
  EMIX_HD BackwardWalk(const Sequence& sequence, const BackwardWeights<F>& weights, const Gradients& gradients,
                       F* sums_data)
      : p(sequence),
        w(weights),
        g(gradients),
        sums(sequence, sums_data),
        size(sequence),
        gate_stride(spread(4 * size.hidden)) {
    memory.allocate([&] {
      x = memory.take(kChunkRows * size.inputs), gate = memory.take(kChunkRows * gate_stride);
      h = memory.take((kChunkRows + kBlockRows) * size.hidden), h_grad = memory.take(kChunkRows * size.hidden);
      e_grad = memory.take(kChunkRows * size.encoded), carry = memory.take(kBlockRows * size.hidden);
      zeros = memory.take(std::max({size.hidden, size.encoded, size.inputs}));
      if (p.is_agent) e = memory.take(kChunkRows * size.hidden), q_grad = memory.take(kChunkRows * size.actions);
      if (p.is_agent && g.x) x_grad = memory.take(kChunkRows * size.inputs);
    });
    std::fill(sums_data, sums_data + sums.elements, F(0));
  }

  EMIX_HD void block(int64_t first_row) {
    Chunk c(p, first_row);
    const int64_t H = p.hidden, Hp = size.hidden;
    if (c.rows < c.stride) memory.clear();  // absent rows must add nothing to the sums
    for (int64_t r = 0; r < c.stride; ++r) {
      const F* last = static_cast<const F*>(g.last);
      for (int64_t j = 0; j < H; ++j) carry[r * Hp + j] = last && r < c.rows ? last[(c.first + r) * H + j] : 0;
      for (int64_t s = 0; s <= kChunkSteps; ++s) silent[s][r] = true;
    }
    for (c.start = (p.time - 1) / kChunkSteps * kChunkSteps; c.start >= 0; c.start -= kChunkSteps) {
      c.steps = std::min(kChunkSteps, p.time - c.start);
      load(c);
      for (int64_t r = 0; r < c.rows; ++r) silent[c.steps][r] = silent[0][r];
      for (int64_t s = c.steps; s-- > 0;) step(c, s);
      clear_silent(c);
      input_gradient(c);
      weight_gradients(c);
    }
    if (g.h0) copy(carry, c.rows, H, Hp, static_cast<F*>(g.h0) + c.first * H, H);
  }

 private:
  const Sequence& p;
  const BackwardWeights<F>& w;
  const Gradients& g;
  const WeightGradients<F> sums;
  const Sizes size;
  const int64_t gate_stride;  // elements from a row of gates to the next
  Memory<F> memory;
  // As in ForwardWalk. gate: the gates, then the gradients of their sums. h_grad: from above; carry: from the step
  // after
  F *x = nullptr, *e = nullptr, *gate = nullptr, *h = nullptr, *q_grad = nullptr, *h_grad = nullptr, *e_grad = nullptr,
    *carry = nullptr, *x_grad = nullptr, *zeros = nullptr;
  // Steps that no gradient reaches, nor any later one of their row. silent[steps]: the step after the chunk.
  bool silent[kChunkSteps + 1][kBlockRows];

  EMIX_HD void load(const Chunk& c) {
    const int64_t H = p.hidden, Hp = size.hidden, O = p.outputs();
    F *above = p.is_agent ? q_grad : h_grad, *after = h + c.stride * Hp;
    const int64_t above_stride = p.is_agent ? size.actions : Hp;
    c.for_each(
        p, [&](int64_t at, int64_t b, int64_t t, int64_t i) __attribute__((always_inline)) {
          const int64_t row = b * p.agents + i;
          const F* saved = static_cast<const F*>(g.saved) + (t * p.rows() + row) * p.saved();
          memcpy(x + at * size.inputs, p.x.at<F>(b, t, i), p.inputs * sizeof(F));
          copy(saved, 4, H, H, gate + at * gate_stride, Hp);
          if (p.is_agent) copy(saved + 4 * H, 1, H, H, e + at * Hp, H);
          copy(g.h.at<F>(b, t, i), 1, H, H, after + at * Hp, H);
          if (t == c.start) load_before(h + at * Hp, b, t, i);
          const F* out_grad = static_cast<const F*>(g.out) + ((b * p.time + t) * p.agents + i) * O;
          for (int64_t j = 0; j < O; ++j) above[at * above_stride + j] = g.out ? out_grad[j] : 0;
        });
    if (p.is_agent)
      product<kBytes, F>({q_grad, size.actions, 1}, {w.out, Hp}, {zeros, 0}, {h_grad, Hp}, c.size(), p.actions, Hp);
  }

  EMIX_HD void load_before(F* to, int64_t b, int64_t t, int64_t i) const {
    const F* h0 = static_cast<const F*>(p.h0);
    const F* from = t > 0 ? g.h.at<F>(b, t - 1, i) : h0 ? h0 + (b * p.agents + i) * p.hidden : zeros;
    memcpy(to, from, p.hidden * sizeof(F));
  }

  EMIX_HD void step(const Chunk& c, int64_t s) {
    const int64_t Hp = size.hidden;
    const F* before = h + s * c.stride * Hp;
    F* units = gate + s * c.stride * gate_stride;
    for (int64_t r = 0; r < c.rows; ++r) {
      F *unit = units + r * gate_stride, *grad = carry + r * Hp;
      const bool reached = add_gradient(grad, h_grad + (s * c.stride + r) * Hp, Hp);
      silent[s][r] = !reached;
      apply_gate_gradients(unit, unit + Hp, unit + 2 * Hp, unit + 3 * Hp, before + r * Hp, grad, Hp);
      if (!reached) std::fill(unit, unit + 4 * Hp, F(0)), std::fill(grad, grad + Hp, F(0));
    }
    for (int64_t r = c.rows; r < c.stride; ++r)
      std::fill(units + r * gate_stride, units + r * gate_stride + 4 * Hp, F(0));
    product<kBytes, F>({units + Hp, gate_stride, 1}, {w.hh, Hp}, {carry, Hp}, {carry, Hp}, c.stride, 3 * Hp, Hp);
  }

  // Where no gradient comes, neither does a NaN: 0 times what such a step read would be one.
  EMIX_HD void clear_silent(const Chunk& c) {
    const int64_t Hp = size.hidden;
    for (int64_t s = 0; s <= c.steps; ++s)
      for (int64_t r = 0; r < c.rows; ++r) {
        if (!silent[s][r]) continue;
        const int64_t at = s * c.stride + r;
        if (s == 0 || !asked(at - c.stride)) std::fill(h + at * Hp, h + (at + 1) * Hp, F(0));
        if (s == c.steps) continue;
        std::fill(x + at * size.inputs, x + (at + 1) * size.inputs, F(0));
        if (p.is_agent) std::fill(e + at * Hp, e + (at + 1) * Hp, F(0));
      }
  }

  // Whether the last layer has a gradient for that row and step's h.
  EMIX_HD bool asked(int64_t at) const {
    int nonzero = 0;
    for (int64_t a = 0; a < p.actions; ++a) nonzero |= q_grad[at * size.actions + a] != 0;
    return nonzero;
  }

  EMIX_HD void input_gradient(const Chunk& c) {
    const int64_t Hp = size.hidden, Ep = size.encoded;
    product<kBytes, F>({gate, gate_stride, 1}, {w.ih, Ep}, {zeros, 0}, {e_grad, Ep}, c.size(), 3 * Hp, Ep);
    if (p.is_agent)
      for (int64_t k = 0; k < c.size() * Hp; ++k) e_grad[k] = e[k] > 0 ? e_grad[k] : 0;
    if (!g.x) return;
    if (p.is_agent)
      product<kBytes, F>({e_grad, Hp, 1}, {w.in, size.inputs}, {zeros, 0}, {x_grad, size.inputs}, c.size(), p.hidden,
                         size.inputs);
    const F* from = p.is_agent ? x_grad : e_grad;
    c.for_each(
        p, [&](int64_t at, int64_t b, int64_t t, int64_t i) __attribute__((always_inline)) {
          F* to = static_cast<F*>(g.x) + ((b * p.time + t) * p.agents + i) * p.inputs;
          memcpy(to, from + at * size.inputs, p.inputs * sizeof(F));
        });
  }

  EMIX_HD void weight_gradients(const Chunk& c) {
    const int64_t H = p.hidden, Hp = size.hidden;
    add_product(c, p.is_agent ? e : x, size.encoded, p.encoded(), gate, gate_stride, sums.ih, 3 * Hp);
    add_product(c, h, Hp, H, gate + Hp, gate_stride, sums.hh, 3 * Hp);
    add_rows(c, gate, gate_stride, 4 * Hp, sums.bias);
    if (!p.is_agent) return;
    add_product(c, x, size.inputs, p.inputs, e_grad, Hp, sums.in, Hp);
    add_product(c, h + c.stride * Hp, Hp, H, q_grad, size.actions, sums.out, size.actions);
    add_rows(c, q_grad, size.actions, size.actions, sums.b_head);
    c.for_each(
        p, [&](int64_t at, int64_t b, int64_t t, int64_t i) __attribute__((always_inline)) {
          const int64_t action = p.action_columns ? p.last_action[(b * p.time + t) * p.agents + i] : -1;
          const F* row = e_grad + at * Hp;
          if (action >= 0 && action < p.action_columns)
            for (int64_t j = 0; j < Hp; ++j) sums.action[action * Hp + j] += row[j];
          for (int64_t j = 0; j < Hp; ++j) sums.id[i * Hp + j] += row[j];
        });
  }

  // sum [width, columns] += left^T grad over the chunk's rows.
  EMIX_HD void add_product(const Chunk& c, const F* left, int64_t left_stride, int64_t width, const F* grad,
                           int64_t grad_stride, F* sum, int64_t columns) const {
    product<kBytes, F>({left, 1, left_stride}, {grad, grad_stride}, {sum, columns}, {sum, columns},
                       padded(width, kPadRows), c.size(), columns);
  }

  // sum [columns] += the chunk's rows; there are a multiple of kPadRows.
  EMIX_HD void add_rows(const Chunk& c, const F* rows, int64_t stride, int64_t columns, F* __restrict sum) const {
    for (int64_t k = 0; k < c.size(); k += 4, rows += 4 * stride)
      for (int64_t j = 0; j < columns; ++j)
        sum[j] += (rows[j] + rows[stride + j]) + (rows[2 * stride + j] + rows[3 * stride + j]);
  }
};

}  // namespace emix::recurrent
