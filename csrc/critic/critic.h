// N critics of one shape, an ensemble, over [state s, observation o_i, one-hot agent id]. All agents share a member's
// weights. For each of R steps and n agents, with W_in's rows in the order state, observation, id:
//
//   x = ReLU(W_in' [s, o_i, one-hot i] + b_encode)        [H]
//   y = ReLU(W_hidden' x + b_hidden)                  [H]
//   (a, v) = W_head' y + b_head                       [A + 1]
//   q = a + v                                         [A], or of one given action alone
//
// What W_in' s adds is the same for all agents of a step, and the id only selects a row.
#pragma once
#include "view.h"

namespace emix::critic {

inline constexpr int64_t kMostKept = 16LL << 20;  // elements of x

// One call. Weights are contiguous, a member's after the other's.
struct Critic {
  int64_t members = 0, steps = 0, agents = 0;                 // N, R, n
  int64_t states = 0, features = 0, hidden = 0, actions = 0;  // S, O, H, A
  View<2> state;                                              // [R, S], the elements of a row side by side
  View<3> obs;                                                // [R, n, O], likewise
  const int64_t *action = nullptr;                            // [R, n], outside 0 .. A - 1: NaN; null: all actions
  const void *w_encode = nullptr, *b_encode = nullptr;        // [N, S + O + n, H], [N, H]
  const void *w_hidden = nullptr, *b_hidden = nullptr;        // [N, H, H], [N, H]
  const void *w_head = nullptr, *b_head = nullptr;            // [N, H, A + 1], [N, A + 1]

  int64_t rows() const { return steps * agents; }
  int64_t saved() const { return keeps_first_layer() ? 2 * hidden : hidden; }

  // Whether the backward pass finds x in memory, and does not compute it again: where that is not much memory.
  bool keeps_first_layer() const { return members * rows() * hidden <= kMostKept; }
  int64_t inputs() const { return states + features + agents; }
  int64_t outputs() const { return actions + 1; }
  int64_t values() const { return action ? 1 : actions; }  // of an agent's q
};

// Contiguous; null: not wanted.
struct Results {
  void *q = nullptr;      // [N, R, n, values]
  void *saved = nullptr;  // [N, R, n, saved]: y and, if kept, x, for the backward pass
};

// What the backward pass reads and writes, contiguous.
struct Gradients {
  const void *q = nullptr, *saved = nullptr;
  void *state_parts = nullptr, *obs_parts = nullptr;  // of each member, [N, R, S] and [N, R, n, O]; null: not wanted
  void *state = nullptr, *obs = nullptr;              // their sums over the members
  void *w_encode = nullptr, *b_encode = nullptr, *w_hidden = nullptr, *b_hidden = nullptr, *w_head = nullptr,
       *b_head = nullptr;
};

}  // namespace emix::critic
