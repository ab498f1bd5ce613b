// mixing on the CPU: row by row, vectorised within a row; a row's intermediate values stay in registers.
#include <algorithm>

#include "instruction_sets.h"
#include "mixing/ops.h"

namespace emix::mixing {
namespace {

inline constexpr int kUnits = 32;  // hidden units at a time; fewer, and GCC unrolls the loops and keeps them scalar
inline constexpr int64_t kGrain = 32768;  // elements that are worth waking a thread

// The sum of 2 kHalf lanes, which it overwrites.
template <int kHalf, class F>
EMIX_HD F fold(F* lane) {
#pragma GCC unroll 1
  for (int k = 0; k < kHalf; ++k) lane[k] += lane[k + kHalf];
  if constexpr (kHalf > 1) return fold<kHalf / 2>(lane);
  return lane[0];
}

template <class T, class F>
EMIX_HD F bias_at(const RowView& bias, int64_t row) {
  return bias.data ? static_cast<F>(*bias.row<T>(row)) : F(0);
}

template <class F>
EMIX_HD F grad_at(const RowView& grad, int64_t row) {
  return grad.data ? *grad.row<F>(row) : F(1);
}

// Row `row` of a contiguous output; nullptr where it is not wanted.
template <class T>
EMIX_HD T* output_row(void* data, int64_t row, int64_t elements) {
  return data ? static_cast<T*>(data) + row * elements : nullptr;
}

template <class T, class F>
EMIX_HD void linear_rows(const Linear& p, F* out, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T *q = p.q.row<T>(row), *weight = p.weight.row<T>(row);
    F sum = 0, weight_sum = 0;
    for (int64_t i = 0; i < p.agents; ++i) {
      const F u = static_cast<F>(weight[i]);
      sum += u * static_cast<F>(q[i]);
      weight_sum += u;
    }
    out[row] = sum / divisor(weight_sum) + bias_at<T, F>(p.bias, row);
  }
}

template <class T, class F>
EMIX_HD void linear_backward_rows(const Linear& p, const LinearGradients& g, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T *q = p.q.row<T>(row), *weight = p.weight.row<T>(row);
    F* __restrict q_grad = output_row<F>(g.q, row, p.agents);
    F* __restrict weight_grad = output_row<F>(g.weight, row, p.agents);
    F sum = 0, weight_sum = 0;
    for (int64_t i = 0; i < p.agents; ++i) {
      const F u = static_cast<F>(weight[i]);
      sum += u * static_cast<F>(q[i]);
      weight_sum += u;
    }
    const F each = F(1) / divisor(weight_sum), scale = grad_at<F>(g.grad, row) * each, mean = sum * each;
    for (int64_t i = 0; i < p.agents; ++i) {
      q_grad[i] = scale * static_cast<F>(weight[i]);
      weight_grad[i] = scale * (static_cast<F>(q[i]) - mean);
    }
  }
}

template <class T, class F>
EMIX_HD F weight_sum_of(const T* weight, int64_t agents) {
  F sum = 0;
  for (int64_t i = 0; i < agents; ++i) sum += static_cast<F>(weight[i]);
  return sum;
}

// One row: all agents' actions side by side.
template <class T, class F>
struct Actions {
  const T *pi_row, *q_row, *uncertainty_row;

  EMIX_HD Actions(const Expected& p, int64_t row)
      : pi_row(p.pi.row<T>(row)),
        q_row(p.q.row<T>(row)),
        uncertainty_row(p.uncertainty.data ? p.uncertainty.row<T>(row) : nullptr) {}

  EMIX_HD F pi(int64_t k) const { return static_cast<F>(pi_row[k]); }
  EMIX_HD F q(int64_t k) const { return static_cast<F>(q_row[k]); }
  EMIX_HD F uncertainty(int64_t k) const { return uncertainty_row ? static_cast<F>(uncertainty_row[k]) : F(1); }
};

// Each agent's expectation, from the terms of its actions.
template <class F>
EMIX_HD F expectation_of(const F* term, int64_t actions) {
  F sum = 0;
  for (int64_t a = 0; a < actions; ++a) sum += term[a];
  return sum;
}

template <class T, class F>
EMIX_HD void expected_rows(const Expected& p, F* out, int64_t begin, int64_t end) {
  std::vector<F> term(p.agents * p.actions);
  const int64_t elements = p.agents * p.actions;
  for (int64_t row = begin; row < end; ++row) {
    const Actions<T, F> at(p, row);
    for (int64_t k = 0; k < elements; ++k) term[k] = expectation_term(at.pi(k), at.uncertainty(k) * at.q(k));
    const T* weight = p.weight.row<T>(row);
    F sum = 0;
    for (int64_t i = 0; i < p.agents; ++i)
      sum += static_cast<F>(weight[i]) * expectation_of(term.data() + i * p.actions, p.actions);
    out[row] = sum / divisor(weight_sum_of<T, F>(weight, p.agents)) + bias_at<T, F>(p.bias, row);
  }
}

