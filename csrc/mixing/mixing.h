// Mixers: from the agents' values to the value of their joint action.
//
//   linear     Q_tot = sum_i m_i Q_i + b,  m_i = u_i / (sum_j u_j + 1e-10)             u >= 0
//   expected   E_pi Q_tot = sum_i m_i sum_a pi_i(a) w_i(a) Q_i(a) + b                  exact, as Q_tot is linear
//   monotonic  Q_tot = sum_e ELU(h_e) |w2_e| + v,  h_e = sum_i Q_i |W1_ie| + b1_e      rises with every Q_i
//              or m of them, one for each column of w2 and element of v
#pragma once
#include "device.h"
#include "elementary.h"
#include "view.h"

namespace emix::mixing {

struct Linear {
  int64_t rows = 0, agents = 0;
  RowView q, weight, bias;
};

struct Expected {
  int64_t rows = 0, agents = 0, actions = 0;
  RowView q, pi, weight, bias, uncertainty;
};

struct Monotonic {
  int64_t rows = 0, agents = 0, embed = 0, outputs = 1;
  RowView q, w1, b1, w2, v;
};

// What a backward pass writes: contiguous, nullptr where not wanted. grad: dL/dQ_tot; not given: 1.
struct LinearGradients {
  RowView grad;
  void *q = nullptr, *weight = nullptr;
};

struct ExpectedGradients {
  RowView grad;
  void *q = nullptr, *pi = nullptr, *weight = nullptr, *uncertainty = nullptr;
};

struct MonotonicGradients {
  RowView grad;
  void *q = nullptr, *w1 = nullptr, *b1 = nullptr, *w2 = nullptr;
};

// What the sum of the weights is divided by: steps without any weight (padding) give 0, not NaN.
template <class F>
EMIX_HD F divisor(F weight_sum) {
  return weight_sum + F(1e-10);
}

// sum_a of these is an agent's expected value. An action that is never taken drops out, whatever its value is.
template <class F>
EMIX_HD F expectation_term(F pi, F value) {
  return pi != 0 ? pi * value : F(0);
}

// d expectation_term / d pi: the value, but for an infinite or NaN one that has dropped out.
template <class F>
EMIX_HD F expectation_slope(F pi, F value) {
  return pi != 0 || value - value == 0 ? value : F(0);
}

// d|x| / dx times y; 0 at 0, as torch has it.
template <class F>
EMIX_HD F with_sign(F x, F y) {
  return x != 0 ? std::copysign(F(1), x) * y : F(0);
}

// ELU and its derivative, e^min(h, 0).
template <class F>
struct Elu {
  F value, slope;
};

template <class F>
EMIX_HD Elu<F> elu(F h) {
  const F slope = exponential(h > 0 ? F(0) : h);
  return {h > 0 ? h : slope - 1, slope};
}

}  // namespace emix::mixing
