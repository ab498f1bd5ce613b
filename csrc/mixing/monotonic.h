// The monotonic mixer on the CPU: vectorised over a row's hidden units, several rows a step.
#pragma once
#include <algorithm>
#include <vector>

#include "lanes.h"
#include "mixing/columns.h"
#include "mixing/row.h"

namespace emix::mixing {

inline constexpr int kUnits = 32;      // hidden units at a time; fewer, and GCC unrolls the loops and keeps them scalar
inline constexpr int64_t kBatch = 16;  // rows that a step of the monotonic mixer takes, so that none waits for its own

template <class F>
using FourOf = typename Four<F>::type;

template <class F>
EMIX_HD F total(const FourOf<F>& x) {
  return (x[0] + x[1]) + (x[2] + x[3]);
}

// Of 2 kHalf lanes, which it overwrites: their sum, but for the last four lanes.
template <int kHalf, class F>
EMIX_HD void fold(F* lane, FourOf<F>& four) {
#pragma GCC unroll 1
  for (int k = 0; k < kHalf; ++k) lane[k] += lane[k + kHalf];
  if constexpr (kHalf > 4)
    fold<kHalf / 2>(lane, four);
  else
    load_four<F>(lane, four);
}

// f(first, count) over a row's hidden units; a whole chunk's count is a constant.
template <class Chunk>
EMIX_HD void for_each_chunk(int64_t embed, const Chunk& f) {
  int64_t first = 0;
  for (; first + kUnits <= embed; first += kUnits) f(first, std::integral_constant<int, kUnits>());
  if (first < embed) f(first, static_cast<int>(embed - first));
}

template <class F>
EMIX_HD F sum_of(int64_t count, const F* x) {
  F lane[kUnits] = {};
  for_each_chunk(
      count, [&](int64_t first, auto size) __attribute__((always_inline)) {
        for (int k = 0; k < size; ++k) lane[k] += x[first + k];
      });
  FourOf<F> four;
  fold<kUnits / 2>(lane, four);
  return total<F>(four);
}

// h = b1 + sum_i q_i |w1_i| of one row.
template <class T, class F>
EMIX_HD void hidden_units(const Monotonic& p, int64_t row, F* h) {
  const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row), *b1 = p.b1.row<T>(row);
  for_each_chunk(
      p.embed, [&](int64_t first, auto count) __attribute__((always_inline)) {
        F sum[kUnits];  // in registers
        for (int k = 0; k < count; ++k) sum[k] = static_cast<F>(b1[first + k]);
        for (int64_t i = 0; i < p.agents; ++i)
          for (int k = 0; k < count; ++k)
            sum[k] += static_cast<F>(q[i]) * std::fabs(static_cast<F>(w1[i * p.embed + first + k]));
        for (int k = 0; k < count; ++k) h[first + k] = sum[k];
      });
}

// out_k = sum_e value_e |w2_ek| + v_k of one row.
template <class T, class F>
EMIX_HD void mix_values(const Monotonic& p, int64_t row, const F* value, F* out) {
  const T *w2 = p.w2.row<T>(row), *v = p.v.row<T>(row);
  for (int64_t k = 0; k < p.outputs; ++k) out[k] = static_cast<F>(v[k]);
  with_lanes(
      p.outputs, [&](auto lanes) __attribute__((always_inline)) {
        for (int64_t k = 0; k < p.outputs; k += lanes)
          Columns<T, F, decltype(lanes)::value>(w2, p.embed, p.outputs, k).mix(value, out + k);
      });
}

template <class T, class F>
EMIX_HD void monotonic_rows(const Monotonic& p, F* out, int64_t begin, int64_t end) {
  std::vector<F> buffer(kBatch * p.embed);
  for (int64_t first = begin; first < end; first += kBatch) {
    const int64_t rows = std::min(kBatch, end - first);
    for (int64_t r = 0; r < rows; ++r) hidden_units<T>(p, first + r, buffer.data() + r * p.embed);
    if (p.outputs != 1) {
      for (int64_t r = 0; r < rows; ++r) {
        F* h = buffer.data() + r * p.embed;
        for (int64_t e = 0; e < p.embed; ++e) h[e] = elu(h[e]).value;
        mix_values<T>(p, first + r, h, out + (first + r) * p.outputs);
      }
      continue;
    }
    for (int64_t r = 0; r < rows; ++r) {
      F* h = buffer.data() + r * p.embed;
      const T* w2 = p.w2.row<T>(first + r);
      for (int64_t e = 0; e < p.embed; ++e) h[e] = elu(h[e]).value * std::fabs(static_cast<F>(w2[e]));
    }
    for (int64_t r = 0; r < rows; ++r)
      out[first + r] = sum_of(p.embed, buffer.data() + r * p.embed) + bias_at<T, F>(p.v, first + r);
  }
}

