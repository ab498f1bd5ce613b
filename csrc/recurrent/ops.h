// The ops: schemas, then each for either device, from the inputs to a Sequence and from there to results. `Device` runs
// the loops.
#pragma once
#include <tuple>

#include "recurrent/arguments.h"

namespace emix::recurrent {

// A GRU over x [R, T, I] -> [R, T, H]; and the agent, linear + ReLU, GRU, linear, over obs [B, T, n, O] -> q [B, T, n,
// A] and the last state [B, n, H]. Each also gives what its backward pass reads (save), else no elements. precision of
// matrix products on CUDA: 0 float32, 1 tf32, 2 bf16.
inline void define_ops(Library& m) {
  m.def(
      "gru_sequence(Tensor x, Tensor? h0, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, bool save=False, int "
      "precision=0) -> (Tensor, Tensor)");
  m.def(
      "gru_sequence_backward(Tensor grad, Tensor x, Tensor? h0, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, "
      "Tensor out, Tensor saved, bool x_wanted, int precision=0) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "agent_sequence(Tensor obs, Tensor? last_action, Tensor? h0, Tensor w_encode, Tensor b_encode, Tensor w_ih, "
      "Tensor w_hh, "
      "Tensor b_ih, Tensor b_hh, Tensor w_head, Tensor b_head, bool save=False, int precision=0) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "agent_sequence_backward(Tensor? q_grad, Tensor? hidden_grad, Tensor obs, Tensor? last_action, Tensor? h0, "
      "Tensor w_encode, Tensor b_encode, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, Tensor w_head, Tensor "
      "b_head, "
      "Tensor saved, bool obs_wanted, int precision=0) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor)");
}

// A fresh result and where it is written.
inline Tensor result(const Call& call, const std::vector<int64_t>& shape, void*& data, bool wanted = true) {
  return call.arguments.fresh(shape, call.arguments.wide, data, wanted);
}

inline Tensor saved_result(const Call& call, void*& data, bool wanted) {
  return result(call, {call.p.time, call.p.rows(), call.p.saved()}, data, wanted);
}

template <class Device>
void run_forward(const Call& call, const Results& results) {
  const Device device(call.arguments.first());
  dispatch_wide(call.arguments.wide, [&](auto type) { device.template forward<decltype(type)>(call.p, results); });
}

template <class Device>
void run_backward(const Call& call, const Gradients& gradients) {
  const Device device(call.arguments.first());
  dispatch_wide(call.arguments.wide, [&](auto type) { device.template backward<decltype(type)>(call.p, gradients); });
}

template <class Device>
std::tuple<Tensor, Tensor> gru_sequence(const Tensor& x, const OptionalTensor& h0, const Tensor& w_ih,
                                        const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh, bool save,
                                        int64_t precision) {
  const Call call(x, h0, {w_ih, w_hh, b_ih, b_hh}, precision);
  Results r;
  const Tensor out = result(call, call.out_shape(), r.out);
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
  const int64_t H = p.hidden, I = p.inputs;
  Gradients g;
  g.out = call.read_back("grad", grad, {p.batch, p.time, H});
  g.saved = call.read_back("saved", saved, {p.time, p.rows(), p.saved()});
  g.h = {call.read_back("out", out, {p.batch, p.time, H}), {p.batch, p.time, 1, H}, {p.time * H, H, 0, 1}};
  const Tensor x_grad = result(call, {p.batch, p.time, I}, g.x, x_wanted);
  const Tensor h0_grad = result(call, call.hidden_shape(), g.h0, h0.has_value());
  const Tensor w_ih_grad = result(call, {3 * H, I}, g.w_ih), w_hh_grad = result(call, {3 * H, H}, g.w_hh);
  const Tensor b_ih_grad = result(call, {3 * H}, g.b_ih), b_hh_grad = result(call, {3 * H}, g.b_hh);
  run_backward<Device>(call, g);
  return {x_grad, h0_grad, w_ih_grad, w_hh_grad, b_ih_grad, b_hh_grad};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> agent_sequence(const Tensor& obs, const OptionalTensor& last_action,
                                                  const OptionalTensor& h0, const Tensor& w_encode,
                                                  const Tensor& b_encode, const Tensor& w_ih, const Tensor& w_hh,
                                                  const Tensor& b_ih, const Tensor& b_hh, const Tensor& w_head,
                                                  const Tensor& b_head, bool save, int64_t precision) {
  const Call call(obs, last_action, h0, {w_ih, w_hh, b_ih, b_hh}, {w_encode, b_encode, w_head, b_head}, precision);
  Results r;
  const Tensor q = result(call, call.out_shape(), r.out);
  const Tensor hidden = result(call, call.hidden_shape(), r.last);
  const Tensor saved = saved_result(call, r.saved, save);
  run_forward<Device>(call, r);
  return {q, hidden, saved};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> agent_sequence_backward(
    const OptionalTensor& q_grad, const OptionalTensor& hidden_grad, const Tensor& obs,
    const OptionalTensor& last_action, const OptionalTensor& h0, const Tensor& w_encode, const Tensor& b_encode,
    const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh, const Tensor& w_head,
    const Tensor& b_head, const Tensor& saved, bool obs_wanted, int64_t precision) {
  Call call(obs, last_action, h0, {w_ih, w_hh, b_ih, b_hh}, {w_encode, b_encode, w_head, b_head}, precision);
  const Sequence& p = call.p;
  const int64_t H = p.hidden, A = p.actions;
  Gradients g;
  g.out = call.read_back("q_grad", q_grad, {p.batch, p.time, p.agents, A});
  g.last = call.read_back("hidden_grad", hidden_grad, {p.batch, p.agents, H});
  g.saved = call.read_back("saved", saved, {p.time, p.rows(), p.saved()});
  const int64_t element = call.arguments.wide == ScalarType::Double ? sizeof(double) : sizeof(float);
  g.h = {static_cast<const char*>(g.saved) + 5 * H * element,
         {p.batch, p.time, p.agents, H},
         {p.agents * p.saved(), p.rows() * p.saved(), p.saved(), 1}};
  const Tensor obs_grad = result(call, {p.batch, p.time, p.agents, p.inputs}, g.x, obs_wanted);
  const Tensor h0_grad = result(call, call.hidden_shape(), g.h0, h0.has_value());
  const Tensor w_encode_grad = result(call, {H, p.in_columns()}, g.w_encode),
               b_encode_grad = result(call, {H}, g.b_encode);
  const Tensor w_ih_grad = result(call, {3 * H, H}, g.w_ih), w_hh_grad = result(call, {3 * H, H}, g.w_hh);
  const Tensor b_ih_grad = result(call, {3 * H}, g.b_ih), b_hh_grad = result(call, {3 * H}, g.b_hh);
  const Tensor w_head_grad = result(call, {A, H}, g.w_head), b_head_grad = result(call, {A}, g.b_head);
  run_backward<Device>(call, g);
  return {obs_grad,  h0_grad,   w_encode_grad, b_encode_grad, w_ih_grad,
          w_hh_grad, b_ih_grad, b_hh_grad,     w_head_grad,   b_head_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("gru_sequence", TORCH_BOX(&gru_sequence<Device>));
  m.impl("gru_sequence_backward", TORCH_BOX(&gru_sequence_backward<Device>));
  m.impl("agent_sequence", TORCH_BOX(&agent_sequence<Device>));
  m.impl("agent_sequence_backward", TORCH_BOX(&agent_sequence_backward<Device>));
}

}  // namespace emix::recurrent
