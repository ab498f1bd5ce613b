// What a core works on at once: a block of steps, with all agents of each. A member's weights lie in the second cache
// from one block to the next.
#pragma once
#include <algorithm>
#include <numeric>

#include "cpu_memory.h"
#include "cpu_product.h"
#include "cpu_tasks.h"
#include "critic/critic.h"

namespace emix::critic {

inline constexpr int64_t kUnitRows = 64, kMostRows = 128;
inline constexpr int64_t kWorthSpreading = 4096;  // rows that are worth a copy of the weights

// What tasks are made of, and so how sums are grouped: units of about kUnitRows rows.
inline int64_t unit_steps(const Critic& p) { return std::max<int64_t>(1, kUnitRows / std::max<int64_t>(1, p.agents)); }
inline int64_t units(const Critic& p) { return (p.steps + unit_steps(p) - 1) / unit_steps(p); }

// Steps of a block: a unit's, or some more where that makes rows a multiple of kPadRows and a product has none to fill.
inline int64_t block_steps(const Critic& p) {
  const int64_t n = std::max<int64_t>(1, p.agents), steps = padded(unit_steps(p), kPadRows / std::gcd(n, kPadRows));
  return steps * n <= kMostRows ? steps : unit_steps(p);
}

// The steps that a core has at hand.
struct Block {
  int64_t first, steps;
};

// f(block) over a task's steps.
template <class F>
EMIX_HD void for_each_block(const Critic& p, const Tasks& tasks, int64_t task, const F& f) {
  const int64_t end = std::min(tasks.end(task) * unit_steps(p), p.steps);
  for (int64_t first = tasks.begin(task) * unit_steps(p); first < end; first += block_steps(p))
    f(Block{first, std::min(block_steps(p), end - first)});
}

// What makes a single action's value of y, q_a = (w_a + w_v)' y + b_a + b_v: a row for each member and action, and its
// bias. Empty where all actions are wanted.
template <class F>
class ActionWeights {
 public:
  explicit ActionWeights(const Critic& p) : stride_(padded(p.hidden, kColumns)), actions_(p.actions) {
    if (!p.action) return;
    memory_.allocate(
        [&] { rows_ = memory_.take(p.members * p.actions * stride_), bias_ = memory_.take(p.members * p.actions); });
    const F *w_head = static_cast<const F*>(p.w_head), *b_head = static_cast<const F*>(p.b_head);
    for (int64_t member = 0; member < p.members; ++member, b_head += p.outputs()) {
      for (int64_t a = 0; a < p.actions; ++a) bias_[member * p.actions + a] = b_head[a] + b_head[p.actions];
      for (int64_t j = 0; j < p.hidden; ++j, w_head += p.outputs())
        for (int64_t a = 0; a < p.actions; ++a)
          rows_[(member * p.actions + a) * stride_ + j] = w_head[a] + w_head[p.actions];
    }
  }

  const F* row(int64_t member, int64_t a) const { return rows_ + (member * actions_ + a) * stride_; }
  F bias(int64_t member, int64_t a) const { return bias_[member * actions_ + a]; }

 private:
  int64_t stride_, actions_;
  Memory<F> memory_;
  F *rows_ = nullptr, *bias_ = nullptr;
};

template <class F>
struct Weights {
  PaddedMatrix<F> in, b_encode, hidden, b_hidden, head, b_head;
  ActionWeights<F> action;

  explicit Weights(const Critic& p)
      : in(p.w_encode, p.members * p.inputs(), p.hidden, p.rows() >= kWorthSpreading),
        b_encode(p.b_encode, p.members, p.hidden),
        hidden(p.w_hidden, p.members * p.hidden, p.hidden, p.rows() >= kWorthSpreading),
        b_hidden(p.b_hidden, p.members, p.hidden),
        head(p.w_head, p.members * p.hidden, p.outputs()),
        b_head(p.b_head, p.members, p.outputs()),
        action(p) {}
};

// Sizes as columns, padded.
struct Sizes {
  int64_t states, features, hidden, outputs;

