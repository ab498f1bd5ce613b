// A block through one member.
#pragma once
#include <cmath>

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
    const int64_t Hp = size.hidden, H = p.hidden;
    product<kBytes, F>({in.x, Hp, 1}, {w.hidden.row(member * H), w.hidden.stride}, {w.b_hidden.row(member), 0}, {y, Hp},
                       in.tiled_rows(), H, Hp);
    relu(y, in.rows * Hp);
    const int64_t at = member * p.rows() + in.first * p.agents;
    F* q = static_cast<F*>(out.q) + at * p.values();
    p.action ? value_of_action(member, q) : values_of_all(member, q);
    if (!out.saved) return;
    F* saved = static_cast<F*>(out.saved) + at * p.saved();
    copy(y, in.rows, H, Hp, saved, p.saved());
    if (p.keeps_first_layer()) copy(in.x, in.rows, H, Hp, saved + H, p.saved());
  }

 private:
  const Critic& p;
  const Weights<F>& w;
  const Results& out;
  const Sizes size;
  Memory<F> memory;
  FirstLayer<kBytes, F> in;
  F *y = nullptr, *head = nullptr;  // [rows, H], [rows, A + 1]

  EMIX_HD void values_of_all(int64_t member, F* q) const {
    const int64_t Hp = size.hidden, Ap = size.outputs, A = p.actions;
    product<kBytes, F>({y, Hp, 1}, {w.head.row(member * p.hidden), Ap}, {w.b_head.row(member), 0}, {head, Ap},
                       in.tiled_rows(), p.hidden, Ap);
    for (int64_t r = 0; r < in.rows; ++r)
      for (int64_t a = 0; a < A; ++a) q[r * A + a] = head[r * Ap + a] + head[r * Ap + A];
  }

  EMIX_HD void value_of_action(int64_t member, F* q) const {
    const int64_t* action = p.action + in.first * p.agents;
    for (int64_t r = 0; r < in.rows; ++r) {
      const int64_t a = action[r];
      const bool is_one = a >= 0 && a < p.actions;
      q[r] = is_one ? w.action.bias(member, a) + dot(y + r * size.hidden, w.action.row(member, a)) : F(NAN);
    }
  }

  // Over H units, in 16 lanes at every width.
  EMIX_HD F dot(const F* left, const F* right) const {
    typedef F V __attribute__((vector_size(kBytes), aligned(sizeof(F)), may_alias));
    constexpr int64_t kLanes = kBytes / sizeof(F), kVectors = kColumns / kLanes;
    V sum[kVectors] = {};
    for (int64_t j = 0; j < size.hidden; j += kColumns) {
      EMIX_UNROLL
      for (int64_t v = 0; v < kVectors; ++v)
        sum[v] +=
            *reinterpret_cast<const V*>(left + j + v * kLanes) * *reinterpret_cast<const V*>(right + j + v * kLanes);
    }
    F lane[kColumns];
    memcpy(lane, sum, sizeof(sum));
    EMIX_UNROLL
    for (int half = kColumns / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
    return lane[0];
  }
};

}  // namespace emix::critic
