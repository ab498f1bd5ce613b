// Policies of D numbers: independent normal distributions of mean mu and standard deviation s = exp(log_std).
//
//   log p(a) = sum_d -1/2 ((a - mu) / s)^2 - log_std - 1/2 log 2 pi          entropy = sum_d log_std + 1/2 + 1/2 log 2
//   pi
//
// Reparameterised, u = mu + s e with e from the standard normal distribution, and squashed, a = tanh u, where
//
//   log p(a) = log p(u) - sum_d log(1 - tanh^2 u),   log(1 - tanh^2 u) = 2 (log 2 - |u| - log(1 + exp(-2 |u|)))
//
// which neither overflows nor cancels, however large u is. With du = a' G_a + 2 a G_p for the gradients G_a and G_p of
// a and log p(a): dmu = du and dlog_std = s e du - G_p; unsquashed du = G_a.
//
// Normal numbers are made of Philox's words in pairs (Box and Muller 1958), by operations that are exactly rounded: the
// same bits on CPU and GPU, and for inputs of any type.
#pragma once
#include <cmath>
#include <cstdint>

#include "device.h"
#include "elementary.h"
#include "philox.h"
#include "view.h"

namespace emix::gaussian {

inline constexpr double kHalfLogTwoPi = 0.91893853320467274, kLogTwo = 0.69314718055994531;
inline constexpr int kWords = 4;  // normal numbers from one call of Philox

// One call; what an op does not read is absent.
struct Problem {
  int64_t rows = 0, numbers = 0;  // D
  bool squash = false;
  View<2> mean, log_std, action;  // [rows, D], a row's numbers side by side
  const int64_t* seed = nullptr;
  const void *action_grad = nullptr, *log_prob_grad = nullptr, *entropy_grad = nullptr;  // contiguous
};

// Contiguous.
struct Results {
  void *action = nullptr, *log_prob = nullptr, *entropy = nullptr;  // [rows, D], [rows], [rows]
  void *mean_grad = nullptr, *log_std_grad = nullptr;               // [rows, D]
};

// Two numbers from two words; the largest that can come is 6.7. A quarter turn more or less leaves the pair's
// distribution alone, so the angle needs no more than sine and cosine on [-pi / 4, pi / 4].
EMIX_HD void normal_pair(uint32_t a, uint32_t b, float& x, float& y) {
  const float u = fmaf(static_cast<float>(static_cast<int32_t>(a >> 1)), 0x1p-31f, 0x1p-32f);  // in (0, 1]
  const float radius = sqrtf(-2 * logarithm(u));
  const float turn = fmaf(static_cast<float>(static_cast<int32_t>(b & 0x3fffffffu)), 0x1p-30f, -0.5f);
  const float angle = turn * 1.57079637f, square = angle * angle;
  float sine = -1.9515295891e-4f;  // polynomials: Cephes, sinf and cosf
  sine = fmaf(sine, square, 8.3321608736e-3f);
  sine = fmaf(sine, square, -1.6666654611e-1f);
  sine = fmaf(sine * square, angle, angle);
  float cosine = 2.443315711809948e-5f;
  cosine = fmaf(cosine, square, -1.388731625493765e-3f);
  cosine = fmaf(cosine, square, 4.166664568298827e-2f);
  cosine = fmaf(cosine * square, square, fmaf(-0.5f, square, 1.0f));
  const bool turned = b >> 30 & 1u, upside_down = b >> 31;
  const float along = turned ? -sine : cosine, across = turned ? cosine : sine;
  x = radius * (upside_down ? -along : along);
  y = radius * (upside_down ? -across : across);
}

// Numbers 4 block .. of a row.
EMIX_HD void normal_numbers(int64_t seed, int64_t row, int block, float (&x)[kWords]) {
  const Philox random = philox(seed, static_cast<uint32_t>(block), row);
  normal_pair(random.word[0], random.word[1], x[0], x[1]);
  normal_pair(random.word[2], random.word[3], x[2], x[3]);
}

EMIX_HD double absolute(double x) { return x < 0 ? -x : x; }
EMIX_HD float absolute(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

// tanh u, its derivative, and its logarithm.
template <class F>
struct Squashed {
  F action, slope, log_slope;

  EMIX_HD explicit Squashed(F u) {
    const F size = absolute(u), e = exponential(-2 * size), inverse = 1 / (1 + e);
    const F far = u < 0 ? (e - 1) * inverse : (1 - e) * inverse;
    action = size < F(0.625) ? near(u) : far;
    slope = 4 * e * inverse * inverse;
    log_slope = 2 * (F(kLogTwo) - size - logarithm(1 + e));
  }

 private:
  static EMIX_HD float near(float x) {  // Cephes, tanhf
    const float z = x * x;
    float p = -5.70498872745e-3f;
    p = fmaf(p, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    return fmaf(p * z, x, x);
  }
  static EMIX_HD double near(double x) { return ::tanh(x); }
};

// What one number adds to log p(a) and what it is, for a given e.
template <class F>
struct Sample {
  F action, log_prob;

  EMIX_HD Sample(F mean, F log_std, F e, bool squash) {
    const F u = mean + exponential(log_std) * e;
    const Squashed<F> squashed(u);
    action = squash ? squashed.action : u;
    log_prob = F(-0.5) * e * e - log_std - F(kHalfLogTwoPi) - (squash ? squashed.log_slope : F(0));
  }
};

template <class F>
struct SampleGradient {
  F mean, log_std;

  EMIX_HD SampleGradient(F of_mean, F of_log_std, F e, bool squash, F action_grad, F log_prob_grad) {
    const F step = exponential(of_log_std) * e;
    const Squashed<F> squashed(of_mean + step);
    mean = squash ? squashed.slope * action_grad + 2 * squashed.action * log_prob_grad : action_grad;
    log_std = step * mean - log_prob_grad;
  }
};

template <class F>
struct Terms {
  F log_prob, entropy;

  EMIX_HD Terms(F mean, F log_std, F action) {
    const F z = (action - mean) * exponential(-log_std);
    log_prob = F(-0.5) * z * z - log_std - F(kHalfLogTwoPi);
    entropy = log_std + F(0.5 + kHalfLogTwoPi);
  }
};

template <class F>
struct TermsGradient {
  F mean, log_std;

  EMIX_HD TermsGradient(F of_mean, F of_log_std, F action, F log_prob_grad, F entropy_grad) {
    const F inverse = exponential(-of_log_std), z = (action - of_mean) * inverse;
    mean = log_prob_grad * z * inverse;
    log_std = log_prob_grad * (z * z - 1) + entropy_grad;
  }
};

}  // namespace emix::gaussian