  explicit Sizes(const Critic& p)
      : states(padded(p.states, kColumns)),
        features(padded(p.features, kColumns)),
        hidden(padded(p.hidden, kColumns)),
        outputs(padded(p.outputs(), kColumns)) {}
};

template <class F>
EMIX_HD void relu(F* x, int64_t size) {
  for (int64_t k = 0; k < size; ++k) x[k] = x[k] < 0 ? 0 : x[k];  // a NaN stays one
}

// A block's inputs and its first layer. Row s * agents + i of the arrays is agent i of step s; rows that only fill the
// products' tiles hold something finite.
template <int kBytes, class F>
class FirstLayer {
 public:
  F* state = nullptr;  // [steps, S]
  Left<F> obs;         // [rows, O]
  F* x = nullptr;      // [rows, H]
  int64_t first = 0, steps = 0, rows = 0;

  // `transposed`: obs' is multiplied, too.
  EMIX_HD FirstLayer(const Critic& critic, const Weights<F>& weights, bool transposed)
      : p(critic),
        w(weights),
        size(critic),
        whole_tiles(!transposed || p.features % kPadRows == 0),
        one_stride(p.agents == 1 || p.obs.stride[0] == p.agents * p.obs.stride[1]) {}

  EMIX_HD void allocate(Memory<F>& memory) {
    const int64_t most_steps = padded(block_steps(p), kPadRows),
                  most_rows = padded(block_steps(p) * p.agents, kPadRows);
    state = memory.take(most_steps * size.states), copied_obs = memory.take(most_rows * size.features);
    from_state = memory.take(most_steps * size.hidden), x = memory.take(most_rows * size.hidden);
  }

  EMIX_HD int64_t tiled_steps() const { return padded(steps, kPadRows); }
  EMIX_HD int64_t tiled_rows() const { return padded(rows, kPadRows); }

  // The inputs alone.
  EMIX_HD void load(const Block& block) {
    first = block.first, steps = block.steps, rows = steps * p.agents;
    copy(p.state.at<F>(first), steps, p.states, p.state.stride[0], state, size.states);
    load_obs();
  }

  EMIX_HD void run(const Block& block, int64_t member) {
    load(block);
    const int64_t Hp = size.hidden, stride = w.in.stride;
    const F *w_encode = w.in.row(member * p.inputs()), *ids = w_encode + (p.states + p.features) * stride;
    product<kBytes, F>({state, size.states, 1}, {w_encode, stride}, {w.b_encode.row(member), 0}, {from_state, Hp},
                       tiled_steps(), p.states, Hp);
    F* row = x;
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t i = 0; i < p.agents; ++i, row += Hp) {
        const F *shared = from_state + s * Hp, *id = ids + i * stride;
        for (int64_t j = 0; j < Hp; ++j) row[j] = shared[j] + id[j];
      }
    product<kBytes, F, true>(obs, {w_encode + p.states * stride, stride}, {x, Hp}, {x, Hp}, tiled_rows(), p.features,
                             Hp);
    relu(x, tiled_rows() * Hp);
  }

 private:
  const Critic& p;
  const Weights<F>& w;
  const Sizes size;
  const bool whole_tiles, one_stride;              // whether products can read observations where they lie
  F *copied_obs = nullptr, *from_state = nullptr;  // [rows, O], [steps, H]

  // Observations stay where they are, if products read nothing there but them.
  EMIX_HD void load_obs() {
    if (one_stride && whole_tiles && rows % kPadRows == 0) {
      obs = {p.obs.at<F>(first), p.agents == 1 ? p.obs.stride[0] : p.obs.stride[1], 1};
      return;
    }
    for (int64_t s = 0; s < steps; ++s)
      copy(p.obs.at<F>(first + s), p.agents, p.features, p.obs.stride[1], copied_obs + s * p.agents * size.features,
           size.features);
    obs = {copied_obs, size.features, 1};
  }
};

}  // namespace emix::critic
