// The values of some states.
#pragma once
#include "marginal/cpu_block.h"

namespace emix::marginal {

template <int kBytes, class F>
class ForwardWalk {
 public:
  EMIX_HD ForwardWalk(const Problem& problem, const Weights<F>& weights, F* values)
      : p(problem), w(weights), size(problem), block(problem, weights), value(values) {
    memory.allocate([&] {
      block.allocate(memory);
      sum = memory.take(p.agents * size.outputs);
    });
  }

  EMIX_HD void states(int64_t begin, int64_t end) {
    block.start(begin, end);
    while (block.next())
      for (int64_t i = 0; i < p.agents; ++i) {
        block.layers(i);
        for (const Segment& s : block.segments()) add(s, i);
      }
  }

 private:
  using L = Lanes<kBytes, F>;
  const Problem& p;
  const Weights<F>& w;
  const Sizes size;
  Memory<F> memory;
  Block<kBytes, F> block;
  F *value, *sum = nullptr;  // sum_k y of the state that the blocks have come to [n, H2]

  // Row by row onto the state's sum, so that its bits do not depend on where a block ends.
  EMIX_HD void add(const Segment& s, int64_t agent) const {
    F* __restrict to = sum + agent * size.outputs;
    for (int64_t j = 0; j < size.outputs; j += L::count) {
      typename L::type part = {}, zero = {};
      if (!s.first) part = L::at(to + j);
      for (int64_t r = s.begin; r < s.end; ++r) {
        const auto& z = L::at(block.z + r * size.outputs + j);
        part += block.count(r) * (z < zero ? zero : z);
      }
      L::at(to + j) = part;
    }
    if (!s.last) return;
    F head = 0;
    for (int64_t j = 0; j < p.outputs; ++j) head += to[j] * w.head.row(0)[j];
    const F scale = F(1) / static_cast<F>(p.samples), b_head = *static_cast<const F*>(p.b_head);
    value[s.state * p.agents + agent] = scale * head + b_head;
  }
};

}  // namespace emix::marginal
