// What a core works on at once: some joint actions of a state, or of several states where these have few, with all
// agents of each. The rows of a block are (state, joint action).
#pragma once
#include "cpu_product.h"
#include "marginal/cpu_rows.h"

namespace emix::marginal {

// Padded columns.
struct Sizes {
  int64_t choices, hidden, outputs;

  explicit Sizes(const Problem& p)
      : choices(padded(p.choices, kColumns)),
        hidden(padded(p.hidden, kColumns)),
        outputs(padded(p.outputs, kColumns)) {}
};

template <class F>
struct Weights {
  PaddedMatrix<F> action, hidden, b_hidden, head;

  explicit Weights(const Problem& p)
      : action(p.w_action, p.agents * p.choices, p.hidden),
        hidden(p.w_hidden, p.hidden, p.outputs),
        b_hidden(p.b_hidden, 1, p.outputs),
        head(p.w_head, 1, p.outputs) {}
};

// Neighbouring columns in a register: GCC leaves loops over 16 of them scalar.
template <int kBytes, class F>
struct Lanes {
  typedef F type __attribute__((vector_size(kBytes), aligned(sizeof(F)), may_alias));
  static constexpr int64_t count = kBytes / sizeof(F);

  static EMIX_HD type& at(F* data) { return *reinterpret_cast<type*>(data); }
  static EMIX_HD const type& at(const F* data) { return *reinterpret_cast<const type*>(data); }
};

template <class F>
EMIX_HD F relu(F x) {
  return x < 0 ? 0 : x;  // a NaN stays one
}

// A block up to the second layer's sums. Rows that only fill the products' tiles hold something finite, or what an
// earlier block has left.
template <int kBytes, class F>
class Block {
 public:
  F *share = nullptr, *total = nullptr;  // c_j^k [n, rows, H] and S^k [rows, H]
  F *x = nullptr, *z = nullptr;          // an agent's [rows, H] and [rows, H2], before its ReLU
  F* action = nullptr;                   // numbers [n, rows, D]

  EMIX_HD Block(const Problem& problem, const Weights<F>& weights)
      : p(problem), w(weights), size(problem), most(most_rows(problem)), packed(problem) {}

  EMIX_HD void allocate(Memory<F>& memory) {
    share = memory.take(p.agents * most * size.hidden), total = memory.take(most * size.hidden);
    x = memory.take(most * size.hidden), z = memory.take(most * size.outputs);
    if (p.continuous) action = memory.take(p.agents * most * size.choices), zeros = memory.take(size.hidden);
  }

  // Blocks are from here on of these states.
  EMIX_HD void start(int64_t begin, int64_t end) { packed.start(begin, end); }

  EMIX_HD int64_t rows() const { return static_cast<int64_t>(packed.rows.size()); }
  EMIX_HD F count(int64_t row) const { return packed.rows[row].count; }
  EMIX_HD const std::vector<Segment>& segments() const { return packed.segments; }
  EMIX_HD F* share_of(int64_t agent) const { return share + agent * most * size.hidden; }
  EMIX_HD F* action_of(int64_t agent) const { return action + agent * most * size.choices; }
  EMIX_HD int64_t index(int64_t row, int64_t agent) const { return p.index(packed.rows[row].place + agent); }

  // The next block, if there is one.
  EMIX_HD bool next() {
    if (!packed.next()) return false;
    for (int64_t i = 0; i < p.agents; ++i) {
      if (p.continuous)
        load_numbers(i);
      else
        for (int64_t r = 0; r < rows(); ++r)
          copy(w.action.row(i * p.choices + index(r, i)), 1, p.hidden, 0, share_of(i) + r * size.hidden, 0);
    }
    for (int64_t e = 0; e < rows() * size.hidden; ++e) total[e] = 0;
    for (int64_t i = 0; i < p.agents; ++i) add(share_of(i), total);
    return true;
  }

  // x and z of an agent.
  EMIX_HD void layers(int64_t agent) {
    const int64_t Hp = size.hidden, H = p.hidden;
    const F* own = share_of(agent);
    for (const Segment& s : segments()) {
      const F* first = static_cast<const F*>(p.first) + (s.state * p.agents + agent) * H;
      for (int64_t r = s.begin; r < s.end; ++r)
        for (int64_t j = 0; j < H; ++j) x[r * Hp + j] = relu(first[j] + (total[r * Hp + j] - own[r * Hp + j]));
    }
    product<kBytes, F>({x, Hp, 1}, {w.hidden.row(0), size.outputs}, {w.b_hidden.row(0), 0}, {z, size.outputs},
                       padded(rows(), kPadRows), H, size.outputs);
  }

  EMIX_HD void add(const F* __restrict rows_of_one, F* __restrict sum) const {
    for (int64_t e = 0; e < rows() * size.hidden; ++e) sum[e] += rows_of_one[e];
  }

 private:
  const Problem& p;
  const Weights<F>& w;
  const Sizes size;
  const int64_t most;
  Rows<F> packed;
  F* zeros = nullptr;

  EMIX_HD void load_numbers(int64_t agent) {
    for (int64_t r = 0; r < rows(); ++r)
      copy(static_cast<const F*>(p.actions) + (packed.rows[r].place + agent) * p.choices, 1, p.choices, 0,
           action_of(agent) + r * size.choices, 0);
    product<kBytes, F>({action_of(agent), size.choices, 1}, {w.action.row(agent * p.choices), size.hidden}, {zeros, 0},
                       {share_of(agent), size.hidden}, padded(rows(), kPadRows), p.choices, size.hidden);
  }
};

}  // namespace emix::marginal
