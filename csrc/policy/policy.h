// The policy of a row of logits z, in unnormalised form, with everything divided by exp(max z):
//
//   floor = 0:  w_a = exp(z_a - max z) on available actions, 0 elsewhere; the softmax is over these alone
//   floor > 0:  w_a = available_a ((1 - floor) exp(z_a - max z) + floor / A sum_b exp(z_b - max z)), over all actions b
//   W = sum_a w_a,  pi_a = w_a / W,  log pi_a = log w_a - log W
//
// Both are one: p = softmax(z) over the actions that count, pi = the masked and renormalised (1 - floor) p + floor / A.
//
// Gradient: with h_a = pi_a dL/dpi_a and G = sum h, what arrives at the weights' exponentials is
//   d_a = r_a (h_a - pi_a G),  r_a = (1 - floor) exp(z_a - max z) / w_a,   dL/dz_a = d_a - p_a sum_b d_b
// Nothing is divided by a probability, so that none is too small.
#pragma once
#include <cmath>

#include "device.h"
#include "elementary.h"
#include "view.h"

namespace emix::policy {

inline constexpr int kMaxActions = 128;

// log pi of an action that cannot be taken: log 1e-10, finite, so that a loss may multiply it by a mask's 0.
inline constexpr double kImpossible = -23.025850929940457;

template <class F>
struct Floor {
  F keep = 1;   // 1 - floor
  F share = 0;  // floor / A
};

EMIX_HD Floor<double> floor_of(double floor, int actions) { return {1 - floor, floor / actions}; }

// A number, or one on the device, which is read when the op runs: a CUDA graph's replay sees what it is by then.
struct FloorSource {
  Floor<double> number;
  const double* place = nullptr;

  // Where a kernel reads more than this, it loads first and converts when all of it is under way.
  EMIX_HD double load() const { return place ? *place : 0; }
  template <class F>
  EMIX_HD Floor<F> convert(double loaded, int actions) const {
    const Floor<double> floor = place ? floor_of(loaded, actions) : number;
    return {static_cast<F>(floor.keep), static_cast<F>(floor.share)};
  }

  template <class F>
  EMIX_HD Floor<F> read(int actions) const {
    return convert<F>(load(), actions);
  }
};

// Inputs; those that only one of the ops has, or only its backward pass, are absent in the others.
struct Problem {
  View<2> logits, avail, value, policy_grad;                // [rows, A]
  View<1> action, log_prob_grad, entropy_grad, value_grad;  // [rows]
  int64_t rows = 0;
  int actions = 0;
  FloorSource floor;
};

// Results and gradients, contiguous; null where not wanted. The results in the wide type, the gradients in the inputs'.
struct Terms {
  void *log_prob = nullptr, *entropy = nullptr, *expected_value = nullptr;  // [rows]
};

struct TermsGradients {
  void *logits = nullptr, *value = nullptr;  // [rows, A]
};

EMIX_HD int64_t action_at(const Problem& p, int64_t row) {
  return integer_at(p.action.data, p.action.itemsize, row * p.action.stride[0]);
}

// Without a floor, unavailable actions do not count, whatever mass they would hold.
template <class F>
EMIX_HD F counted(F logit, bool available, const Floor<F>& floor) {
  return (available | (floor.share > 0)) ? logit : F(-INFINITY);
}

// What logits are measured from. No action counts: anything finite, their exponentials are 0.
template <class F>
EMIX_HD F origin(F largest) {
  return largest > F(-INFINITY) ? largest : F(0);
}

EMIX_HD float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
EMIX_HD double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// `e` = exp(z_a - max z), `sum` of these
template <class F>
EMIX_HD F weight(F e, F sum, bool available, const Floor<F>& floor) {
  const F w = multiply_add(floor.keep, e, floor.share * sum);
  return available ? w : F(0);
}

// 1 / W, and 0 for a row without any weight: all its results are 0. A NaN stays one.
template <class F>
EMIX_HD F inverse(F total) {
  return total == 0 ? F(0) : 1 / total;
}

// log w_a of an action with positive weight; `relative` = z_a - max z.
template <class F>
EMIX_HD F log_weight(F relative, F w, const Floor<F>& floor) {
  return floor.share > 0 ? logarithm(w) : relative;
}

// -log pi_a, never negative
template <class F>
EMIX_HD F surprise(F relative, F w, F log_total, const Floor<F>& floor) {
  const F x = log_total - log_weight(relative, w, floor);
  return x < 0 ? F(0) : x;
}

// Whether the policy can take an action, even one whose probability has underflowed.
template <class F>
EMIX_HD bool possible(F relative, bool available, const Floor<F>& floor) {
  return available & ((floor.share > 0) | !(relative == F(-INFINITY)));
}

// log pi of the action taken.
template <class F>
EMIX_HD F log_probability(bool possible, F surprise, F scale) {
  const F x = possible ? 0 - surprise : F(kImpossible);
  return scale == 0 ? F(0) : x;
}

// pi_a x, where an action of probability 0 counts for nothing, whatever x is.
template <class F>
EMIX_HD F expected(F pi, F x) {
  return pi == 0 ? F(0) : pi * x;
}

// r_a: how much of w_a moves with its own exponential.
template <class F>
EMIX_HD F own_share(F e, F w, const Floor<F>& floor) {
  const F share = floor.keep * e / (w > 0 ? w : F(1));
  return floor.share > 0 ? share : F(1);
}

}  // namespace emix::policy
