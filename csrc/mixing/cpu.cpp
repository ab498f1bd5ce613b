// mixing on the CPU: row by row, vectorised within a row; linear four rows at a time.
#include <algorithm>

#include "instruction_sets.h"
#include "lanes.h"
#include "mixing/monotonic.h"
#include "mixing/ops.h"

namespace emix::mixing {
namespace {

inline constexpr int64_t kGrain = 32768;  // elements that are worth waking a thread

// Four rows of a linear mixer, a row a lane; past the end the last row again.
template <class T, class F>
struct LinearRows {
  const T *q[4], *weight[4];
  F sum[4], total[4];  // sum_i weight_i q_i, and the divisor of the weights

  EMIX_HD LinearRows(const Linear& p, int64_t first, int64_t end) {
    for (int r = 0; r < 4; ++r) {
      const int64_t row = std::min(first + r, end - 1);
      q[r] = p.q.row<T>(row), weight[r] = p.weight.row<T>(row);
    }
    typename Four<F>::type sums = {}, totals = {}, x[4], u[4];
    int64_t i = 0;
    for (; i + 4 <= p.agents; i += 4) {
      for (int r = 0; r < 4; ++r) load_four<F>(q[r] + i, x[r]), load_four<F>(weight[r] + i, u[r]);
      transpose<F>(x), transpose<F>(u);
      for (int j = 0; j < 4; ++j) sums += u[j] * x[j], totals += u[j];
    }
    store_four<F, F>(sum, sums), store_four<F, F>(total, totals);
    for (; i < p.agents; ++i)
      for (int r = 0; r < 4; ++r) {
        sum[r] += static_cast<F>(weight[r][i]) * static_cast<F>(q[r][i]);
        total[r] += static_cast<F>(weight[r][i]);
      }
    for (int r = 0; r < 4; ++r) total[r] = divisor(total[r]);
  }
};

template <class T, class F>
EMIX_HD void linear_rows(const Linear& p, F* out, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += 4) {
    const LinearRows<T, F> at(p, first, end);
    for (int64_t row = first; row < std::min(first + 4, end); ++row)
      out[row] = at.sum[row - first] / at.total[row - first] + bias_at<T, F>(p.bias, row);
  }
}

template <class T, class F>
EMIX_HD void linear_backward_rows(const Linear& p, const LinearGradients& g, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += 4) {
    const LinearRows<T, F> at(p, first, end);
    for (int r = 0; r < std::min<int64_t>(4, end - first); ++r) {
      F* __restrict q_grad = output_row<F>(g.q, first + r, p.agents);
      F* __restrict weight_grad = output_row<F>(g.weight, first + r, p.agents);
      const F scale = grad_at<F>(g.grad, first + r) / at.total[r], mean = at.sum[r] / at.total[r];
      for (int64_t i = 0; i < p.agents; ++i) {
        q_grad[i] = scale * static_cast<F>(at.weight[r][i]);
        weight_grad[i] = scale * (static_cast<F>(at.q[r][i]) - mean);
      }
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
        uncertainty_row(p.uncertainty.given() ? p.uncertainty.row<T>(row) : nullptr) {}

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
int64_t row_elements(const Monotonic& p) { return (p.agents + p.outputs) * p.embed; }

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
