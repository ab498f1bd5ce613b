// The ops: schemas, then each for either device, from the inputs to a Problem and from there to results. `Device` runs
// the loops.
#pragma once
#include <tuple>

#include "policy/arguments.h"

namespace emix::policy {

// logits [..., A] to probabilities, and log_prob, entropy, expected_value [...] of action [...]. What is not wanted has
// no elements. floor_tensor, where there is one, stands for floor: 0-dim, read when the op runs.
inline void define_ops(Library& m) {
  m.def("masked_policy(Tensor logits, Tensor? avail=None, float floor=0., Tensor? floor_tensor=None) -> Tensor");
  m.def(
      "masked_policy_backward(Tensor grad, Tensor logits, Tensor? avail, float floor, Tensor? floor_tensor=None) -> "
      "Tensor");
  m.def(
      "policy_terms(Tensor logits, Tensor action, Tensor? avail=None, Tensor? value=None, float floor=0., Tensor? "
      "floor_tensor=None) -> (Tensor, Tensor, Tensor)");
  m.def(
      "policy_terms_backward(Tensor? log_prob_grad, Tensor? entropy_grad, Tensor? value_grad, Tensor logits, Tensor "
      "action, Tensor? avail, Tensor? value, float floor, bool value_wanted, Tensor? floor_tensor=None) -> (Tensor, "
      "Tensor)");
}

template <class Device>
Tensor masked_policy(const Tensor& logits, const OptionalTensor& avail, double floor,
                     const OptionalTensor& floor_tensor) {
  const Device device(logits);
  const Call call(logits, avail, {}, floor, floor_tensor);
  void* out = nullptr;
  const Tensor result = call.arguments.fresh(call.shape(), call.arguments.wide, out);
  dispatch_floating(call.arguments.type, [&](auto type) { device.template policy<decltype(type)>(call.problem, out); });
  return result;
}

template <class Device>
Tensor masked_policy_backward(const Tensor& grad, const Tensor& logits, const OptionalTensor& avail, double floor,
                              const OptionalTensor& floor_tensor) {
  const Device device(logits);
  Call call(logits, avail, {}, floor, floor_tensor);
  call.problem.policy_grad = call.policy_grad(grad);
  void* out = nullptr;
  const Tensor result = call.arguments.fresh(call.shape(), call.arguments.type, out);
  dispatch_floating(call.arguments.type,
                    [&](auto type) { device.template policy_backward<decltype(type)>(call.problem, out); });
  return result;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> policy_terms(const Tensor& logits, const Tensor& action, const OptionalTensor& avail,
                                                const OptionalTensor& value, double floor,
                                                const OptionalTensor& floor_tensor) {
  const Device device(logits);
  const Call call(logits, action, avail, value, floor, floor_tensor);
  const auto fresh = [&](void*& data, bool wanted = true) {
    return call.arguments.fresh(call.rows_shape(), call.arguments.wide, data, wanted);
  };
  Terms out;
  const Tensor log_prob = fresh(out.log_prob), entropy = fresh(out.entropy);
  const Tensor expected_value = fresh(out.expected_value, value.has_value());
  dispatch_floating(call.arguments.type, [&](auto type) { device.template terms<decltype(type)>(call.problem, out); });
  return {log_prob, entropy, expected_value};
}

template <class Device>
std::tuple<Tensor, Tensor> policy_terms_backward(const OptionalTensor& log_prob_grad,
                                                 const OptionalTensor& entropy_grad, const OptionalTensor& value_grad,
                                                 const Tensor& logits, const Tensor& action,
                                                 const OptionalTensor& avail, const OptionalTensor& value, double floor,
                                                 bool value_wanted, const OptionalTensor& floor_tensor) {
  const Device device(logits);
  Call call(logits, action, avail, value, floor, floor_tensor);
  call.problem.log_prob_grad = call.term_grad("log_prob_grad", log_prob_grad);
  call.problem.entropy_grad = call.term_grad("entropy_grad", entropy_grad);
  call.problem.value_grad = call.term_grad("value_grad", value_grad);
  TermsGradients out;
  const Tensor logits_result = call.arguments.fresh(call.shape(), call.arguments.type, out.logits);
  const Tensor value_result =
      call.arguments.fresh(call.shape(), call.arguments.type, out.value, value_wanted && value.has_value());
  dispatch_floating(call.arguments.type,
                    [&](auto type) { device.template terms_backward<decltype(type)>(call.problem, out); });
  return {logits_result, value_result};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("masked_policy", TORCH_BOX(&masked_policy<Device>));
  m.impl("masked_policy_backward", TORCH_BOX(&masked_policy_backward<Device>));
  m.impl("policy_terms", TORCH_BOX(&policy_terms<Device>));
  m.impl("policy_terms_backward", TORCH_BOX(&policy_terms_backward<Device>));
}

}  // namespace emix::policy