// q_grad_i = sum_e h_grad_e |w1_ie|
template <class T, class F>
EMIX_HD void agent_gradients(const Monotonic& p, int64_t row, const F* h_grad, F* q_grad) {
  const T* w1 = p.w1.row<T>(row);
  std::fill_n(q_grad, p.agents, F(0));
  for_each_chunk(
      p.embed, [&](int64_t first, auto count) __attribute__((always_inline)) {
        const auto partial = [&](int64_t i, FourOf<F> & four) __attribute__((always_inline)) {
          F term[kUnits] = {};
          for (int k = 0; k < count; ++k)
            term[k] = h_grad[first + k] * std::fabs(static_cast<F>(w1[i * p.embed + first + k]));
          fold<kUnits / 2>(term, four);
        };
        int64_t i = 0;
        for (; i + 4 <= p.agents; i += 4) {
          FourOf<F> x[4], sum;
          EMIX_UNROLL
          for (int j = 0; j < 4; ++j) partial(i + j, x[j]);
          transpose<F>(x);
          load_four<F>(q_grad + i, sum);
          sum += (x[0] + x[1]) + (x[2] + x[3]);
          store_four<F, F>(q_grad + i, sum);
        }
        for (FourOf<F> x; i < p.agents; ++i) partial(i, x), q_grad[i] += total<F>(x);
      });
}

template <class T, class F>
EMIX_HD void weight_gradients(const Monotonic& p, const MonotonicGradients& g, int64_t row, const F* h_grad) {
  const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row);
  T* __restrict w1_grad = output_row<T>(g.w1, row, p.agents * p.embed);
  T* __restrict b1_grad = output_row<T>(g.b1, row, p.embed);
  for (int64_t e = 0; e < p.embed; ++e) b1_grad[e] = static_cast<T>(h_grad[e]);
  for (int64_t i = 0; i < p.agents; ++i)
    for (int64_t e = 0; e < p.embed; ++e)
      w1_grad[i * p.embed + e] =
          static_cast<T>(with_sign(static_cast<F>(w1[i * p.embed + e]), static_cast<F>(q[i]) * h_grad[e]));
}

// From h to h_grad, in place, and on the way w2's gradient. `value` [embed] is overwritten.
template <class T, class F>
EMIX_HD void hidden_gradients(const Monotonic& p, const MonotonicGradients& g, int64_t row, F* __restrict h,
                              F* __restrict value) {
  const T* w2 = p.w2.row<T>(row);
  const F grad = grad_at<F>(g.grad, row);
  for (int64_t e = 0; e < p.embed; ++e) {
    const Elu<F> unit = elu(h[e]);
    value[e] = grad * unit.value;
    h[e] = grad * std::fabs(static_cast<F>(w2[e])) * unit.slope;
  }
  if (T* __restrict w2_grad = output_row<T>(g.w2, row, p.embed))
    for (int64_t e = 0; e < p.embed; ++e) w2_grad[e] = static_cast<T>(with_sign(static_cast<F>(w2[e]), value[e]));
}

// The same where there are several values.
template <class T, class F>
EMIX_HD void hidden_gradients_of_many(const Monotonic& p, const MonotonicGradients& g, int64_t row, F* __restrict h,
                                      F* __restrict value, F* __restrict sum) {
  const T* w2 = p.w2.row<T>(row);
  const F* grad = g.grad.row<F>(row);
  T* w2_grad = output_row<T>(g.w2, row, p.embed * p.outputs);
  for (int64_t e = 0; e < p.embed; ++e) {
    const Elu<F> unit = elu(h[e]);
    value[e] = unit.value, h[e] = unit.slope, sum[e] = 0;
  }
  with_lanes(
      p.outputs, [&](auto lanes) __attribute__((always_inline)) {
        typedef Columns<T, F, decltype(lanes)::value> Part;
        for (int64_t k = 0; k < p.outputs; k += lanes) Part(w2, p.embed, p.outputs, k).sums(grad + k, sum);
        if (!w2_grad) return;
        for (int64_t k = (p.outputs - 1) / lanes * lanes; k >= 0; k -= lanes)
          Part(w2, p.embed, p.outputs, k).gradients(grad + k, value, w2_grad + k);
      });
  for (int64_t e = 0; e < p.embed; ++e) h[e] *= sum[e];
}

template <class T, class F>
EMIX_HD void monotonic_backward_rows(const Monotonic& p, const MonotonicGradients& g, int64_t begin, int64_t end) {
  std::vector<F> buffer((kBatch + 2) * p.embed);  // the rows' hidden units, and two rows more to work with
  for (int64_t first = begin; first < end; first += kBatch) {
    const int64_t rows = std::min(kBatch, end - first);
    F* h = buffer.data();
    for (int64_t r = 0; r < rows; ++r) hidden_units<T>(p, first + r, h + r * p.embed);
    for (int64_t r = 0; r < rows; ++r)
      p.outputs == 1 ? hidden_gradients<T>(p, g, first + r, h + r * p.embed, h + kBatch * p.embed)
                     : hidden_gradients_of_many<T>(p, g, first + r, h + r * p.embed, h + kBatch * p.embed,
                                                   h + (kBatch + 1) * p.embed);
    for (int64_t r = 0; r < rows; ++r)
      agent_gradients<T>(p, first + r, h + r * p.embed, output_row<F>(g.q, first + r, p.agents));
    for (int64_t r = 0; r < rows && g.b1; ++r) weight_gradients<T>(p, g, first + r, h + r * p.embed);
  }
}

}  // namespace emix::mixing
