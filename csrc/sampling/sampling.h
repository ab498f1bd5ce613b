// Actions drawn from the softmax of logits, by inversion of the cumulative distribution:
//
//   floor = 0:  w_a = exp(z_a - max z) on available actions, 0 elsewhere
//   floor > 0:  w_a = available_a ((1 - floor) exp(z_a - max z) + floor / A sum_b exp(z_b - max z)), over all actions b
//   action = the first a with u < sum_{b <= a} w_b / sum_b w_b,  u from Philox at (seed, row, draw)
//
// u and the cumulative distribution are compared as integers of 31 bits. All float operations are exactly rounded and
// sums run in the order of the actions, so CPU and GPU draw the same. What fused products there are stand as fmaf: no
// compiler can find another.
#pragma once
#include "device.h"
#include "elementary.h"
#include "philox.h"
#include "policy/policy.h"
#include "view.h"

namespace emix::sampling {

using policy::counted;
using policy::Floor;
using policy::kMaxActions;
using policy::weight;

inline constexpr int kWords = 4;  // draws from one call of Philox

struct Problem {
  View<2> logits, avail;  // [rows, A]; avail not given: every action is available
  const int64_t* seed = nullptr;
  policy::FloorSource floor;
  int64_t rows = 0, draws = 1;
  int actions = 0;
};

// exp(logit - largest). An infinite largest logit has all the weight; a NaN, like -inf, has none.
EMIX_HD float relative_exponential(float logit, float largest) {
  const float e = exponential(logit < largest ? logit - largest : 0.0f);
  return logit <= largest && logit > -INFINITY ? e : 0.0f;
}

// A draw goes past an action whose threshold it exceeds. From the last action of positive weight on no draw exceeds it,
// and the thresholds of an action without weight and of its predecessor are equal: it is never taken. Without any
// weight (no action available) the draw is action 0.
EMIX_HD int32_t threshold(float cumulative, float total) {
  const float share = cumulative / total;
  return share < 1 ? static_cast<int32_t>(share * 0x1p31f) - 1 : INT32_MAX;
}

// A uniform integer in [0, 2^31).
EMIX_HD int32_t uniform_bits(uint32_t word) { return static_cast<int32_t>(word >> 1); }

}  // namespace emix::sampling
