// The ops: schemas, then each for either device, from the inputs to a problem and from there to a result. `Device` runs
// the loops.
#pragma once
#include <tuple>

#include "mixing/arguments.h"

namespace emix::mixing {

// m_i = weight_i / (sum weight + 1e-10); sum_i m_i q_i + bias, sum_i m_i sum_a pi uncertainty q + bias, and QMIX's
// ELU(q |w1| + b1) |w2| + v, where w2 may have m columns, with the derivative by q of one value. Gradients that are not
// wanted have no elements.
inline void define_ops(Library& m) {
  m.def("linear_mix(Tensor q, Tensor weight, Tensor? bias=None) -> Tensor");
  m.def("linear_mix_backward(Tensor grad, Tensor q, Tensor weight) -> (Tensor, Tensor)");
  m.def(
      "expected_linear_mix(Tensor q, Tensor pi, Tensor weight, Tensor? bias=None, Tensor? uncertainty=None) -> Tensor");
  m.def(
      "expected_linear_mix_backward(Tensor grad, Tensor q, Tensor pi, Tensor weight, Tensor? uncertainty, bool "
      "q_wanted, bool pi_wanted, bool weight_wanted, bool uncertainty_wanted) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("monotonic_mix(Tensor q, Tensor w1, Tensor b1, Tensor w2, Tensor v) -> Tensor");
  m.def(
      "monotonic_mix_backward(Tensor grad, Tensor q, Tensor w1, Tensor b1, Tensor w2, bool weights_wanted) -> (Tensor, "
      "Tensor, Tensor, Tensor)");
  m.def("monotonic_mix_grad(Tensor q, Tensor w1, Tensor b1, Tensor w2, Tensor? weight=None) -> Tensor");
}

template <class Device, class MixerCall>
Tensor forward_of(const Device& device, const MixerCall& call) {
  const Arguments& arguments = call.arguments;
  const Tensor output = empty(call.result_shape(), arguments.wide, arguments.first());
  dispatch_floating(arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template run_forward<T>(call.problem, static_cast<Wide<T>*>(output.mutable_data_ptr()));
  });
  return output;
}

template <class Device, class MixerCall, class Gradients>
void backward_of(const Device& device, const MixerCall& call, const Gradients& gradients) {
  dispatch_floating(call.arguments.type,
                    [&](auto type) { device.template run_backward<decltype(type)>(call.problem, gradients); });
}

// A fresh gradient of an input, and where the kernel writes it. Sums over the other axes are written in the result's
// type, for a kernel adds to them; the rest in the type of the inputs.
inline Tensor gradient_of(const Call& call, std::initializer_list<int64_t> inner, void*& data, bool wanted = true) {
  return call.arguments.fresh(call.shape(inner), call.arguments.type, data, wanted);
}

inline Tensor summed_gradient_of(const Call& call, std::initializer_list<int64_t> inner, void*& data,
                                 bool wanted = true) {
  return call.arguments.fresh(call.shape(inner), call.arguments.wide, data, wanted);
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
  g.grad = call.upstream("grad", grad);
  const Tensor q_grad = summed_gradient_of(call, {n}, g.q), weight_grad = summed_gradient_of(call, {n}, g.weight);
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
  g.grad = call.upstream("grad", grad);
  const Tensor q_grad = gradient_of(call, {n, A}, g.q, q_wanted), pi_grad = gradient_of(call, {n, A}, g.pi, pi_wanted);
  const Tensor weight_grad = summed_gradient_of(call, {n}, g.weight, weight_wanted);
  const Tensor uncertainty_grad = gradient_of(call, {n, A}, g.uncertainty, uncertainty_wanted);
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
  const int64_t n = call.problem.agents, E = call.problem.embed, m = call.problem.outputs;
  MonotonicGradients g;
  g.grad = call.upstream("grad", grad);
  const Tensor q_grad = summed_gradient_of(call, {n}, g.q);
  const Tensor w1_grad = gradient_of(call, {n, E}, g.w1, weights_wanted);
  const Tensor b1_grad = gradient_of(call, {E}, g.b1, weights_wanted);
  const Tensor w2_grad = w2.dim() > q.dim() ? gradient_of(call, {E, m}, g.w2, weights_wanted)
                                            : gradient_of(call, {E}, g.w2, weights_wanted);
  backward_of(Device(q), call, g);
  return {q_grad, w1_grad, b1_grad, w2_grad};
}

// The backward pass to q alone, for an upstream gradient of 1, or of several values for `weight`.
template <class Device>
Tensor monotonic_mix_grad(const Tensor& q, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                          const OptionalTensor& weight) {
  if (!weight && w2.dim() > q.dim())
    fail("`w2` must have shape [..., E] like `b1` where there is no `weight`, got ", shape_of(w2.sizes()));
  MonotonicCall call(q, w1, b1, w2, {});
  MonotonicGradients g;
  if (weight) g.grad = call.upstream("weight", *weight);
  const Tensor q_grad = summed_gradient_of(call, {call.problem.agents}, g.q);
  backward_of(Device(q), call, g);
  return q_grad;
}

template <class Device>
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
