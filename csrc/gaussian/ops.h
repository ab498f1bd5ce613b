// The ops: schemas, then each for either device, from the inputs to a problem and from there to the results. `Device`
// runs the loops.
#pragma once
#include <tuple>

#include "gaussian/arguments.h"

namespace emix::gaussian {

// log_prob and entropy [...] of action [..., D], and draws with their log_prob, squashed by tanh or not. Of the
// gradients at these, any may be absent. seed [1].
inline void define_ops(Library& m) {
  m.def("gaussian_terms(Tensor mean, Tensor log_std, Tensor action) -> (Tensor, Tensor)");
  m.def(
      "gaussian_terms_backward(Tensor? log_prob_grad, Tensor? entropy_grad, Tensor mean, Tensor log_std, Tensor "
      "action) -> (Tensor, Tensor)");
  m.def("gaussian_sample(Tensor mean, Tensor log_std, Tensor seed, bool squash) -> (Tensor, Tensor)");
  m.def(
      "gaussian_sample_backward(Tensor? action_grad, Tensor? log_prob_grad, Tensor mean, Tensor log_std, Tensor seed, "
      "bool squash) -> (Tensor, Tensor)");
}

inline Tensor result(const Call& call, const std::vector<int64_t>& shape, void*& data) {
  return call.arguments.fresh(shape, call.arguments.wide, data);
}

template <class Device>
std::tuple<Tensor, Tensor> gaussian_terms(const Tensor& mean, const Tensor& log_std, const Tensor& action) {
  const Device device(mean);
  const Call call(mean, log_std, action);
  Results r;
  const Tensor log_prob = result(call, call.row_shape(), r.log_prob),
               entropy = result(call, call.row_shape(), r.entropy);
  dispatch_wide(call.arguments.wide, [&](auto type) { device.terms(type, call.p, r); });
  return {log_prob, entropy};
}

template <class Device>
std::tuple<Tensor, Tensor> gaussian_terms_backward(const OptionalTensor& log_prob_grad,
                                                   const OptionalTensor& entropy_grad, const Tensor& mean,
                                                   const Tensor& log_std, const Tensor& action) {
  const Device device(mean);
  Call call(mean, log_std, action);
  call.p.log_prob_grad = call.upstream("log_prob_grad", log_prob_grad, call.row_shape());
  call.p.entropy_grad = call.upstream("entropy_grad", entropy_grad, call.row_shape());
  Results r;
  const Tensor mean_grad = result(call, call.shape, r.mean_grad),
               log_std_grad = result(call, call.shape, r.log_std_grad);
  dispatch_wide(call.arguments.wide, [&](auto type) { device.terms_backward(type, call.p, r); });
  return {mean_grad, log_std_grad};
}

template <class Device>
std::tuple<Tensor, Tensor> gaussian_sample(const Tensor& mean, const Tensor& log_std, const Tensor& seed, bool squash) {
  const Device device(mean);
  Call call(mean, log_std, {});
  call.p.seed = call.arguments.seed("seed", seed), call.p.squash = squash;
  Results r;
  const Tensor action = result(call, call.shape, r.action), log_prob = result(call, call.row_shape(), r.log_prob);
  dispatch_wide(call.arguments.wide, [&](auto type) { device.sample(type, call.p, r); });
  return {action, log_prob};
}

template <class Device>
std::tuple<Tensor, Tensor> gaussian_sample_backward(const OptionalTensor& action_grad,
                                                    const OptionalTensor& log_prob_grad, const Tensor& mean,
                                                    const Tensor& log_std, const Tensor& seed, bool squash) {
  const Device device(mean);
  Call call(mean, log_std, {});
  call.p.seed = call.arguments.seed("seed", seed), call.p.squash = squash;
  call.p.action_grad = call.upstream("action_grad", action_grad, call.shape);
  call.p.log_prob_grad = call.upstream("log_prob_grad", log_prob_grad, call.row_shape());
  Results r;
  const Tensor mean_grad = result(call, call.shape, r.mean_grad),
               log_std_grad = result(call, call.shape, r.log_std_grad);
  dispatch_wide(call.arguments.wide, [&](auto type) { device.sample_backward(type, call.p, r); });
  return {mean_grad, log_std_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("gaussian_terms", TORCH_BOX(&gaussian_terms<Device>));
  m.impl("gaussian_terms_backward", TORCH_BOX(&gaussian_terms_backward<Device>));
  m.impl("gaussian_sample", TORCH_BOX(&gaussian_sample<Device>));
  m.impl("gaussian_sample_backward", TORCH_BOX(&gaussian_sample_backward<Device>));
}

}  // namespace emix::gaussian
