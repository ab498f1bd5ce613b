// What the N members of an ensemble say of one value, and what an actor makes of it (Ensemble-MIX 5.1 and 5.2):
//
//   mean = sum x_j / N,  d_j = x_j - mean,  variance = sum d_j^2 / N
//   kurtosis = sum z_j^4 / N,  z_j = d_j / sqrt(variance)
//   weight = 0.5 + sigmoid(-scale kurtosis)
//   logit' = logit + bonus kurtosis     where the mean of kurtosis - 3 over the available actions is above 0: the gate
//
// Deviations are taken from the first member before the mean is known, which keeps them exact where members are close.
// What could be fused into a product and sum stands as one, so that CPU and GPU explore alike.
#pragma once
#include <cmath>
#include <type_traits>

#include "device.h"
#include "elementary.h"
#include "sampling/sampling.h"
#include "view.h"

namespace emix::ensemble {

using policy::multiply_add;
using sampling::kMaxActions;

inline constexpr int kMaxMembers = 64;
inline constexpr double kNormal = 3;  // kurtosis of the normal distribution; where members agree there is none else

template <class F>
struct Moments {
  F mean, variance, kurtosis;
};

// dL/dx_j as a function of d_j, from the gradients that arrive at the three moments:
//   dmean/dx_j = 1/N,  dvariance/dx_j = 2 d_j / N
//   dkurtosis/dx_j = 4 (z_j^3 - skew - kurtosis z_j) / (N sqrt(variance)),  skew = sum z_j^3 / N
template <class F>
struct Slope {
  F offset, linear, cubic, inverse_deviation, kurtosis;

  EMIX_HD F operator()(F d) const {
    const F z = d * inverse_deviation;
    return offset + linear * d + cubic * (z * z - kurtosis) * z;
  }
};

// d_j, for sum_j (x_j - x_0)
template <class F>
EMIX_HD F deviation(F x, F first, F sum, F each) {
  return multiply_add(-each, sum, x - first);
}

// n members' values at one place, in registers. The capacity is known to the compiler so that every loop is unrolled:
// on the GPU all loads are in flight at once, on the CPU neighbouring places share a vector.
template <class F, int kCapacity>
struct Members {
  F x[kCapacity];   // the values, then the deviations d_j
  F sum = 0;        // of x_j - x_0
  F precision = 0;  // 1 / variance; 0, and so every z_j, where the members differ by no more than rounding does

  // load(j): member j's value, and past the last one the first's once more.
  template <class Load>
  EMIX_HD explicit Members(const Load& load) {
    EMIX_UNROLL
    for (int j = 0; j < kCapacity; ++j) x[j] = load(j);
  }

  EMIX_HD Moments<F> moments(int n) {
    const F first = x[0], each = F(1) / static_cast<F>(n);
    F second = 0, fourth = 0;
    sum = 0;
    EMIX_UNROLL
    for (int j = 1; j < kCapacity; ++j) sum += x[j] - first;
    EMIX_UNROLL
    for (int j = 0; j < kCapacity; ++j) {
      const F d = deviation(x[j], first, sum, each);
      x[j] = j < n ? d : F(0);
      second = multiply_add(x[j], x[j], second);
    }
    const F mean = multiply_add(each, sum, first), variance = second * each, inverse = F(1) / variance;
    precision = variance <= multiply_add(F(1e-10) * mean, mean, F(1e-12)) ? F(0) : inverse;
    EMIX_UNROLL
    for (int j = 0; j < kCapacity; ++j) {
      const F square = x[j] * x[j] * precision;
      fourth = multiply_add(square, square, fourth);
    }
    return {mean, variance, precision == 0 ? F(kNormal) : fourth * each};
  }

  // After moments().
  EMIX_HD Slope<F> slope(const Moments<F>& grad, int n, F kurtosis) const {
    const F each = F(1) / static_cast<F>(n), inverse_deviation = std::sqrt(precision);
    F skew = 0;
    EMIX_UNROLL
    for (int j = 0; j < kCapacity; ++j) {
      const F z = x[j] * inverse_deviation;
      skew += z * z * z;
    }
    const F cubic = 4 * grad.kurtosis * each * inverse_deviation;
    return {grad.mean * each - cubic * skew * each, 2 * grad.variance * each, cubic, inverse_deviation, kurtosis};
  }
};

// On the host: f(capacity) with the smallest of the capacities, in ascending order, that holds n members.
template <int kFirst, int... kRest, class Function>
inline __attribute__((always_inline)) void with_capacity(int n, const Function& f) {
  if constexpr (sizeof...(kRest) == 0)
    f(std::integral_constant<int, kFirst>());
  else if (n <= kFirst)
    f(std::integral_constant<int, kFirst>());
  else
    with_capacity<kRest...>(n, f);
}

template <class F>
EMIX_HD F weight(F kurtosis, F scale) {
  return F(0.5) + F(1) / (F(1) + exponential(scale * kurtosis));
}

// What an action adds to the sum that opens the gate when it is above 0.
template <class F>
EMIX_HD F excess(F kurtosis, bool available) {
  return available ? kurtosis - F(kNormal) : F(0);
}

template <class F>
EMIX_HD F explored(F logit, F kurtosis, F bonus, bool available, bool open) {
  const F more = multiply_add(bonus, kurtosis, logit);
  return (available & open) ? more : logit;
}

// The probability of an action of weight w; a row without any weight has but its draw, action 0.
EMIX_HD float probability(float w, float total) { return total > 0 ? w / total : 1.0f; }

// Of values [N, places].
EMIX_HD int members_of(const View<2>& values) { return static_cast<int>(values.size[0]); }

// The gradients that arrive at the moments [places]; not given where nobody asked for one.
struct Upstreams {
  View<1> mean, variance, kurtosis;

  template <class F>
  EMIX_HD Moments<F> at(int64_t i) const {
    return {of<F>(mean, i), of<F>(variance, i), of<F>(kurtosis, i)};
  }

 private:
  template <class F>
  static EMIX_HD F of(const View<1>& grad, int64_t i) {
    return grad.given() ? *grad.at<F>(i) : F(0);
  }
};

// Results, contiguous, in the wide type.
struct MomentsResults {
  void *mean = nullptr, *variance = nullptr, *kurtosis = nullptr;  // [places]
};

// Rows of actions.
struct Exploration {
  View<3> q;              // [N, rows, A]
  View<2> logits, avail;  // [rows, A]; avail not given: every action is available
  int64_t rows = 0;
  int members = 0, actions = 0;
  double bonus = 0;
  const int64_t* seed = nullptr;  // this and the floor for drawn actions alone
  policy::FloorSource floor;
};

// Actions drawn, [rows].
struct Drawn {
  int64_t* action;
  float* probability;
  bool* open;
};

}  // namespace emix::ensemble
