// A block back through one member: what it adds to the gradients of the weights, and the state's gradient.
#pragma once
#include "hypernetwork/cpu_block.h"

namespace emix::hypernetwork {

// Elements from a row of the first layer's gradient to the next: products write past a head's columns.
inline int64_t first_stride(const Hypernetwork& p) {
  int64_t end = p.columns;
  for (const Head& head : p.heads) end = std::max(end, head.first + padded(head.width, kColumns));
  return spread(end);
}

template <class F>
struct BackwardWeights {
  PaddedMatrix<F> first;                      // [N C, S], read for the state's gradient alone
  std::vector<TransposedMatrices<F>> weight;  // of each head [N][size, width]; empty without a second layer

  BackwardWeights(const Hypernetwork& p, const Gradients& g)
      : first(p.w_first, g.state_parts ? p.members * p.columns : 0, p.states) {
    weight.reserve(kHeads);
    for (const Head& head : p.heads)
      weight.emplace_back(head.weight, head.hidden() ? p.members : 0, head.width, head.size);
  }
};

// Where one member's sums lie in one array; without data, how many elements that takes.
template <class F>
struct Sums {
  F *first, *b_first;                          // [C, S], [C]
  F *weight[kHeads] = {}, *bias[kHeads] = {};  // [width, size], [size]
  int64_t elements = 0;

  EMIX_HD Sums(const Hypernetwork& p, F* data) {
    const auto take = [&](int64_t rows, int64_t columns) __attribute__((always_inline)) {
      F* begin = data ? data + elements : nullptr;
      elements += padded(rows, kPadRows) * padded(columns, kColumns);
      return begin;
    };
    first = take(p.columns, p.states), b_first = take(1, p.columns);
    for (int k = 0; k < kHeads; ++k)
      if (p.heads[k].hidden()) weight[k] = take(p.heads[k].width, p.heads[k].size), bias[k] = take(1, p.heads[k].size);
  }

  void write(const Hypernetwork& p, int64_t member, const Gradients& g) const {
    const auto write = [&](const F* sum, int64_t rows, int64_t columns, void* to) {
      copy(sum, rows, columns, padded(columns, kColumns), static_cast<F*>(to) + member * rows * columns, columns);
    };
    write(first, p.columns, p.states, g.w_first), write(b_first, 1, p.columns, g.b_first);
    for (int k = 0; k < kHeads; ++k)
      if (p.heads[k].hidden())
        write(weight[k], p.heads[k].width, p.heads[k].size, g.weight[k]), write(bias[k], 1, p.heads[k].size, g.bias[k]);
  }
};

template <int kBytes, class F>
class BackwardWalk {
 public:
  EMIX_HD BackwardWalk(const Hypernetwork& hypernetwork, const BackwardWeights<F>& weights, const Gradients& gradients)
      : p(hypernetwork),
        w(weights),
        g(gradients),
        stride(first_stride(p)),
        states(padded(p.states, kColumns)),
        state_stride(spread(p.states)),
        sums(p, nullptr) {
    int64_t largest = 0;
    for (const Head& head : p.heads) largest = std::max(largest, padded(head.size, kColumns));
    memory.allocate([&] {
      state = memory.take(kBlockRows * state_stride), hidden = memory.take(kBlockRows * stride);
      x_grad = memory.take(kBlockRows * stride), scratch = memory.take(kBlockRows * largest);
      zeros = memory.take(std::max(states, stride));
      if (g.state_parts) state_grad = memory.take(kBlockRows * states);
    });
  }

  // From here on blocks go through this member, and into these sums.
  EMIX_HD void begin(int64_t of_member, F* data) {
    member = of_member;
    sums = Sums<F>(p, data);
    std::fill(data, data + sums.elements, F(0));
  }

  EMIX_HD void block(const Block& at) {
    const int64_t row = member * p.rows + at.first, S = p.states;
    at.load_state(p, state, state_stride);
    copy(static_cast<const F*>(g.saved) + row * p.hidden(), at.rows, p.hidden(), p.hidden(), hidden + p.hidden_begin(),
         stride);
    for (int k = 0; k < kHeads; ++k) head(k, at, row);
    add_product(x_grad, p.columns, {state, state_stride}, at.rows, sums.first, states);
    add_rows(x_grad, stride, p.columns, at.rows, sums.b_first);
    if (!g.state_parts) return;
    product<kBytes, F>({x_grad, stride, 1}, {w.first.row(member * p.columns), states}, {zeros, 0}, {state_grad, states},
                       at.tiled(), p.columns, states);
    copy(state_grad, at.rows, S, states, static_cast<F*>(g.state_parts) + row * S, S);
  }

 private:
  const Hypernetwork& p;
  const BackwardWeights<F>& w;
  const Gradients& g;
  const int64_t stride, states, state_stride;
  Memory<F> memory;
  Sums<F> sums;
  int64_t member = 0;
  F *state = nullptr, *hidden = nullptr, *x_grad = nullptr;  // [rows, S], [rows, C] of both
  F *scratch = nullptr, *zeros = nullptr, *state_grad = nullptr;

  // x_grad's columns of a head, and what the block adds to the sums of its second layer. A product writes past the
  // head's last column; the next head comes after and writes there what belongs there.
  EMIX_HD void head(int k, const Block& at, int64_t row) {
    const Head& head = p.heads[k];
    F* to = x_grad + head.first;
    const F* grad = static_cast<const F*>(g.head[k]);
    if (grad) grad += row * head.size;
    if (!head.hidden()) return load(grad, at.rows, head.size, to, stride);
    const int64_t columns = padded(head.size, kColumns);
    if (!grad || !at.in_place(head.size)) load(grad, at.rows, head.size, scratch, columns), grad = scratch;
    const TransposedMatrices<F>& weight = w.weight[k];
    product<kBytes, F, true>({grad, columns, 1}, {weight.member(member), weight.stride}, {zeros, 0}, {to, stride},
                             at.tiled(), head.size, padded(head.width, kColumns));
    const F* of_head = hidden + head.first;
    for (int64_t r = 0; r < at.rows; ++r) where_positive(of_head + r * stride, to + r * stride, head.width);
    add_product(of_head, head.width, {grad, columns}, at.rows, sums.weight[k], columns);
    add_rows(grad, columns, head.size, at.rows, sums.bias[k]);
  }

  static EMIX_HD void load(const F* from, int64_t rows, int64_t columns, F* to, int64_t to_stride) {
    if (from) return copy(from, rows, columns, columns, to, to_stride);
    for (int64_t r = 0; r < rows; ++r) std::fill(to + r * to_stride, to + r * to_stride + columns, F(0));
  }

  static EMIX_HD void where_positive(const F* __restrict x, F* __restrict grad, int64_t count) {
    for (int64_t k = 0; k < count; ++k) grad[k] = x[k] > 0 ? grad[k] : 0;
  }

  // sum [width, columns] += left' right over the rows.
  EMIX_HD void add_product(const F* left, int64_t width, const Matrix<const F>& right, int64_t rows, F* sum,
                           int64_t columns) const {
    product<kBytes, F>({left, 1, stride}, right, {sum, columns}, {sum, columns}, padded(width, kPadRows), rows,
                       columns);
  }

  static EMIX_HD void add_rows(const F* values, int64_t row_stride, int64_t columns, int64_t rows, F* __restrict sum) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < columns; ++j) sum[j] += values[r * row_stride + j];
  }
};

}  // namespace emix::hypernetwork
