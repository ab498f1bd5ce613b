// Some states back: what they add to the gradients of the weights, and the gradient of their first layer.
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
  EMIX_HD BackwardWalk(const Problem& problem, const Weights<F>& weights, const Gradients& gradients)
      : p(problem), w(weights), g(gradients), size(problem), block(problem, weights), sums(problem, nullptr) {
    memory.allocate([&] {
      block.allocate(memory);
      transposed = memory.take(p.outputs * size.hidden), zeros = memory.take(size.hidden);
      over_agents = memory.take(most_rows(p) * size.hidden);
    });
    transpose(w.hidden.row(0), p.hidden, p.outputs, size.outputs, transposed, size.hidden);
  }

  // Their sums go into `data`.
  EMIX_HD void states(int64_t begin, int64_t end, F* data) {
    sums = Sums<F>(p, data);
    std::fill(data, data + sums.elements, F(0));
    block.start(begin, end);
    while (block.next()) {
      for (int64_t e = 0; e < block.rows() * size.hidden; ++e) over_agents[e] = 0;
      for (int64_t i = 0; i < p.agents; ++i) agent(i);
      for (int64_t i = 0; i < p.agents; ++i) action_gradient(i);
    }
    for (int64_t v = begin * p.agents; v < end * p.agents; ++v) *sums.b_head += static_cast<const F*>(g.value)[v];
  }

 private:
  using L = Lanes<kBytes, F>;
  const Problem& p;
  const Weights<F>& w;
  const Gradients& g;
  const Sizes size;
  Memory<F> memory;
  Block<kBytes, F> block;
  Sums<F> sums;
  F *transposed = nullptr, *zeros = nullptr;  // W_hidden' [H2, H]
  F* over_agents = nullptr;                   // sum_i dx_i [rows, H]

  // Its dx takes the place of its share.
  EMIX_HD void agent(int64_t i) {
    const int64_t Hp = size.hidden, H2p = size.outputs, rows = block.rows();
    block.layers(i);
    for (const Segment& s : block.segments()) output_gradient(s, i);
    F* x_grad = block.share_of(i);
    product<kBytes, F>({block.x, 1, Hp}, {block.z, H2p}, {sums.hidden, H2p}, {sums.hidden, H2p},
                       padded(p.hidden, kPadRows), rows, H2p);
    product<kBytes, F>({block.z, H2p, 1}, {transposed, Hp}, {zeros, 0}, {x_grad, Hp}, padded(rows, kPadRows), p.outputs,
                       Hp);
    for (int64_t e = 0; e < rows * Hp; ++e) x_grad[e] = block.x[e] > 0 ? x_grad[e] : 0;
    if (g.first)
      for (const Segment& s : block.segments()) first_gradient(s, i);
    block.add(x_grad, over_agents);
  }

  EMIX_HD void first_gradient(const Segment& s, int64_t agent) const {
    F* __restrict to = static_cast<F*>(g.first) + (s.state * p.agents + agent) * p.hidden;
    const F* __restrict x_grad = block.share_of(agent);
    if (s.first) std::fill(to, to + p.hidden, F(0));
    for (int64_t r = s.begin; r < s.end; ++r)
      for (int64_t j = 0; j < p.hidden; ++j) to[j] += x_grad[r * size.hidden + j];
  }

  // z becomes its gradient.
  EMIX_HD void output_gradient(const Segment& s, int64_t agent) const {
    const F scale = static_cast<const F*>(g.value)[s.state * p.agents + agent] / static_cast<F>(p.samples);
    for (int64_t j = 0; j < size.outputs; j += L::count) {
      const typename L::type grad = scale * L::at(w.head.row(0) + j), zero = {};
      typename L::type value_sum = {}, grad_sum = {};
      for (int64_t r = s.begin; r < s.end; ++r) {
        auto& z = L::at(block.z + r * size.outputs + j);
        value_sum += block.count(r) * (z < zero ? zero : z);
        z = z > zero ? block.count(r) * grad : zero;
        grad_sum += z;
      }
      L::at(sums.head + j) += scale * value_sum;
      L::at(sums.b_hidden + j) += grad_sum;
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
