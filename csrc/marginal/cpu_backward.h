// A unit back: what it adds to the gradients of the weights, and the gradient of its first layer.
#pragma once
#include "marginal/cpu_block.h"

namespace emix::marginal {

// Where a group's sums lie in one array, as the weights do but padded.
template <class F>
struct Sums {
  F *action, *hidden, *b_hidden, *head, *b_head;  // [n, A, H], [H, H2], [H2], [H2], []
  int64_t rows_of_agent, elements;

  EMIX_HD Sums(const Problem& p, F* data) {
    const Sizes size(p);
    rows_of_agent = padded(p.choices, kPadRows);
    elements = 0;
    const auto take = [&](int64_t rows, int64_t columns) __attribute__((always_inline)) {
      F* begin = data ? data + elements : nullptr;
      elements += rows * columns;
      return begin;
    };
    action = take(p.agents * rows_of_agent, size.hidden), hidden = take(padded(p.hidden, kPadRows), size.outputs);
    b_hidden = take(1, size.outputs), head = take(1, size.outputs), b_head = take(1, kColumns);
  }

  void write(const Problem& p, const Gradients& g) const {
    const Sizes size(p);
    for (int64_t i = 0; i < p.agents; ++i)
      copy(action + i * rows_of_agent * size.hidden, p.choices, p.hidden, size.hidden,
           static_cast<F*>(g.w_action) + i * p.choices * p.hidden, p.hidden);
    copy(hidden, p.hidden, p.outputs, size.outputs, static_cast<F*>(g.w_hidden), p.outputs);
    copy(b_hidden, 1, p.outputs, 0, static_cast<F*>(g.b_hidden), 0);
    copy(head, 1, p.outputs, 0, static_cast<F*>(g.w_head), 0);
    *static_cast<F*>(g.b_head) = *b_head;
  }
};

template <int kBytes, class F>
class BackwardWalk {
 public:
  EMIX_HD BackwardWalk(const Problem& problem, const Weights<F>& weights, const Units& of, const Gradients& gradients)
      : p(problem),
        w(weights),
        units(of),
        g(gradients),
        size(problem),
        block(problem, weights, of),
        sums(problem, nullptr) {
    memory.allocate([&] {
      block.allocate(memory);
      transposed = memory.take(p.outputs * size.hidden), zeros = memory.take(size.hidden);
      over_agents = memory.take(units.rows() * size.hidden);
      first_grad = memory.take(p.agents * units.states * size.hidden);
    });
    transpose(w.hidden.row(0), p.hidden, p.outputs, size.outputs, transposed, size.hidden);
  }

  // From here on units go into these sums.
  EMIX_HD void begin(F* data) {
    sums = Sums<F>(p, data);
    std::fill(data, data + sums.elements, F(0));
  }

  EMIX_HD void unit(int64_t index) {
    for (int64_t e = 0; e < p.agents * units.states * size.hidden; ++e) first_grad[e] = 0;
    for (int64_t chunk = 0; chunk < units.chunks; ++chunk) {
      block.load(index, chunk);
      for (int64_t e = 0; e < units.rows() * size.hidden; ++e) over_agents[e] = 0;
      for (int64_t i = 0; i < p.agents; ++i) agent(i);
      for (int64_t i = 0; i < p.agents; ++i) action_gradient(i);
    }
    for (int64_t s = 0; s < block.states; ++s)
      for (int64_t i = 0; i < p.agents; ++i) {
        const int64_t at = (block.state + s) * p.agents + i;
        *sums.b_head += static_cast<const F*>(g.value)[at];
        if (g.first) copy(first_grad_of(s, i), 1, p.hidden, 0, static_cast<F*>(g.first) + at * p.hidden, 0);
      }
  }

 private:
  const Problem& p;
  const Weights<F>& w;
  const Units& units;
  const Gradients& g;
  const Sizes size;
  Memory<F> memory;
  Block<kBytes, F> block;
  Sums<F> sums;
  F *transposed = nullptr, *zeros = nullptr;  // W_hidden' [H2, H]
  F* over_agents = nullptr;                   // sum_i dx_i [rows, H]
  F* first_grad = nullptr;                    // [states, n, H]

  EMIX_HD F* first_grad_of(int64_t state, int64_t agent) const {
    return first_grad + (state * p.agents + agent) * size.hidden;
  }

  // Its dx takes the place of its share.
  EMIX_HD void agent(int64_t i) {
    const int64_t Hp = size.hidden, H2p = size.outputs, rows = block.rows();
    block.layers(i);
    for (int64_t s = 0; s < block.states; ++s) output_gradient(s, i);
    F* x_grad = block.share_of(i);
    product<kBytes, F>({block.x, 1, Hp}, {block.z, H2p}, {sums.hidden, H2p}, {sums.hidden, H2p},
                       padded(p.hidden, kPadRows), rows, H2p);
    product<kBytes, F>({block.z, H2p, 1}, {transposed, Hp}, {zeros, 0}, {x_grad, Hp}, padded(rows, kPadRows), p.outputs,
                       Hp);
    for (int64_t e = 0; e < rows * Hp; ++e) x_grad[e] = block.x[e] > 0 ? x_grad[e] : 0;
    for (int64_t s = 0; s < block.states; ++s) {
      F* __restrict to = first_grad_of(s, i);
      for (int64_t r = s * block.samples; r < (s + 1) * block.samples; ++r)
        for (int64_t j = 0; j < Hp; ++j) to[j] += x_grad[r * Hp + j];
    }
    block.add(x_grad, over_agents);
  }

  // z becomes its gradient.
  EMIX_HD void output_gradient(int64_t state, int64_t agent) const {
    const F scale =
        static_cast<const F*>(g.value)[(block.state + state) * p.agents + agent] / static_cast<F>(p.samples);
    const F* __restrict head = w.head.row(0);
    for (int64_t j = 0; j < size.outputs; j += kColumns) {
      F grad[kColumns], value_sum[kColumns] = {}, grad_sum[kColumns] = {};
      for (int64_t c = 0; c < kColumns; ++c) grad[c] = scale * head[j + c];
      for (int64_t r = state * block.samples; r < (state + 1) * block.samples; ++r) {
        F* __restrict z = block.z + r * size.outputs + j;
        for (int64_t c = 0; c < kColumns; ++c) {
          value_sum[c] += relu(z[c]);
          z[c] = z[c] > 0 ? grad[c] : 0;
          grad_sum[c] += z[c];
        }
      }
      for (int64_t c = 0; c < kColumns; ++c) {
        sums.head[j + c] += scale * value_sum[c];
        sums.b_hidden[j + c] += grad_sum[c];
      }
    }
  }

  EMIX_HD void action_gradient(int64_t agent) const {
    const int64_t Hp = size.hidden, rows = block.rows();
    F* grad = block.share_of(agent);
    for (int64_t e = 0; e < rows * Hp; ++e) grad[e] = over_agents[e] - grad[e];
    F* sum = sums.action + agent * sums.rows_of_agent * Hp;
    if (p.continuous) {
      product<kBytes, F>({block.action_of(agent), 1, size.choices}, {grad, Hp}, {sum, Hp}, {sum, Hp},
                         sums.rows_of_agent, rows, Hp);
      return;
    }
    for (int64_t r = 0; r < rows; ++r) {
      F* __restrict to = sum + block.index(r, agent) * Hp;
      for (int64_t j = 0; j < Hp; ++j) to[j] += grad[r * Hp + j];
    }
  }
};

}  // namespace emix::marginal
