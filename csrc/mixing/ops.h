// The ops, for either device: from the inputs to a problem, from the problem to a result. `Device` runs the loops.
#pragma once
#include <tuple>

#include "mixing/arguments.h"

namespace emix::mixing {

template <class Device, class Call>
Tensor forward_of(const Device& device, const Call& call) {
  Tensor output = call.arguments.fresh(true, {}, call.arguments.output);
  dispatch_floating(call.arguments.input, [&](auto type) {
    using T = decltype(type);
    device.template run_forward<T>(call.problem, static_cast<Wide<T>*>(output.mutable_data_ptr()));
  });
  return output;
}

template <class Device, class Call, class Gradients>
void backward_of(const Device& device, const Call& call, const Gradients& gradients) {
  dispatch_floating(call.arguments.input,
                    [&](auto type) { device.template run_backward<decltype(type)>(call.problem, gradients); });
}

// A fresh gradient of an input, and where the kernel writes it; nothing where it is not wanted. Sums over the other
// axes are written in the result's type, for a kernel adds to them; the rest in the type of the inputs.
inline Tensor gradient_of(const Arguments& arguments, bool wanted, std::initializer_list<int64_t> inner, void*& data) {
  Tensor gradient = arguments.fresh(wanted, inner, arguments.input);
  data = wanted ? gradient.mutable_data_ptr() : nullptr;
  return gradient;
}

inline Tensor summed_gradient_of(const Arguments& arguments, bool wanted, std::initializer_list<int64_t> inner,
                                 void*& data) {
  Tensor gradient = arguments.fresh(wanted, inner, arguments.output);
  data = wanted ? gradient.mutable_data_ptr() : nullptr;
  return gradient;
}

template <class Device>
Tensor linear_mix(const Tensor& q, const Tensor& weight, const OptionalTensor& bias) {
  const LinearCall call(q, weight, bias);
  return forward_of(Device(q), call);
}

template <class Device>
std::tuple<Tensor, Tensor> linear_mix_backward(const Tensor& grad, const Tensor& q, const Tensor& weight) {
  LinearCall call(q, weight, {});
  const int64_t n = call.problem.agents;
  LinearGradients g;
  call.arguments.read_gradient(grad, g.grad);
  const Tensor q_grad = summed_gradient_of(call.arguments, true, {n}, g.q);
  const Tensor weight_grad = summed_gradient_of(call.arguments, true, {n}, g.weight);
  backward_of(Device(q), call, g);
  return {q_grad, weight_grad};
}

template <class Device>
Tensor expected_linear_mix(const Tensor& q, const Tensor& pi, const Tensor& weight, const OptionalTensor& bias,
                           const OptionalTensor& uncertainty) {
  const ExpectedCall call(q, pi, weight, bias, uncertainty);
  return forward_of(Device(q), call);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> expected_linear_mix_backward(const Tensor& grad, const Tensor& q,
                                                                        const Tensor& pi, const Tensor& weight,
                                                                        const OptionalTensor& uncertainty,
                                                                        bool q_wanted, bool pi_wanted,
                                                                        bool weight_wanted, bool uncertainty_wanted) {
  ExpectedCall call(q, pi, weight, {}, uncertainty);
  const int64_t n = call.problem.agents, A = call.problem.actions;
  ExpectedGradients g;
  call.arguments.read_gradient(grad, g.grad);
  const Tensor q_grad = gradient_of(call.arguments, q_wanted, {n, A}, g.q);
  const Tensor pi_grad = gradient_of(call.arguments, pi_wanted, {n, A}, g.pi);
  const Tensor weight_grad = summed_gradient_of(call.arguments, weight_wanted, {n}, g.weight);
  const Tensor uncertainty_grad = gradient_of(call.arguments, uncertainty_wanted, {n, A}, g.uncertainty);
  backward_of(Device(q), call, g);
  return {q_grad, pi_grad, weight_grad, uncertainty_grad};
}

template <class Device>
Tensor monotonic_mix(const Tensor& q, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& v) {
  const MonotonicCall call(q, w1, b1, w2, v);
  return forward_of(Device(q), call);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> monotonic_mix_backward(const Tensor& grad, const Tensor& q, const Tensor& w1,
                                                                  const Tensor& b1, const Tensor& w2,
                                                                  bool weights_wanted) {
  MonotonicCall call(q, w1, b1, w2, {});
  const int64_t n = call.problem.agents, E = call.problem.embed;
  MonotonicGradients g;
  call.arguments.read_gradient(grad, g.grad);
  const Tensor q_grad = summed_gradient_of(call.arguments, true, {n}, g.q);
  const Tensor w1_grad = gradient_of(call.arguments, weights_wanted, {n, E}, g.w1);
  const Tensor b1_grad = gradient_of(call.arguments, weights_wanted, {E}, g.b1);
  const Tensor w2_grad = gradient_of(call.arguments, weights_wanted, {E}, g.w2);
  backward_of(Device(q), call, g);
  return {q_grad, w1_grad, b1_grad, w2_grad};
}

// The backward pass for an upstream gradient of 1.
template <class Device>
Tensor monotonic_mix_grad(const Tensor& q, const Tensor& w1, const Tensor& b1, const Tensor& w2) {
  const MonotonicCall call(q, w1, b1, w2, {});
  MonotonicGradients g;
  const Tensor q_grad = summed_gradient_of(call.arguments, true, {call.problem.agents}, g.q);
  backward_of(Device(q), call, g);
  return q_grad;
}

template <class Device, class Library>
void register_ops(Library& m) {
  m.impl("linear_mix", TORCH_BOX(&linear_mix<Device>));
  m.impl("linear_mix_backward", TORCH_BOX(&linear_mix_backward<Device>));
  m.impl("expected_linear_mix", TORCH_BOX(&expected_linear_mix<Device>));
  m.impl("expected_linear_mix_backward", TORCH_BOX(&expected_linear_mix_backward<Device>));
  m.impl("monotonic_mix", TORCH_BOX(&monotonic_mix<Device>));
  m.impl("monotonic_mix_backward", TORCH_BOX(&monotonic_mix_backward<Device>));
  m.impl("monotonic_mix_grad", TORCH_BOX(&monotonic_mix_grad<Device>));
}

}  // namespace emix::mixing
