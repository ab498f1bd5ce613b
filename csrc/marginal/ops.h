// The ops: schemas, then each for either device, from the inputs to a problem and from there to the results. `Device`
// runs the loops.
#pragma once
#include <tuple>

#include "marginal/arguments.h"

namespace emix::marginal {

// PERLA's critic over K joint actions: first [..., n, H] and actions [K, ..., n] or [K, ..., n, D] -> [..., n].
inline void define_ops(Library& m) {
  m.def(
      "marginal_value(Tensor first, Tensor actions, Tensor w_action, Tensor w_hidden, Tensor b_hidden, Tensor w_head, "
      "Tensor b_head) -> Tensor");
  m.def(
      "marginal_value_backward(Tensor grad, Tensor first, Tensor actions, Tensor w_action, Tensor w_hidden, Tensor "
      "b_hidden, Tensor w_head, Tensor b_head, bool first_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

template <class Device>
Tensor marginal_value(const Tensor& first, const Tensor& actions, const Tensor& w_action, const Tensor& w_hidden,
                      const Tensor& b_hidden, const Tensor& w_head, const Tensor& b_head) {
  const Device device(first);
  const Call call({first, actions, w_action, w_hidden, b_hidden, w_head, b_head});
  void* data = nullptr;
  const Tensor value = call.arguments.fresh(call.shape, call.arguments.wide, data);
  dispatch_wide(call.arguments.wide, [&](auto type) {
    using F = decltype(type);
    device.forward(call.p, static_cast<F*>(data), first);
  });
  return value;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> marginal_value_backward(
    const Tensor& grad, const Tensor& first, const Tensor& actions, const Tensor& w_action, const Tensor& w_hidden,
    const Tensor& b_hidden, const Tensor& w_head, const Tensor& b_head, bool first_wanted) {
  const Device device(first);
  Call call({first, actions, w_action, w_hidden, b_hidden, w_head, b_head});
  const Problem& p = call.p;
  Gradients g;
  g.value = call.arguments.contiguous(call.arguments.upstream("grad", grad, call.shape, " like the value"));
  std::vector<int64_t> first_shape = call.shape;
  first_shape.push_back(p.hidden);
  const auto fresh = [&](const std::vector<int64_t>& shape, void*& data, bool wanted = true) {
    return call.arguments.fresh(shape, call.arguments.wide, data, wanted);
  };
  const Tensor first_grad = fresh(first_shape, g.first, first_wanted);
  const Tensor w_action_grad = fresh({p.agents, p.choices, p.hidden}, g.w_action);
  const Tensor w_hidden_grad = fresh({p.hidden, p.outputs}, g.w_hidden), b_hidden_grad = fresh({p.outputs}, g.b_hidden);
  const Tensor w_head_grad = fresh({p.outputs}, g.w_head), b_head_grad = fresh({}, g.b_head);
  dispatch_wide(call.arguments.wide, [&](auto type) { device.backward(type, p, g, first); });
  return {first_grad, w_action_grad, w_hidden_grad, b_hidden_grad, w_head_grad, b_head_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("marginal_value", TORCH_BOX(&marginal_value<Device>));
  m.impl("marginal_value_backward", TORCH_BOX(&marginal_value_backward<Device>));
}

}  // namespace emix::marginal
