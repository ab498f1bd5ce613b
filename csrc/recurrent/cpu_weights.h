// The CPU's copies of the weights, laid out for product(): transposed where they are multiplied from the right, gates
// in the order of recurrent.h, padded with zeros. Also the way back, for their gradients.
#pragma once
#include "cpu_memory.h"
#include "cpu_product.h"
#include "recurrent/recurrent.h"

namespace emix::recurrent {

// Sizes, padded; where a matrix has them as columns.
struct Sizes {
  int64_t inputs, encoded, hidden, actions;

  explicit Sizes(const Sequence& p)
      : inputs(padded(p.inputs, kColumns)),
        encoded(padded(p.encoded(), kColumns)),
        hidden(padded(p.hidden, kColumns)),
        actions(padded(p.actions, kColumns)) {}
};

inline constexpr int kInputGate[3] = {2, 0, 1};   // n, r, z: which third of torch's rows
inline constexpr int kHiddenGate[3] = {0, 1, 2};  // r, z, m

template <class F>
struct ForwardWeights {
  Memory<F> memory;
  F *in = nullptr, *b_encode = nullptr;  // [O + A + n, H], [H]
  F *ih = nullptr, *hh = nullptr;        // [E, 3 H] to n, r, z; [H, 3 H] to r, z, m
  F* bias = nullptr;                     // [4 H]
  F *out = nullptr, *b_head = nullptr;   // [H, A], [A]

  explicit ForwardWeights(const Sequence& p) {
    const Sizes size(p);
    const int64_t H = p.hidden, E = p.encoded(), Hp = size.hidden;
    memory.allocate([&] {
      if (p.is_agent) {
        in = memory.take(p.in_columns() * Hp), b_encode = memory.take(Hp);
        out = memory.take(H * size.actions), b_head = memory.take(size.actions);
      }
      ih = memory.take(E * 3 * Hp), hh = memory.take(H * 3 * Hp), bias = memory.take(kGates * Hp);
    });
    const F *w_ih = static_cast<const F*>(p.w_ih), *w_hh = static_cast<const F*>(p.w_hh);
    const F *b_ih = static_cast<const F*>(p.b_ih), *b_hh = static_cast<const F*>(p.b_hh);
    for (int gate = 0; gate < 3; ++gate) {
      transpose(w_ih + kInputGate[gate] * H * E, H, E, E, ih + gate * Hp, 3 * Hp);
      transpose(w_hh + kHiddenGate[gate] * H * H, H, H, H, hh + gate * Hp, 3 * Hp);
    }
    for (int64_t j = 0; j < H; ++j) {
      bias[j] = b_ih[2 * H + j], bias[3 * Hp + j] = b_hh[2 * H + j];
      for (int gate = 0; gate < 2; ++gate) bias[(1 + gate) * Hp + j] = b_ih[gate * H + j] + b_hh[gate * H + j];
    }
    if (!p.is_agent) return;
    transpose(static_cast<const F*>(p.w_encode), H, p.in_columns(), p.in_columns(), in, Hp);
    transpose(static_cast<const F*>(p.w_head), p.actions, H, H, out, size.actions);
    copy(static_cast<const F*>(p.b_encode), 1, H, H, b_encode, Hp);
    copy(static_cast<const F*>(p.b_head), 1, p.actions, p.actions, b_head, size.actions);
  }
};

template <class F>
struct BackwardWeights {
  Memory<F> memory;
  F* in = nullptr;                 // [H, O], for the gradient of x
  F *ih = nullptr, *hh = nullptr;  // [3 H, E] from n, r, z; [3 H, H] from r, z, m
  F* out = nullptr;                // [A, H]

  BackwardWeights(const Sequence& p, bool x_wanted) {
    const Sizes size(p);
    const int64_t H = p.hidden, E = p.encoded(), Hp = size.hidden;
    memory.allocate([&] {
      ih = memory.take(3 * Hp * size.encoded), hh = memory.take(3 * Hp * Hp);
      if (p.is_agent) out = memory.take(p.actions * Hp);
      if (p.is_agent && x_wanted) in = memory.take(H * size.inputs);
    });
    const F *w_ih = static_cast<const F*>(p.w_ih), *w_hh = static_cast<const F*>(p.w_hh);
    for (int gate = 0; gate < 3; ++gate) {
      copy(w_ih + kInputGate[gate] * H * E, H, E, E, ih + gate * Hp * size.encoded, size.encoded);
      copy(w_hh + kHiddenGate[gate] * H * H, H, H, H, hh + gate * Hp * Hp, Hp);
    }
    if (out) copy(static_cast<const F*>(p.w_head), p.actions, H, H, out, Hp);
    if (in) copy(static_cast<const F*>(p.w_encode), H, p.inputs, p.in_columns(), in, size.inputs);
  }
};

// Where sums of weight gradients lie in one array, transposed like ForwardWeights; without data, how many elements that
// takes.
template <class F>
struct WeightGradients {
  F *ih, *hh, *bias, *in, *action, *id, *out, *b_head;
  int64_t elements;

  WeightGradients(const Sequence& p, F* data) {
    const Sizes size(p);
    elements = 0;
    const auto take = [&](int64_t count) {
      F* begin = data ? data + elements : nullptr;
      elements += count;
      return begin;
    };
    ih = take(size.encoded * 3 * size.hidden), hh = take(size.hidden * 3 * size.hidden);
    bias = take(kGates * size.hidden);
    in = take(p.is_agent ? size.inputs * size.hidden : 0);
    action = take(p.action_columns * size.hidden);
    id = take(p.is_agent ? p.agents * size.hidden : 0);  // also where W_in has no such columns: their sum is b_encode's
    out = take(size.hidden * size.actions), b_head = take(size.actions);
  }

  void write(const Sequence& p, const Gradients& g) const {
    const Sizes size(p);
    const int64_t H = p.hidden, E = p.encoded(), Hp = size.hidden, columns = p.in_columns();
    for (int gate = 0; gate < 3; ++gate) {
      transpose(ih + gate * Hp, E, H, 3 * Hp, static_cast<F*>(g.w_ih) + kInputGate[gate] * H * E, E);
      transpose(hh + gate * Hp, H, H, 3 * Hp, static_cast<F*>(g.w_hh) + kHiddenGate[gate] * H * H, H);
      copy(bias + gate * Hp, 1, H, H, static_cast<F*>(g.b_ih) + kInputGate[gate] * H, H);
      copy(bias + (1 + gate) * Hp, 1, H, H, static_cast<F*>(g.b_hh) + kHiddenGate[gate] * H, H);
    }
    if (!p.is_agent) return;
    F *w_encode = static_cast<F*>(g.w_encode), *b_encode = static_cast<F*>(g.b_encode);
    transpose(in, p.inputs, H, Hp, w_encode, columns);
    transpose(action, p.action_columns, H, Hp, w_encode + p.inputs, columns);
    transpose(id, p.id_columns, H, Hp, w_encode + p.inputs + p.action_columns, columns);
    for (int64_t j = 0; j < H; ++j) b_encode[j] = 0;
    for (int64_t i = 0; i < p.agents; ++i)
      for (int64_t j = 0; j < H; ++j) b_encode[j] += id[i * Hp + j];
    transpose(out, H, p.actions, size.actions, static_cast<F*>(g.w_head), H);
    copy(b_head, 1, p.actions, p.actions, static_cast<F*>(g.b_head), p.actions);
  }
};

}  // namespace emix::recurrent
