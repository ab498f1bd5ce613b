// What a core works on at once: a block of steps, with all agents of each. A member's weights lie in the second cache
// from one block to the next.
#pragma once
#include <algorithm>

#include "cpu_memory.h"
#include "cpu_product.h"
#include "critic/critic.h"

namespace emix::critic {

inline constexpr int64_t kBlockRows = 64;

inline int64_t block_steps(const Critic& p) {
  return std::max<int64_t>(1, kBlockRows / std::max<int64_t>(1, p.agents));
}
inline int64_t blocks(const Critic& p) { return (p.steps + block_steps(p) - 1) / block_steps(p); }

template <class F>
struct Weights {
  PaddedMatrix<F> in, b_encode, hidden, b_hidden, head, b_head;

  explicit Weights(const Critic& p)
      : in(p.w_encode, p.members * p.inputs(), p.hidden),
        b_encode(p.b_encode, p.members, p.hidden),
        hidden(p.w_hidden, p.members * p.hidden, p.hidden),
        b_hidden(p.b_hidden, p.members, p.hidden),
        head(p.w_head, p.members * p.hidden, p.outputs()),
        b_head(p.b_head, p.members, p.outputs()) {}
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
  F *state = nullptr, *obs = nullptr;  // [steps, S], [rows, O]
  F* x = nullptr;                      // [rows, H]
  int64_t first = 0, steps = 0, rows = 0;

  EMIX_HD FirstLayer(const Critic& critic, const Weights<F>& weights) : p(critic), w(weights), size(critic) {}

  EMIX_HD void allocate(Memory<F>& memory) {
    const int64_t most_steps = padded(block_steps(p), kPadRows),
                  most_rows = padded(block_steps(p) * p.agents, kPadRows);
    state = memory.take(most_steps * size.states), obs = memory.take(most_rows * size.features);
    from_state = memory.take(most_steps * size.hidden), x = memory.take(most_rows * size.hidden);
  }

  EMIX_HD int64_t tiled_steps() const { return padded(steps, kPadRows); }
  EMIX_HD int64_t tiled_rows() const { return padded(rows, kPadRows); }

  EMIX_HD void run(int64_t block, int64_t member) {
    first = block * block_steps(p), steps = std::min(block_steps(p), p.steps - first), rows = steps * p.agents;
    load();
    const int64_t Hp = size.hidden;
    const F* w_encode = w.in.row(member * p.inputs());
    product<kBytes, F>({state, size.states, 1}, {w_encode, Hp}, {w.b_encode.row(member), 0}, {from_state, Hp},
                       tiled_steps(), p.states, Hp);
    for (int64_t r = 0; r < tiled_rows(); ++r) {
      const F *shared = from_state + r / p.agents * Hp, *id = w_encode + (p.states + p.features + r % p.agents) * Hp;
      for (int64_t j = 0; j < Hp; ++j) x[r * Hp + j] = shared[j] + id[j];
    }
    product<kBytes, F>({obs, size.features, 1}, {w_encode + p.states * Hp, Hp}, {x, Hp}, {x, Hp}, tiled_rows(),
                       p.features, Hp);
    relu(x, tiled_rows() * Hp);
  }

 private:
  const Critic& p;
  const Weights<F>& w;
  const Sizes size;
  F* from_state = nullptr;  // [steps, H]

  EMIX_HD void load() {
    copy(p.state.at<F>(first), steps, p.states, p.state.stride[0], state, size.states);
    for (int64_t s = 0; s < steps; ++s)
      copy(p.obs.at<F>(first + s), p.agents, p.features, p.obs.stride[1], obs + s * p.agents * size.features,
           size.features);
  }
};

}  // namespace emix::critic