// dL/dm_i from each agent's expectation, through the division by the weights' sum.
template <class T, class F>
EMIX_HD void weight_gradient(const Expected& p, const T* weight, const F* term, F scale, F total, F* weight_grad) {
  F sum = 0;
  for (int64_t i = 0; i < p.agents; ++i) {
    weight_grad[i] = expectation_of(term + i * p.actions, p.actions);
    sum += static_cast<F>(weight[i]) * weight_grad[i];
  }
  for (int64_t i = 0; i < p.agents; ++i) weight_grad[i] = scale * (weight_grad[i] - sum / total);
}

template <class T, class F>
EMIX_HD void expected_backward_rows(const Expected& p, const ExpectedGradients& g, int64_t begin, int64_t end) {
  const int64_t elements = p.agents * p.actions;
  std::vector<F> buffer(2 * elements);
  F *term = buffer.data(), *m = term + elements;  // m: dL/dE_pi q_i, for each action of agent i
  for (int64_t row = begin; row < end; ++row) {
    const Actions<T, F> at(p, row);
    const T* weight = p.weight.row<T>(row);
    const F total = divisor(weight_sum_of<T, F>(weight, p.agents)), scale = grad_at<F>(g.grad, row) / total;
    for (int64_t i = 0; i < p.agents; ++i)
      std::fill(m + i * p.actions, m + (i + 1) * p.actions, scale * static_cast<F>(weight[i]));
    if (T* __restrict grad = output_row<T>(g.q, row, elements))
      for (int64_t k = 0; k < elements; ++k)
        grad[k] = static_cast<T>(m[k] * expectation_term(at.pi(k), at.uncertainty(k)));
    if (T* __restrict grad = output_row<T>(g.uncertainty, row, elements))
      for (int64_t k = 0; k < elements; ++k) grad[k] = static_cast<T>(m[k] * expectation_term(at.pi(k), at.q(k)));
    if (T* __restrict grad = output_row<T>(g.pi, row, elements))
      for (int64_t k = 0; k < elements; ++k)
        grad[k] = static_cast<T>(m[k] * expectation_slope(at.pi(k), at.uncertainty(k) * at.q(k)));
    if (F* grad = output_row<F>(g.weight, row, p.agents)) {
      for (int64_t k = 0; k < elements; ++k) term[k] = expectation_term(at.pi(k), at.uncertainty(k) * at.q(k));
      weight_gradient(p, weight, term, scale, total, grad);
    }
  }
}

// Hidden units first .. first + count - 1 of a row: h = b1 + sum_i q_i |w1_i|.
template <class T, class F, class Count>
EMIX_HD void hidden_units(const Monotonic& p, int64_t row, int64_t first, Count count, F* h) {
  const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row) + first, *b1 = p.b1.row<T>(row) + first;
  for (int k = 0; k < count; ++k) h[k] = static_cast<F>(b1[k]);
  for (int64_t i = 0; i < p.agents; ++i)
    for (int k = 0; k < count; ++k) h[k] += static_cast<F>(q[i]) * std::fabs(static_cast<F>(w1[i * p.embed + k]));
}

template <class T, class F, class Count>
EMIX_HD F monotonic_chunk(const Monotonic& p, int64_t row, int64_t first, Count count) {
  F h[kUnits], mixed[kUnits] = {};
  hidden_units<T>(p, row, first, count, h);
  const T* w2 = p.w2.row<T>(row) + first;
  for (int k = 0; k < count; ++k) mixed[k] = elu(h[k]).value * std::fabs(static_cast<F>(w2[k]));
  return fold<kUnits / 2>(mixed);
}

template <class T, class F, class Count>
EMIX_HD void monotonic_backward_chunk(const Monotonic& p, const MonotonicGradients& g, int64_t row, int64_t first,
                                      Count count) {
  F h[kUnits], h_grad[kUnits];
  hidden_units<T>(p, row, first, count, h);
  const T *q = p.q.row<T>(row), *w1 = p.w1.row<T>(row) + first, *w2 = p.w2.row<T>(row) + first;
  const F grad = grad_at<F>(g.grad, row);
  F* q_grad = output_row<F>(g.q, row, p.agents);
  for (int k = 0; k < count; ++k) {
    const Elu<F> unit = elu(h[k]);
    h_grad[k] = grad * std::fabs(static_cast<F>(w2[k])) * unit.slope;
    h[k] = with_sign(static_cast<F>(w2[k]), grad * unit.value);
  }
  for (int64_t i = 0; i < p.agents; ++i) {
    F term[kUnits] = {};
    for (int k = 0; k < count; ++k) term[k] = h_grad[k] * std::fabs(static_cast<F>(w1[i * p.embed + k]));
    q_grad[i] += fold<kUnits / 2>(term);
  }
  if (!g.w1) return;
  T* __restrict w1_grad = output_row<T>(g.w1, row, p.agents * p.embed) + first;
  T *b1_grad = output_row<T>(g.b1, row, p.embed) + first, *w2_grad = output_row<T>(g.w2, row, p.embed) + first;
  for (int k = 0; k < count; ++k) b1_grad[k] = static_cast<T>(h_grad[k]);
  for (int k = 0; k < count; ++k) w2_grad[k] = static_cast<T>(h[k]);
  for (int64_t i = 0; i < p.agents; ++i)
    for (int k = 0; k < count; ++k)
      w1_grad[i * p.embed + k] =
          static_cast<T>(with_sign(static_cast<F>(w1[i * p.embed + k]), static_cast<F>(q[i]) * h_grad[k]));
}

