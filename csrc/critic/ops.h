// The ops: schemas, then each from the inputs to a Critic and from there to results. `Device` runs the loops; there are
// those of the CPU alone, for a GPU has cuBLAS.
#pragma once
#include <tuple>

#include "critic/arguments.h"

namespace emix::critic {

// N members over state [..., S] and obs [..., n, O] -> q [N, ..., n, A], or [N, ..., n] of the actions [..., n], and
// what the backward pass reads (save).
inline void define_ops(Library& m) {
  m.def(
      "ensemble_critic(Tensor state, Tensor obs, Tensor w_encode, Tensor b_encode, Tensor w_hidden, Tensor b_hidden, "
      "Tensor w_head, Tensor b_head, Tensor? actions=None, bool save=False) -> (Tensor, Tensor)");
  m.def(
      "ensemble_critic_backward(Tensor grad, Tensor state, Tensor obs, Tensor w_encode, Tensor b_encode, "
      "Tensor w_hidden, Tensor b_hidden, Tensor w_head, Tensor b_head, Tensor? actions, Tensor saved, "
      "bool state_wanted, bool obs_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

// A fresh result and where it is written.
inline Tensor result(const Call& call, const std::vector<int64_t>& shape, void*& data, bool wanted = true) {
  return call.arguments.fresh(shape, call.arguments.wide, data, wanted);
}

template <class Device>
std::tuple<Tensor, Tensor> ensemble_critic(const Tensor& state, const Tensor& obs, const Tensor& w_encode,
                                           const Tensor& b_encode, const Tensor& w_hidden, const Tensor& b_hidden,
                                           const Tensor& w_head, const Tensor& b_head, const OptionalTensor& actions,
                                           bool save) {
  const Call call(state, obs, {w_encode, b_encode, w_hidden, b_hidden, w_head, b_head}, actions);
  const Critic& p = call.p;
  Results r;
  const Tensor q = result(call, call.q_shape(), r.q);
  const Tensor saved = result(call, {save ? p.members : 0, p.rows(), p.saved()}, r.saved);
  if (!save) r.saved = nullptr;
  dispatch_wide(call.arguments.wide, [&](auto type) { Device(obs).template forward<decltype(type)>(p, r); });
  return {q, saved};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ensemble_critic_backward(
    const Tensor& grad, const Tensor& state, const Tensor& obs, const Tensor& w_encode, const Tensor& b_encode,
    const Tensor& w_hidden, const Tensor& b_hidden, const Tensor& w_head, const Tensor& b_head,
    const OptionalTensor& actions, const Tensor& saved, bool state_wanted, bool obs_wanted) {
  Call call(state, obs, {w_encode, b_encode, w_hidden, b_hidden, w_head, b_head}, actions);
  const Critic& p = call.p;
  const int64_t N = p.members, H = p.hidden, n = p.agents, S = p.states, O = p.features;
  Gradients g;
  g.q = call.read_back("grad", grad, call.q_shape());
  g.saved = call.read_back("saved", saved, {N, p.rows(), p.saved()});
  const Tensor state_parts = result(call, {N, p.steps, S}, g.state_parts, state_wanted);
  const Tensor obs_parts = result(call, {N, p.rows(), O}, g.obs_parts, obs_wanted);
  const Tensor state_grad = result(call, call.shape({S}), g.state, state_wanted);
  const Tensor obs_grad = result(call, call.shape({n, O}), g.obs, obs_wanted);
  const Tensor w_encode_grad = result(call, {N, p.inputs(), H}, g.w_encode),
               b_encode_grad = result(call, {N, H}, g.b_encode);
  const Tensor w_hidden_grad = result(call, {N, H, H}, g.w_hidden), b_hidden_grad = result(call, {N, H}, g.b_hidden);
  const Tensor w_head_grad = result(call, {N, H, p.outputs()}, g.w_head),
               b_head_grad = result(call, {N, p.outputs()}, g.b_head);
  dispatch_wide(call.arguments.wide, [&](auto type) { Device(obs).template backward<decltype(type)>(p, g); });
  return {state_grad, obs_grad, w_encode_grad, b_encode_grad, w_hidden_grad, b_hidden_grad, w_head_grad, b_head_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("ensemble_critic", TORCH_BOX(&ensemble_critic<Device>));
  m.impl("ensemble_critic_backward", TORCH_BOX(&ensemble_critic_backward<Device>));
}

}  // namespace emix::critic
