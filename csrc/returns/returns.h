// The one recursion behind every return of the four papers (and rlax's general_off_policy_returns, torchrl's td_lambda,
// GAE):
//
//   delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t
//   X_t     = delta_t + gamma lam c_{t+1} X_{t+1}        cut after a step that ended its episode and the last valid one
//   G_t     = q_t + X_t
//
// Each step is the affine map X -> offset + gain X. The CPU applies the maps one after the other, the GPU composes them
// in a scan.
#pragma once
#include "device.h"
#include "divider.h"
#include "mask.h"
#include "view.h"

namespace emix::returns {

inline constexpr int kMaxRowAxes = 5;  // the batch and up to four trailing axes (agents, members, ...)

// Of [B, T or T + 1, trailing axes]; what is broadcast has stride 0.
using Series = View<kMaxRowAxes + 1>;
inline constexpr int kTime = 1;  // its axis

// An element of an output.
template <class F>
EMIX_HD F& element(const Series& view, int64_t offset) {
  return const_cast<F*>(view.as<F>())[offset];
}

// A row is one sequence in time: an episode, or an episode of one agent.
struct Problem {
  int64_t rows = 0, steps = 0;
  int row_axes = 0;
  Divider<int64_t> row_size[kMaxRowAxes];  // 1 for an empty axis
  Series reward, terminated, truncated, valid, q, v, trace;
  double gamma = 0, lam = 0;
  bool clip = false;       // c = min(1, trace), Retrace
  bool advantage = false;  // give X, not G
  int64_t horizon = 0;     // X_t is the sum of at most this many terms; 0: all
};

// Where a row starts in each of the views, in elements.
template <int kViews>
EMIX_HD void row_offsets(const Problem& problem, int64_t row, const Series* const (&views)[kViews],
                         int64_t* const (&offsets)[kViews]) {
  EMIX_UNROLL
  for (int k = 0; k < kViews; ++k) *offsets[k] = 0;
#pragma unroll 1
  for (int axis = problem.row_axes - 1; axis > 0; --axis) {
    const int64_t index = problem.row_size[axis].divide(row);
    EMIX_UNROLL
    for (int k = 0; k < kViews; ++k) *offsets[k] += index * views[k]->stride[axis + 1];
  }
  EMIX_UNROLL
  for (int k = 0; k < kViews; ++k) *offsets[k] += row * views[k]->stride[0];
}

EMIX_HD bool mask_at(const Series& mask, int64_t offset) { return emix::mask_at(mask.data, mask.itemsize, offset); }

template <class F>
struct Affine {
  F offset, gain;  // x -> offset + gain x
};

// A gain of 0 cuts: what lies beyond, NaN included, has no way through.
template <class F>
EMIX_HD F apply(const Affine<F>& map, F x) {
  return map.gain != 0 ? map.offset + map.gain * x : map.offset;
}

// first becomes x -> first(second(x)), where there is a second.
template <class F>
EMIX_HD void append(Affine<F>& first, const Affine<F>& second, bool there = true) {
  if (!there || first.gain == 0) return;
  first.offset += first.gain * second.offset;
  first.gain *= second.gain;
}

// What step t reads. The fields that end in _next belong to t + 1.
template <class F>
struct Step {
  F reward, q, v_next, trace_next;
  bool terminated, truncated, valid, valid_next;
};

template <class F>
EMIX_HD F delta(const Step<F>& step, F gamma) {
  const F bootstrap = step.terminated ? F(0) : gamma * step.v_next;
  return step.reward + bootstrap - step.q;
}

template <class F>
EMIX_HD bool linked(const Step<F>& step) {
  return step.valid && !step.terminated && !step.truncated && step.valid_next;
}

template <class F>
EMIX_HD Affine<F> affine(const Step<F>& step, F gamma, F lam, bool clip) {
  const F c = clip && step.trace_next > 1 ? F(1) : step.trace_next;
  return {step.valid ? delta(step, gamma) : F(0), linked(step) ? gamma * lam * c : F(0)};
}

// G_t or the advantage, from X_t.
template <class F>
EMIX_HD F result(const Step<F>& step, F x, bool advantage) {
  return !step.valid ? F(0) : advantage ? x : step.q + x;
}

// Gradients of one step, from x_grad = dL/dX_t (which is also dL/d delta_t), the upstream gradient and X_{t+1}.
template <class F>
struct StepGradient {
  F reward, q, v_next, trace_next;
};

template <class F>
EMIX_HD StepGradient<F> gradient(const Step<F>& step, F grad, F x_grad, F trace_grad, F gamma, F lam, bool clip,
                                 bool advantage) {
  if (!step.valid) return {F(0), F(0), F(0), F(0)};
  const bool through = linked(step) && !(clip && step.trace_next > 1);
  return {x_grad, (advantage ? F(0) : grad) - x_grad, step.terminated ? F(0) : gamma * x_grad,
          through ? gamma * lam * trace_grad : F(0)};
}

// The inputs of one row, and what is written.
template <class T, class F>
struct Row {
  const Problem& problem;
  int64_t reward, terminated, truncated, valid, q, v, trace, out;  // offsets of step 0