// f(first, count) over a row's hidden units; a whole chunk's count is a constant.
template <class Chunk>
EMIX_HD void for_each_chunk(int64_t embed, const Chunk& f) {
  int64_t first = 0;
  for (; first + kUnits <= embed; first += kUnits) f(first, std::integral_constant<int, kUnits>());
  if (first < embed) f(first, static_cast<int>(embed - first));
}

template <class T, class F>
EMIX_HD void monotonic_rows(const Monotonic& p, F* out, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    F sum = 0;
    for_each_chunk(
        p.embed, [&](int64_t first, auto count)
                     __attribute__((always_inline)) { sum += monotonic_chunk<T, F>(p, row, first, count); });
    out[row] = sum + bias_at<T, F>(p.v, row);
  }
}

template <class T, class F>
EMIX_HD void monotonic_backward_rows(const Monotonic& p, const MonotonicGradients& g, int64_t begin, int64_t end) {
  F* q_grad = static_cast<F*>(g.q);
  std::fill(q_grad + begin * p.agents, q_grad + end * p.agents, F(0));
  for (int64_t row = begin; row < end; ++row)
    for_each_chunk(
        p.embed, [&](int64_t first, auto count)
                     __attribute__((always_inline)) { monotonic_backward_chunk<T, F>(p, g, row, first, count); });
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type.
#define EMIX_MIXING_CLONES(SETS, T)                                                                    \
  SETS void forward(T, const Linear& p, Wide<T>* out, int64_t begin, int64_t end) {                    \
    linear_rows<T>(p, out, begin, end);                                                                \
  }                                                                                                    \
  SETS void forward(T, const Expected& p, Wide<T>* out, int64_t begin, int64_t end) {                  \
    expected_rows<T>(p, out, begin, end);                                                              \
  }                                                                                                    \
  SETS void forward(T, const Monotonic& p, Wide<T>* out, int64_t begin, int64_t end) {                 \
    monotonic_rows<T>(p, out, begin, end);                                                             \
  }                                                                                                    \
  SETS void backward(T, const Linear& p, const LinearGradients& g, int64_t begin, int64_t end) {       \
    linear_backward_rows<T, Wide<T>>(p, g, begin, end);                                                \
  }                                                                                                    \
  SETS void backward(T, const Expected& p, const ExpectedGradients& g, int64_t begin, int64_t end) {   \
    expected_backward_rows<T, Wide<T>>(p, g, begin, end);                                              \
  }                                                                                                    \
  SETS void backward(T, const Monotonic& p, const MonotonicGradients& g, int64_t begin, int64_t end) { \
    monotonic_backward_rows<T, Wide<T>>(p, g, begin, end);                                             \
  }
EMIX_MIXING_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_MIXING_CLONES(EMIX_BASELINE, double)
EMIX_MIXING_CLONES(EMIX_BASELINE, Half)
EMIX_MIXING_CLONES(EMIX_BASELINE, BFloat16)

int64_t row_elements(const Linear& p) { return 2 * p.agents; }
int64_t row_elements(const Expected& p) { return 2 * p.agents * p.actions; }
int64_t row_elements(const Monotonic& p) { return p.agents * p.embed; }

template <class Problem>
int64_t grain(const Problem& problem) {
  return kGrain / (row_elements(problem) + 1) + 1;
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T, class Problem>
  void run_forward(const Problem& problem, Wide<T>* out) const {
    run_rows(problem.rows, grain(problem), [&](int64_t begin, int64_t end) { forward(T(), problem, out, begin, end); });
  }

  template <class T, class Problem, class Gradients>
  void run_backward(const Problem& problem, const Gradients& gradients) const {
    run_rows(problem.rows, grain(problem),
             [&](int64_t begin, int64_t end) { backward(T(), problem, gradients, begin, end); });
  }
};

}  // namespace
}  // namespace emix::mixing

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::mixing::register_ops<emix::mixing::Cpu>(m); }
