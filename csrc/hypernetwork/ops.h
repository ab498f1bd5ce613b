// The ops: schemas, then each from the inputs to a Hypernetwork and from there to results. `Device` runs the loops;
// there are those of the CPU alone, for a GPU has cuBLAS.
#pragma once
#include <tuple>

#include "hypernetwork/arguments.h"

namespace emix::hypernetwork {

// State [..., S] -> w1 [N, ..., n, E], b1 [N, ..., E], w2 [N, ..., E, m], v [N, ..., m], and what the backward pass
// reads (save).
inline void define_ops(Library& m) {
  m.def(
      "monotonic_weights(Tensor state, Tensor w_first, Tensor b_first, Tensor w_v, Tensor b_v, Tensor? w_w1=None, "
      "Tensor? b_w1=None, Tensor? w_w2=None, Tensor? b_w2=None, bool save=False) -> (Tensor, Tensor, Tensor, Tensor, "
      "Tensor)");
  m.def(
      "monotonic_weights_backward(Tensor? w1_grad, Tensor? b1_grad, Tensor? w2_grad, Tensor? v_grad, Tensor state, "
      "Tensor w_first, Tensor b_first, Tensor w_v, Tensor b_v, Tensor? w_w1, Tensor? b_w1, Tensor? w_w2, "
      "Tensor? b_w2, Tensor saved, bool state_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor)");
}

// A fresh result and where it is written.
inline Tensor result(const Call& call, const std::vector<int64_t>& shape, void*& data, bool wanted = true) {
  return call.arguments.fresh(shape, call.arguments.wide, data, wanted);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> monotonic_weights(const Tensor& state, const Tensor& w_first,
                                                                     const Tensor& b_first, const Tensor& w_v,
                                                                     const Tensor& b_v, const OptionalTensor& w_w1,
                                                                     const OptionalTensor& b_w1,
                                                                     const OptionalTensor& w_w2,
                                                                     const OptionalTensor& b_w2, bool save) {
  const Call call(state, {w_first, b_first, w_v, b_v, w_w1, b_w1, w_w2, b_w2});
  const Hypernetwork& p = call.p;
  Results r;
  const auto head = [&](int k) { return result(call, call.shape_of_head(k), r.head[k]); };
  const Tensor w1 = head(kW1), b1 = head(kB1), w2 = head(kW2), v = head(kV);
  const Tensor saved = result(call, {save ? p.members : 0, p.rows, p.hidden()}, r.saved);
  if (!save) r.saved = nullptr;
  dispatch_wide(call.arguments.wide, [&](auto type) { Device(state).template forward<decltype(type)>(p, r); });
  return {w1, b1, w2, v, saved};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> monotonic_weights_backward(
    const OptionalTensor& w1_grad, const OptionalTensor& b1_grad, const OptionalTensor& w2_grad,
    const OptionalTensor& v_grad, const Tensor& state, const Tensor& w_first, const Tensor& b_first, const Tensor& w_v,
    const Tensor& b_v, const OptionalTensor& w_w1, const OptionalTensor& b_w1, const OptionalTensor& w_w2,
    const OptionalTensor& b_w2, const Tensor& saved, bool state_wanted) {
  Call call(state, {w_first, b_first, w_v, b_v, w_w1, b_w1, w_w2, b_w2});
  const Hypernetwork& p = call.p;
  Gradients g;
  g.head[kB1] = call.read_back("b1_grad", b1_grad, call.shape_of_head(kB1));
  g.head[kV] = call.read_back("v_grad", v_grad, call.shape_of_head(kV));
  g.head[kW1] = call.read_back("w1_grad", w1_grad, call.shape_of_head(kW1));
  g.head[kW2] = call.read_back("w2_grad", w2_grad, call.shape_of_head(kW2));
  g.saved = call.read_back("saved", saved, {p.members, p.rows, p.hidden()});
  const Tensor state_parts = result(call, call.shape({p.states}), g.state_parts, state_wanted);
  const Tensor state_grad = result(call, call.state_shape(), g.state, state_wanted);
  const Tensor w_first_grad = result(call, {p.members, p.columns, p.states}, g.w_first);
  const Tensor b_first_grad = result(call, {p.members, p.columns}, g.b_first);
  const auto weight = [&](int k) { return result(call, call.shape_of_weight(k), g.weight[k], p.heads[k].hidden()); };
  const auto bias = [&](int k) { return result(call, {p.members, p.heads[k].size}, g.bias[k], p.heads[k].hidden()); };
  const Tensor w_v_grad = weight(kV), b_v_grad = bias(kV), w_w1_grad = weight(kW1), b_w1_grad = bias(kW1);
  const Tensor w_w2_grad = weight(kW2), b_w2_grad = bias(kW2);
  dispatch_wide(call.arguments.wide, [&](auto type) { Device(state).template backward<decltype(type)>(p, g); });
  return {state_grad, w_first_grad, b_first_grad, w_v_grad, b_v_grad, w_w1_grad, b_w1_grad, w_w2_grad, b_w2_grad};
}

template <class Device>
void register_ops(Library& m) {
  m.impl("monotonic_weights", TORCH_BOX(&monotonic_weights<Device>));
  m.impl("monotonic_weights_backward", TORCH_BOX(&monotonic_weights_backward<Device>));
}

}  // namespace emix::hypernetwork
