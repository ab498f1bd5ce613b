// The op: schema, then for either device from the inputs to a Joint and from there to results. `Device` runs the loops.
#pragma once
#include <tuple>

#include "targets/arguments.h"

namespace emix::targets {

// What the recursions of returns read of an ensemble's values, through the linear mixer: q [B, T+1, n, A] or [N, B,
// T+1, n, A] -> Q_tot of the actions taken, its next value (expected under pi, else of the actions taken) and the
// probability of these actions, each [B, T+1]. Entries that no valid step needs are 0.
inline void define_ops(Library& m) {
  m.def(
      "joint_values(Tensor q, Tensor? pi, Tensor actions, Tensor weight, Tensor? bias=None, Tensor? valid=None, float? "
      "uncertainty_scale=None) -> (Tensor, Tensor, Tensor)");
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> joint_values(const Tensor& q, const OptionalTensor& pi, const Tensor& actions,
                                                const Tensor& weight, const OptionalTensor& bias,
                                                const OptionalTensor& valid, std::optional<double> uncertainty_scale) {
  const Device device(q);
  const Call call(q, pi, actions, weight, bias, valid, uncertainty_scale);
  const auto fresh = [&](void*& data, bool wanted = true) {
    return call.arguments.fresh(call.shape, call.arguments.wide, data, wanted);
  };
  JointResults out;
  const Tensor taken = fresh(out.q), next = fresh(out.v), trace = fresh(out.trace, pi.has_value());
  dispatch_floating(call.arguments.type,
                    [&](auto type) { device.template joint_values<decltype(type)>(call.problem, out); });
  return {taken, next, trace};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("joint_values", TORCH_BOX(&joint_values<Device>));
}

}  // namespace emix::targets
