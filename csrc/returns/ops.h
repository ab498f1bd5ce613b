// The ops: schemas, then each for either device, from the inputs to a Problem and from there to results. `Device` runs
// the loops.
#pragma once
#include <tuple>

#include "returns/arguments.h"

namespace emix::returns {

inline void define_ops(Library& m) {
  // X_t = delta_t + gamma lam c_{t+1} X_{t+1}; gives q + X, or X itself (advantage). horizon 0: no limit. clip: c =
  // min(1, trace).
  m.def(
      "trace_returns(Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float lam, Tensor? trace=None, "
      "Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool advantage=False) -> Tensor");
  // Gradients with respect to reward [B, T, ...] and q, v, trace [B, T+1, ...], all in the broadcast shape.
  m.def(
      "trace_returns_backward(Tensor grad, Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float "
      "lam, Tensor? trace=None, Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool "
      "advantage=False) -> (Tensor, Tensor, Tensor, Tensor)");
}

template <class Device>
Tensor trace_returns(const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v, double gamma,
                     double lam, const OptionalTensor& trace, const OptionalTensor& truncated,
                     const OptionalTensor& valid, int64_t horizon, bool clip, bool advantage) {
  const Device device(reward);
  const Call call(reward, terminated, q, v, gamma, lam, trace, truncated, valid, horizon, clip, advantage);
  const Tensor result = call.fresh(false);
  const Series out = call.output(result);
  if (result.numel() > 0)
    dispatch_floating(call.arguments.type,
                      [&](auto type) { device.template forward<decltype(type)>(call.problem, out); });
  return result;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> trace_returns_backward(
    const Tensor& grad, const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v, double gamma,
    double lam, const OptionalTensor& trace, const OptionalTensor& truncated, const OptionalTensor& valid,
    int64_t horizon, bool clip, bool advantage) {
  const Device device(reward);
  Call call(reward, terminated, q, v, gamma, lam, trace, truncated, valid, horizon, clip, advantage);
  const Tensor reward_grad = call.fresh(false), q_grad = call.fresh(true), v_grad = call.fresh(true),
               trace_grad = call.fresh(true);
  const GradientViews views{call.upstream(grad), call.output(reward_grad), call.output(q_grad), call.output(v_grad),
                            call.output(trace_grad)};
  if (q_grad.numel() > 0)  // without a step, too: all of it is 0
    dispatch_floating(call.arguments.type,
                      [&](auto type) { device.template backward<decltype(type)>(call.problem, views); });
  return {reward_grad, q_grad, v_grad, trace_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("trace_returns", TORCH_BOX(&trace_returns<Device>));
  m.impl("trace_returns_backward", TORCH_BOX(&trace_returns_backward<Device>));
}

}  // namespace emix::returns
