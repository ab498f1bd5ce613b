// The hypernetworks of N monotonic mixers: from the state to what mixing/mixing.h mixes with. Every member, with
// weights of its own:
//
//   x = w_first s + b_first                                     [C], of which each of the four heads has its columns
//   b1 = x_b1                                                   [E]
//   v  = w_v' ReLU(x_v) + b_v                                   [m], x_v [E]
//   w1 = w_w1' ReLU(x_w1) + b_w1,  or x_w1 itself               [n E]
//   w2 = w_w2' ReLU(x_w2) + b_w2,  or x_w2 itself               [E m]
#pragma once
#include "view.h"

namespace emix::hypernetwork {

enum { kB1, kV, kW1, kW2, kHeads };  // in the order of their columns

struct Head {
  int64_t first = 0, width = 0;  // its columns of the first layer
  int64_t size = 0;              // of its result
  const void *weight = nullptr,
             *bias = nullptr;  // the second layer [N, width, size] and [N, size]; null: there is none

  bool hidden() const { return weight != nullptr; }
};

// One call. Weights are contiguous, a member's after the other's.
struct Hypernetwork {
  int64_t members = 0, rows = 1, states = 0, columns = 0;  // N, R, S, C
  RowView state;                                           // [R, S], the elements of a row side by side
  const void *w_first = nullptr, *b_first = nullptr;       // [N, C, S], [N, C]
  Head heads[kHeads];                                      // those with a hidden layer have neighbouring columns

  int64_t hidden_begin() const { return heads[kV].first; }
  int64_t hidden() const { return heads[kV].width + (heads[kW1].hidden() ? heads[kW1].width + heads[kW2].width : 0); }
};

// Contiguous.
struct Results {
  void *head[kHeads] = {};  // [N, R, size]
  void *saved = nullptr;    // [N, R, hidden]: the hidden layers, for the backward pass; null: not wanted
};

// What the backward pass reads and writes, contiguous.
struct Gradients {
  const void *head[kHeads] = {};  // null: 0
  const void *saved = nullptr;
  void *state_parts = nullptr, *state = nullptr;  // of each member [N, R, S], and their sum; null: not wanted
  void *w_first = nullptr, *b_first = nullptr;
  void *weight[kHeads] = {}, *bias[kHeads] = {};  // of the second layers
};

}  // namespace emix::hypernetwork
