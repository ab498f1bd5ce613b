// A critic V(s, a_-i) of two hidden layers, averaged over K joint actions of the others: PERLA. For each of R states
// and n agents, with c_j^k the row of W_action that agent j's k-th action selects (or a_j^k' W_action,j, for actions of
// D numbers):
//
//   S^k = sum_j c_j^k                                              [H]
//   x = ReLU(first_i + S^k - c_i^k)                                [H]
//   y = ReLU(W_hidden' x + b_hidden)                               [H2]
//   V_i = w_head' (1/K sum_k y) + b_head
//
// One-hot inputs are never built, and S^k serves all agents. With G = dL/dV_i, backwards through one sample:
//
//   dz = G/K w_head where y > 0,   dx = W_hidden dz where x > 0    [H2], [H]
//   dfirst_i = sum_k dx_i^k,   dc_j^k = sum_i dx_i^k - dx_j^k      the agents beside j
//
// x and y are computed again, from the indices: nothing of K's size is kept.
#pragma once
#include <cstdint>

#include "device.h"

namespace emix::marginal {

// One call, contiguous.
struct Problem {
  int64_t samples = 0, states = 0, agents = 0;          // K, R, n
  int64_t choices = 0, hidden = 0, outputs = 0;         // A (or D), H, H2
  bool continuous = false;                              // actions are D numbers, not an index
  int index_bytes = 0;                                  // of an index: 1 (uint8) or 8 (int64)
  const void *first = nullptr, *actions = nullptr;      // [R, n, H], [K, R, n] or [K, R, n, D]
  const void *w_action = nullptr;                       // [n, A, H] or [n, D, H]
  const void *w_hidden = nullptr, *b_hidden = nullptr;  // [H, H2], [H2]
  const void *w_head = nullptr, *b_head = nullptr;      // [H2], []

  // Of the K R n actions the one at `place`; one above int64's range cannot be.
  EMIX_HD int64_t index(int64_t place) const {
    return index_bytes == 1 ? static_cast<const uint8_t *>(actions)[place]
                            : static_cast<const int64_t *>(actions)[place];
  }
  EMIX_HD int64_t place(int64_t sample, int64_t state, int64_t agent) const {
    return (sample * states + state) * agents + agent;
  }
};

// What the backward pass reads and writes, contiguous, each like its input. value: [R, n]. first: nullptr where it is
// not wanted.
struct Gradients {
  const void *value = nullptr;
  void *first = nullptr, *w_action = nullptr, *w_hidden = nullptr, *b_hidden = nullptr, *w_head = nullptr,
       *b_head = nullptr;
};

}  // namespace emix::marginal
