// A GRU over whole sequences, alone or inside the agent of the PyMARL family. With W's rows in the order r, z, n
// (torch):
//
//   e_t = ReLU(W_in [x_t, one-hot last action, one-hot agent id] + b_encode)      the agent's; a plain GRU has e_t = x_t
//   r_t = sigmoid(W_ir e_t + b_ir + W_hr h_{t-1} + b_hr)
//   z_t = sigmoid(W_iz e_t + b_iz + W_hz h_{t-1} + b_hz)
//   m_t = W_hn h_{t-1} + b_hn
//   n_t = tanh(W_in e_t + b_encode + r_t m_t)
//   h_t = (1 - z_t) n_t + z_t h_{t-1}
//   q_t = W_out h_t + b_head                                                   the agent's; a plain GRU gives h_t
//
// Gates lie in the order n, r, z, m: what e_t takes part in is one range of columns, what h_{t-1} does another.
#pragma once
#include "device.h"
#include "elementary.h"
#include "view.h"

namespace emix::recurrent {

inline constexpr int kGates = 4;
inline constexpr int64_t kMaxHidden = 256;

// What the inputs of a float32 call's matrix products are rounded to, where the device has units for that.
enum class Precision : int64_t { kFloat32, kTf32, kBf16 };

// One call. A plain GRU is one agent a sequence. Weights are contiguous and in torch's layout.
struct Sequence {
  int64_t batch = 0, time = 0, agents = 1;
  int64_t inputs = 0, hidden = 0;  // of x; H
  bool is_agent = false;           // with the layers before and after
  Precision precision = Precision::kFloat32;
  int64_t actions = 0;                         // A of q
  int64_t action_columns = 0, id_columns = 0;  // of W_in, after those of x
  View<4> x;                                   // [B, T, n, I], the elements of a row side by side
  const int64_t* last_action = nullptr;        // [B, T, n]; outside 0 .. A - 1: none
  const void* h0 = nullptr;                    // [B, n, H]; nullptr: zeros
  const void *w_encode = nullptr, *b_encode = nullptr, *w_ih = nullptr, *w_hh = nullptr, *b_ih = nullptr,
             *b_hh = nullptr, *w_head = nullptr, *b_head = nullptr;

  EMIX_HD int64_t rows() const { return batch * agents; }
  EMIX_HD int64_t encoded() const { return is_agent ? hidden : inputs; }      // length of e
  EMIX_HD int64_t outputs() const { return is_agent ? actions : hidden; }     // length of a result's row
  EMIX_HD int64_t saved() const { return (is_agent ? 6 : kGates) * hidden; }  // n, r, z, m and the agent's e, h
  EMIX_HD int64_t in_columns() const { return inputs + action_columns + id_columns; }
};

// What the forward pass writes, contiguous.
struct Results {
  void* out = nullptr;    // [B, T, n, outputs]
  void* last = nullptr;   // [B, n, H]; nullptr: not wanted
  void* saved = nullptr;  // [T, B n, saved] for the backward pass; nullptr: not wanted
};

// What the backward pass reads and writes, contiguous; nullptr: zeros, or not wanted.
struct Gradients {
  const void *out = nullptr, *last = nullptr;  // upstream
  const void* saved = nullptr;
  View<4> h;  // h_t [B, T, n, H]
  void *x = nullptr, *h0 = nullptr;
  void *w_encode = nullptr, *b_encode = nullptr, *w_ih = nullptr, *w_hh = nullptr, *b_ih = nullptr, *b_hh = nullptr,
       *w_head = nullptr, *b_head = nullptr;
};

// 1 / x for x >= 1, inf and NaN. On the GPU a division would branch for what is below 2^-126: here the last step of the
// same iteration, without.
template <class F>
EMIX_HD F reciprocal(F x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<F, float>) {
    x = x > 0x1p126f ? 0x1p126f : x;
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return fmaf(y, fmaf(-x, y, 1.0f), y);
  }
#endif
  return 1 / x;
}

template <class F>
EMIX_HD F sigmoid(F x) {
  return reciprocal(1 + exponential(-x));
}

template <class F>
EMIX_HD F hyperbolic_tangent(F x) {
  return 2 * reciprocal(1 + exponential(-2 * x)) - 1;
}

template <class F>
struct Unit {
  F n, r, z, m;
};

// From a unit's sums over e and h to its gates; r and z hold both sums.
template <class F>
EMIX_HD Unit<F> gates(const Unit<F>& sum) {
  const F r = sigmoid(sum.r), z = sigmoid(sum.z);
  return {hyperbolic_tangent(sum.n + r * sum.m), r, z, sum.m};
}

template <class F>
EMIX_HD F next_hidden(const Unit<F>& gate, F h) {
  return gate.n + gate.z * (h - gate.n);
}

// dL/d(the sums of `gates`), from dL/dh_t.
template <class F>
EMIX_HD Unit<F> gate_gradients(const Unit<F>& gate, F h, F grad) {
  const F n = grad * (1 - gate.z) * (1 - gate.n * gate.n);
  const F z = grad * (h - gate.n) * gate.z * (1 - gate.z);
  return {n, n * gate.m * gate.r * (1 - gate.r), z, n * gate.r};
}

}  // namespace emix::recurrent
