// The Bhattacharyya distance of each member's softmax to that of the members' mean, over the available actions
// (Ensemble-MIX 5.3). With s = sqrt(softmax(mean)), s_j = sqrt(softmax(q_j)), overlap = sum_a s s_j:
//
//   distance_j = -ln overlap = -log1p(-h),  h = sum_a (s - s_j)^2 / 2
//
// The form with h keeps its digits where the two agree and is never negative. Where they are so far apart that the
// products underflow, the logarithms of the sums serve:
//
//   distance_j = LSE(mean) / 2 + LSE(q_j) / 2 - LSE((mean + q_j) / 2)
//
// Gradient, with r_j = softmax((mean + q_j) / 2) = s s_j / overlap:
//   d distance_j / d q_j = (s_j^2 - r_j) / 2,  d distance_j / d mean = (s^2 - r_j) / 2
#pragma once
#include <cmath>

#include "device.h"
#include "policy/policy.h"
#include "view.h"

namespace emix::diversity {

using policy::kMaxActions;
using policy::origin;

inline constexpr int kMaxMembers = 64;

struct Problem {
  View<3> q;      // [N, rows, A]
  View<2> avail;  // [rows, A]; not given: every action is available
  View<1> grad;   // [rows], what arrives at the distances, for the backward pass alone
  int64_t rows = 0;
  int members = 0, actions = 0;
  bool detach_mean = true;
};

// Below this the overlap may have lost terms that underflowed.
template <class F>
inline constexpr F kFar = sizeof(F) == 8 ? F(1e-280) : F(1e-30);

// Proportional to sqrt(softmax(q)).
template <class F>
EMIX_HD F root_weight(F q, F largest) {
  return exponential(F(0.5) * (q - origin(largest)));
}

// What root weights are multiplied with to become roots of probabilities; `sum` of their squares. 0 in a row without
// available actions: all its results are 0.
template <class F>
EMIX_HD F root_scale(F sum) {
  const F scale = F(1) / std::sqrt(sum);
  return sum == 0 ? F(0) : scale;
}

// -log1p(-h) = 2 artanh(s), s = h / (2 - h), for h < 1/2.
template <class F>
EMIX_HD F near_distance(F h) {
  constexpr int kTerms = sizeof(F) == 8 ? 16 : 7;  // s < 1/3: what follows them is below half an ulp
  const F s = h / (2 - h), square = s * s;
  F sum = 0;
  EMIX_UNROLL
  for (int k = kTerms; k >= 0; --k) sum = sum * square + F(1) / static_cast<F>(2 * k + 1);
  return 2 * s * sum;
}

// h: half the sum of (s - s_j)^2.
template <class F>
EMIX_HD F distance(F h, F overlap) {
  const F near = near_distance(h), away = -logarithm(overlap);
  return h < F(0.5) ? near : away;
}

template <class F>
EMIX_HD F log_sum(F largest, F sum) {
  return largest + logarithm(sum);
}

// The gradient at s_j's logits, or with s for s_j at the mean's.
template <class F>
EMIX_HD F slope(F root, F middle) {
  return F(0.5) * (root * root - middle);
}

// Where nothing arrives (padding), nothing leaves, NaN included.
template <class F>
EMIX_HD F scaled(F grad, F slope) {
  return grad == 0 ? F(0) : grad * slope;
}

}  // namespace emix::diversity
