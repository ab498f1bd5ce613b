// The ops: schemas, then each for either device, from the inputs to views and from there to results. `Device` runs the
// loops.
#pragma once
#include <tuple>

#include "ensemble/arguments.h"

namespace emix::ensemble {

inline void define_ops(Library& m) {
  // q [N, ...] -> mean, variance, kurtosis [...]; of the gradients at these, any may be absent.
  m.def("ensemble_moments(Tensor q) -> (Tensor, Tensor, Tensor)");
  m.def(
      "ensemble_moments_backward(Tensor q, Tensor? mean_grad, Tensor? variance_grad, Tensor? kurtosis_grad) -> Tensor");
  m.def("uncertainty_weight(Tensor q, float scale) -> Tensor");
  // logits [..., A], q [N, ..., A], avail [..., A]
  m.def("explore_logits(Tensor logits, Tensor q, Tensor? avail, float bonus) -> Tensor");
  // The action drawn [...], its probability, whether the gate was open. seed [1]. floor_tensor, where there is one,
  // stands for floor: 0-dim, read when the op runs.
  m.def(
      "explore_actions(Tensor logits, Tensor q, Tensor? avail, Tensor seed, float bonus, float floor, Tensor? "
      "floor_tensor=None) -> (Tensor, Tensor, Tensor)");
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> ensemble_moments(const Tensor& q) {
  const Device device(q);
  const ValuesCall call(q);
  MomentsResults out;
  const auto fresh = [&](void*& data) { return call.arguments.fresh(call.shape, call.arguments.wide, data); };
  const Tensor mean = fresh(out.mean), variance = fresh(out.variance), kurtosis = fresh(out.kurtosis);
  dispatch_floating(call.arguments.type, [&](auto type) { device.template moments<decltype(type)>(call.values, out); });
  return {mean, variance, kurtosis};
}

template <class Device>
Tensor ensemble_moments_backward(const Tensor& q, const OptionalTensor& mean_grad, const OptionalTensor& variance_grad,
                                 const OptionalTensor& kurtosis_grad) {
  const Device device(q);
  ValuesCall call(q);
  const Upstreams grads{call.upstream("mean_grad", mean_grad), call.upstream("variance_grad", variance_grad),
                        call.upstream("kurtosis_grad", kurtosis_grad)};
  const auto sizes = q.sizes();
  const Tensor result = empty({sizes.begin(), sizes.end()}, call.arguments.type, q);
  dispatch_floating(call.arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template moments_backward<T>(call.values, grads, static_cast<T*>(result.mutable_data_ptr()));
  });
  return result;
}

template <class Device>
Tensor uncertainty_weight(const Tensor& q, double scale) {
  const Device device(q);
  const ValuesCall call(q);
  const Tensor result = empty(call.shape, call.arguments.wide, q);
  dispatch_floating(call.arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template weights<T>(call.values, static_cast<Wide<T>>(scale),
                               static_cast<Wide<T>*>(result.mutable_data_ptr()));
  });
  return result;
}

template <class Device>
Tensor explore_logits(const Tensor& logits, const Tensor& q, const OptionalTensor& avail, double bonus) {
  const Device device(logits);
  const ExplorationCall call(logits, q, avail, bonus);
  const Tensor result = empty(call.shape, call.arguments.wide, logits);
  dispatch_floating(call.arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template explore<T>(call.exploration, static_cast<Wide<T>*>(result.mutable_data_ptr()));
  });
  return result;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> explore_actions(const Tensor& logits, const Tensor& q, const OptionalTensor& avail,
                                                   const Tensor& seed, double bonus, double floor,
                                                   const OptionalTensor& floor_tensor) {
  const Device device(logits);
  const ExplorationCall call(logits, q, avail, seed, bonus, floor, floor_tensor);
  const std::vector<int64_t> rows(call.shape.begin(), call.shape.end() - 1);
  const Tensor action = empty(rows, ScalarType::Long, logits), probability = empty(rows, ScalarType::Float, logits),
               open = empty(rows, ScalarType::Bool, logits);
  const Drawn out{static_cast<int64_t*>(action.mutable_data_ptr()), static_cast<float*>(probability.mutable_data_ptr()),
                  static_cast<bool*>(open.mutable_data_ptr())};
  dispatch_floating(call.arguments.type,
                    [&](auto type) { device.template draw<decltype(type)>(call.exploration, out); });
  return {action, probability, open};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("ensemble_moments", TORCH_BOX(&ensemble_moments<Device>));
  m.impl("ensemble_moments_backward", TORCH_BOX(&ensemble_moments_backward<Device>));
  m.impl("uncertainty_weight", TORCH_BOX(&uncertainty_weight<Device>));
  m.impl("explore_logits", TORCH_BOX(&explore_logits<Device>));
  m.impl("explore_actions", TORCH_BOX(&explore_actions<Device>));
}

}  // namespace emix::ensemble