  EMIX_HD Row(const Problem& p, int64_t row, const Series& output = {}) : problem(p) {
    row_offsets<8>(p, row, {&p.reward, &p.terminated, &p.truncated, &p.valid, &p.q, &p.v, &p.trace, &output},
                   {&reward, &terminated, &truncated, &valid, &q, &v, &trace, &out});
  }

  EMIX_HD static F at(const Series& view, int64_t offset) { return static_cast<F>(view.as<T>()[offset]); }

  EMIX_HD Step<F> operator[](int64_t t) const {
    const Problem& p = problem;
    Step<F> step;
    step.reward = at(p.reward, reward + t * p.reward.stride[kTime]);
    step.q = at(p.q, q + t * p.q.stride[kTime]);
    step.v_next = at(p.v, v + (t + 1) * p.v.stride[kTime]);
    step.trace_next = p.trace.given() ? at(p.trace, trace + (t + 1) * p.trace.stride[kTime]) : F(1);
    step.terminated = mask_at(p.terminated, terminated + t * p.terminated.stride[kTime]);
    step.truncated = p.truncated.given() && mask_at(p.truncated, truncated + t * p.truncated.stride[kTime]);
    step.valid = !p.valid.given() || mask_at(p.valid, valid + t * p.valid.stride[kTime]);
    step.valid_next =
        t + 1 < p.steps && (!p.valid.given() || mask_at(p.valid, valid + (t + 1) * p.valid.stride[kTime]));
    return step;
  }
};

struct GradientViews {
  Series grad, reward, q, v, trace;
};

// Where the upstream gradient of one row comes from, and the gradients go.
template <class F>
struct GradientRow {
  const Problem& problem;
  const GradientViews& views;
  int64_t grad, reward, q, v, trace;  // offsets of step 0

  EMIX_HD GradientRow(const Problem& p, const GradientViews& views_, int64_t row) : problem(p), views(views_) {
    row_offsets<5>(p, row, {&views.grad, &views.reward, &views.q, &views.v, &views.trace},
                   {&grad, &reward, &q, &v, &trace});
  }

  EMIX_HD F upstream(int64_t t) const { return element<F>(views.grad, grad + t * views.grad.stride[kTime]); }
  EMIX_HD F& trace_at(int64_t t) const { return element<F>(views.trace, trace + t * views.trace.stride[kTime]); }

  EMIX_HD void write(int64_t t, const StepGradient<F>& g) const {
    element<F>(views.reward, reward + t * views.reward.stride[kTime]) = g.reward;
    element<F>(views.q, q + t * views.q.stride[kTime]) = g.q;
    element<F>(views.v, v + (t + 1) * views.v.stride[kTime]) = g.v_next;
    trace_at(t + 1) = g.trace_next;
  }

  EMIX_HD void write_ends() const {  // entries that no step reads
    element<F>(views.v, v) = trace_at(0) = 0;
    element<F>(views.q, q + problem.steps * views.q.stride[kTime]) = 0;
  }
};

// The limited horizon n, one step at a time and independent of the other steps:
//   X_t = sum_{l < n} (prod_{j < l} gain_{t+j}) delta_{t+l}
template <class F>
struct WindowSum {
  F sum = 0, weight = 1;

  EMIX_HD void add(const Affine<F>& map) {
    sum += weight * map.offset;
    weight *= map.gain;
  }
  EMIX_HD bool open() const { return weight != 0; }  // else nothing more counts, NaN neither
};

template <class F, class Maps>
EMIX_HD F window(const Maps& map_at, int64_t t, int64_t steps, int64_t horizon) {
  WindowSum<F> sum;
  for (int64_t l = 0; l < horizon && t + l < steps && sum.open(); ++l) sum.add(map_at(t + l));
  return sum.sum;
}

// dL/d delta_t and dL/d gain_t under a limited horizon, from the upstream gradients of the windows that reach step t.
// O(n^2), for the rare caller who differentiates through a limited horizon.
template <class F>
struct WindowGradient {
  F delta, gain;
};

template <class F, class Maps, class Upstream>
EMIX_HD WindowGradient<F> window_gradient(const Maps& map_at, const Upstream& grad_at, int64_t t, int64_t steps,
                                          int64_t horizon) {
  WindowGradient<F> sum{F(0), F(0)};
  F weight = 1;  // of step t in the window that starts at t - l
  for (int64_t l = 0; l < horizon && l <= t; ++l) {
    if (l > 0) weight *= map_at(t - l).gain;
    if (weight == 0) break;
    const F arrived = weight * grad_at(t - l);
    sum.delta += arrived;
    sum.gain += arrived * window<F>(map_at, t + 1, steps, horizon - 1 - l);
  }
  return sum;
}

}  // namespace emix::returns
