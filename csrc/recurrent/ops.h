// The ops, for either device: from the inputs to a Sequence, from there to results. `Device` runs the loops.
#pragma once
#include <tuple>

#include "recurrent/arguments.h"

namespace emix::recurrent {

// A fresh result and where it is written; without elements where it is not wanted.
inline Tensor result(const Arguments& arguments, const std::vector<int64_t>& shape, void*& data, bool wanted = true) {
  Tensor tensor = arguments.fresh(wanted ? shape : std::vector<int64_t>{0});
  data = wanted ? tensor.mutable_data_ptr() : nullptr;
  return tensor;
}

inline Tensor saved_result(const Call& call, void*& data, bool wanted) {
  return result(call.arguments, {call.p.time, call.p.rows(), call.p.saved()}, data, wanted);
}

template <class Device>
void run_forward(const Call& call, const Results& results) {
  call.arguments.dispatch(
      [&](auto type) { Device(call.arguments.x()).template forward<decltype(type)>(call.p, results); });
}

template <class Device>
void run_backward(const Call& call, const Gradients& gradients) {
  call.arguments.dispatch(
      [&](auto type) { Device(call.arguments.x()).template backward<decltype(type)>(call.p, gradients); });
}

template <class Device>
std::tuple<Tensor, Tensor> gru_sequence(const Tensor& x, const OptionalTensor& h0, const Tensor& w_ih,
                                        const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh, bool save,
                                        int64_t precision) {
  const Call call(x, h0, {w_ih, w_hh, b_ih, b_hh}, precision);
  Results r;
  const Tensor out = result(call.arguments, call.out_shape(), r.out);
  const Tensor saved = saved_result(call, r.saved, save);
  run_forward<Device>(call, r);
  return {out, saved};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_sequence_backward(
    const Tensor& grad, const Tensor& x, const OptionalTensor& h0, const Tensor& w_ih, const Tensor& w_hh,
    const Tensor& b_ih, const Tensor& b_hh, const Tensor& out, const Tensor& saved, bool x_wanted, int64_t precision) {
  Call call(x, h0, {w_ih, w_hh, b_ih, b_hh}, precision);
  const Sequence& p = call.p;
  Arguments& arguments = call.arguments;
  arguments.because(" like the forward pass's");
  const int64_t H = p.hidden, I = p.inputs;
  Gradients g;
  g.out = arguments.read("grad", grad, {p.batch, p.time, H});
  g.saved = arguments.read("saved", saved, {p.time, p.rows(), p.saved()});
  g.h = {arguments.read("out", out, {p.batch, p.time, H}), p.time * H, H, 0};
  const Tensor x_grad = result(arguments, {p.batch, p.time, I}, g.x, x_wanted);
  const Tensor h0_grad = result(arguments, call.hidden_shape(), g.h0, h0.has_value());
  const Tensor w_ih_grad = result(arguments, {3 * H, I}, g.w_ih), w_hh_grad = result(arguments, {3 * H, H}, g.w_hh);
  const Tensor b_ih_grad = result(arguments, {3 * H}, g.b_ih), b_hh_grad = result(arguments, {3 * H}, g.b_hh);
  run_backward<Device>(call, g);
  return {x_grad, h0_grad, w_ih_grad, w_hh_grad, b_ih_grad, b_hh_grad};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> agent_sequence(const Tensor& obs, const OptionalTensor& last_action,
                                                  const OptionalTensor& h0, const Tensor& w_in, const Tensor& b_in,
                                                  const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih,
                                                  const Tensor& b_hh, const Tensor& w_out, const Tensor& b_out,
                                                  bool save, int64_t precision) {
  const Call call(obs, last_action, h0, {w_ih, w_hh, b_ih, b_hh}, {w_in, b_in, w_out, b_out}, precision);
  Results r;
  const Tensor q = result(call.arguments, call.out_shape(), r.out);
  const Tensor hidden = result(call.arguments, call.hidden_shape(), r.last);
  const Tensor saved = saved_result(call, r.saved, save);
  run_forward<Device>(call, r);
  return {q, hidden, saved};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> agent_sequence_backward(
    const OptionalTensor& q_grad, const OptionalTensor& hidden_grad, const Tensor& obs,
    const OptionalTensor& last_action, const OptionalTensor& h0, const Tensor& w_in, const Tensor& b_in,
    const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh, const Tensor& w_out,
    const Tensor& b_out, const Tensor& saved, bool obs_wanted, int64_t precision) {
  Call call(obs, last_action, h0, {w_ih, w_hh, b_ih, b_hh}, {w_in, b_in, w_out, b_out}, precision);
  const Sequence& p = call.p;
  Arguments& arguments = call.arguments;
  arguments.because(" like the forward pass's");
  const int64_t H = p.hidden, A = p.actions;
  Gradients g;
  g.out = arguments.read("q_grad", q_grad, {p.batch, p.time, p.agents, A});
  g.last = arguments.read("hidden_grad", hidden_grad, {p.batch, p.agents, H});
  g.saved = arguments.read("saved", saved, {p.time, p.rows(), p.saved()});
  const int64_t element = arguments.type == ScalarType::Double ? sizeof(double) : sizeof(float);
  g.h = {static_cast<const char*>(g.saved) + 5 * H * element, p.agents * p.saved(), p.rows() * p.saved(), p.saved()};
  const Tensor obs_grad = result(arguments, {p.batch, p.time, p.agents, p.inputs}, g.x, obs_wanted);
  const Tensor h0_grad = result(arguments, call.hidden_shape(), g.h0, h0.has_value());
  const Tensor w_in_grad = result(arguments, {H, p.in_columns()}, g.w_in), b_in_grad = result(arguments, {H}, g.b_in);
  const Tensor w_ih_grad = result(arguments, {3 * H, H}, g.w_ih), w_hh_grad = result(arguments, {3 * H, H}, g.w_hh);
  const Tensor b_ih_grad = result(arguments, {3 * H}, g.b_ih), b_hh_grad = result(arguments, {3 * H}, g.b_hh);
  const Tensor w_out_grad = result(arguments, {A, H}, g.w_out), b_out_grad = result(arguments, {A}, g.b_out);
  run_backward<Device>(call, g);
  return {obs_grad, h0_grad, w_in_grad, b_in_grad, w_ih_grad, w_hh_grad, b_ih_grad, b_hh_grad, w_out_grad, b_out_grad};
}

template <class Device, class Library>
void register_ops(Library& m) {
  m.impl("gru_sequence", TORCH_BOX(&gru_sequence<Device>));
  m.impl("gru_sequence_backward", TORCH_BOX(&gru_sequence_backward<Device>));
  m.impl("agent_sequence", TORCH_BOX(&agent_sequence<Device>));
  m.impl("agent_sequence_backward", TORCH_BOX(&agent_sequence_backward<Device>));
}

}  // namespace emix::recurrent
