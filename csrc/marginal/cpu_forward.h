// A unit's values.
#pragma once
#include "marginal/cpu_block.h"

namespace emix::marginal {

template <int kBytes, class F>
class ForwardWalk {
 public:
  EMIX_HD ForwardWalk(const Problem& problem, const Weights<F>& weights, const Units& of, F* values)
      : p(problem), w(weights), units(of), size(problem), block(problem, weights, of), value(values) {
    memory.allocate([&] {
      block.allocate(memory);
      sum = memory.take(p.agents * units.states * size.outputs);
    });
  }

  EMIX_HD void unit(int64_t index) {
    for (int64_t e = 0; e < p.agents * units.states * size.outputs; ++e) sum[e] = 0;
    for (int64_t chunk = 0; chunk < units.chunks; ++chunk) {
      block.load(index, chunk);
      for (int64_t i = 0; i < p.agents; ++i) {
        block.layers(i);
        for (int64_t s = 0; s < block.states; ++s) add_samples(s, sum_of(s, i));
      }
    }
    const F scale = F(1) / static_cast<F>(p.samples), b_head = *static_cast<const F*>(p.b_head);
    for (int64_t s = 0; s < block.states; ++s)
      for (int64_t i = 0; i < p.agents; ++i) {
        F head = 0;
        for (int64_t j = 0; j < p.outputs; ++j) head += sum_of(s, i)[j] * w.head.row(0)[j];
        value[(block.state + s) * p.agents + i] = scale * head + b_head;
      }
  }

 private:
  const Problem& p;
  const Weights<F>& w;
  const Units& units;
  const Sizes size;
  Memory<F> memory;
  Block<kBytes, F> block;
  F *value, *sum = nullptr;  // sum_k y of each state and agent [states, n, H2]

  EMIX_HD F* sum_of(int64_t state, int64_t agent) const { return sum + (state * p.agents + agent) * size.outputs; }

  EMIX_HD void add_samples(int64_t state, F* __restrict to) const {
    for (int64_t j = 0; j < size.outputs; j += kColumns) {
      F part[kColumns];
      for (int64_t c = 0; c < kColumns; ++c) part[c] = to[j + c];
      for (int64_t r = state * block.samples; r < (state + 1) * block.samples; ++r)
        for (int64_t c = 0; c < kColumns; ++c) part[c] += relu(block.z[r * size.outputs + j + c]);
      for (int64_t c = 0; c < kColumns; ++c) to[j + c] = part[c];
    }
  }
};

}  // namespace emix::marginal
