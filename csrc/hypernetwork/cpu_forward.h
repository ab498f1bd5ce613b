// A block through one member.
#pragma once
#include "hypernetwork/cpu_block.h"

namespace emix::hypernetwork {

template <class F>
struct ForwardWeights {
  TransposedMatrices<F> first;  // [N][S, C]
  PaddedMatrix<F> b_first;
  std::vector<PaddedMatrix<F>> weight, bias;  // of each head; unused without a second layer

  explicit ForwardWeights(const Hypernetwork& p)
      : first(p.w_first, p.members, p.columns, p.states), b_first(p.b_first, p.members, p.columns) {
    weight.reserve(kHeads), bias.reserve(kHeads);
    for (const Head& head : p.heads) {
      weight.emplace_back(head.weight, head.hidden() ? p.members * head.width : 0, head.size);
      bias.emplace_back(head.bias, head.hidden() ? p.members : 0, head.size);
    }
  }
};

template <int kBytes, class F>
class ForwardWalk {
 public:
  EMIX_HD ForwardWalk(const Hypernetwork& hypernetwork, const ForwardWeights<F>& weights, const Results& results)
      : p(hypernetwork), w(weights), out(results), stride(weights.first.stride), states(padded(p.states, kColumns)) {
    int64_t largest = 0;
    for (const Head& head : p.heads) largest = std::max(largest, padded(head.size, kColumns));
    memory.allocate([&] {
      state = memory.take(kBlockRows * states), x = memory.take(kBlockRows * stride);
      scratch = memory.take(kBlockRows * largest);
    });
  }

  EMIX_HD void block(const Block& at, int64_t member) {
    at.load_state(p, state, states);
    product<kBytes, F>({state, states, 1}, {w.first.member(member), stride}, {w.b_first.row(member), 0}, {x, stride},
                       at.tiled(), p.states, padded(p.columns, kColumns));
    const int64_t hidden = p.hidden();
    F* begin = x + p.hidden_begin();
    for (int64_t r = 0; r < at.rows; ++r) relu(begin + r * stride, hidden);
    const int64_t row = member * p.rows + at.first;
    if (out.saved) copy(begin, at.rows, hidden, stride, static_cast<F*>(out.saved) + row * hidden, hidden);
    for (int k = 0; k < kHeads; ++k) head(k, at, member, static_cast<F*>(out.head[k]) + row * p.heads[k].size);
  }

 private:
  const Hypernetwork& p;
  const ForwardWeights<F>& w;
  const Results& out;
  const int64_t stride, states;
  Memory<F> memory;
  F *state = nullptr, *x = nullptr, *scratch = nullptr;  // [rows, S], [rows, C], [rows, a head's size]

  EMIX_HD void head(int k, const Block& at, int64_t member, F* result) const {
    const Head& head = p.heads[k];
    const F* in = x + head.first;
    if (!head.hidden()) return copy(in, at.rows, head.size, stride, result, head.size);
    const int64_t columns = w.weight[k].stride;
    F* to = at.in_place(head.size) ? result : scratch;
    product<kBytes, F>({in, stride, 1}, {w.weight[k].row(member * head.width), columns}, {w.bias[k].row(member), 0},
                       {to, columns}, at.tiled(), head.width, columns);
    if (to == scratch) copy(scratch, at.rows, head.size, columns, result, head.size);
  }

  static EMIX_HD void relu(F* values, int64_t size) {
    for (int64_t k = 0; k < size; ++k) values[k] = values[k] < 0 ? 0 : values[k];  // a NaN stays one
  }
};

}  // namespace emix::hypernetwork
