// A block through one member.
#pragma once
#include "critic/cpu_block.h"

namespace emix::critic {

template <int kBytes, class F>
class ForwardWalk {
 public:
  EMIX_HD ForwardWalk(const Critic& critic, const Weights<F>& weights, const Results& results)
      : p(critic), w(weights), out(results), size(critic), in(critic, weights, false) {
    const int64_t most_rows = padded(block_steps(p) * p.agents, kPadRows);
    memory.allocate([&] {
      in.allocate(memory);
      y = memory.take(most_rows * size.hidden), head = memory.take(most_rows * size.outputs);
    });
  }

  EMIX_HD void run(const Block& block, int64_t member) {
    in.run(block, member);
    const int64_t Hp = size.hidden, Ap = size.outputs, H = p.hidden, A = p.actions;
    product<kBytes, F>({in.x, Hp, 1}, {w.hidden.row(member * H), Hp}, {w.b_hidden.row(member), 0}, {y, Hp},
                       in.tiled_rows(), H, Hp);
    relu(y, in.rows * Hp);
    product<kBytes, F>({y, Hp, 1}, {w.head.row(member * H), Ap}, {w.b_head.row(member), 0}, {head, Ap}, in.tiled_rows(),
                       H, Ap);
    const int64_t at = member * p.rows() + in.first * p.agents;
    F* q = static_cast<F*>(out.q) + at * A;
    for (int64_t r = 0; r < in.rows; ++r)
      for (int64_t a = 0; a < A; ++a) q[r * A + a] = head[r * Ap + a] + head[r * Ap + A];
    if (out.saved) copy(y, in.rows, H, Hp, static_cast<F*>(out.saved) + at * H, H);
  }

 private:
  const Critic& p;
  const Weights<F>& w;
  const Results& out;
  const Sizes size;
  Memory<F> memory;
  FirstLayer<kBytes, F> in;
  F *y = nullptr, *head = nullptr;  // [rows, H], [rows, A + 1]
};

}  // namespace emix::critic
