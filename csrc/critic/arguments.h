// From tensors to a Critic, with the checks.
#pragma once
#include "call_arguments.h"
#include "critic/critic.h"

namespace emix::critic {

struct Parameters {
  const Tensor &w_encode, &b_encode, &w_hidden, &b_hidden, &w_head, &b_head;
};

class Call {
 public:
  Arguments arguments;
  Critic p;

  Call(const Tensor& state, const Tensor& obs, const Parameters& w, const OptionalTensor& actions)
      : arguments{{"obs", obs},
                  {"state", state},
                  {"w_encode", w.w_encode},
                  {"b_encode", w.b_encode},
                  {"w_hidden", w.w_hidden},
                  {"b_hidden", w.b_hidden},
                  {"w_head", w.w_head},
                  {"b_head", w.b_head}} {
    arguments.widen();
    read_inputs(state, obs);
    read_weights(w);
    p.action = arguments.contiguous_integers(
        arguments.indices("actions", actions, shape({p.agents}), ", that of `obs` without its last axis"));
  }

  // [..., last], or of each member [N, ..., last]; ... are the axes that are R.
  std::vector<int64_t> shape(std::initializer_list<int64_t> last) const {
    std::vector<int64_t> result = leading_;
    result.insert(result.end(), last);
    return result;
  }
  std::vector<int64_t> member_shape(std::initializer_list<int64_t> last) const {
    std::vector<int64_t> result = shape(last);
    result.insert(result.begin(), p.members);
    return result;
  }
  std::vector<int64_t> q_shape() const {
    return p.action ? member_shape({p.agents}) : member_shape({p.agents, p.actions});
  }

  // What the backward pass gets beside the inputs: a gradient and what the forward pass has saved.
  const void* read_back(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
    return arguments.contiguous(arguments.upstream(name, tensor, shape, " like the forward pass's"));
  }

 private:
  std::vector<int64_t> leading_;

  void read_inputs(const Tensor& state, const Tensor& obs) {
    const auto sizes = obs.sizes();
    if (sizes.size() < 2 || sizes.size() >= kMaxDims)
      fail("`obs` must have shape [..., n, O] with up to ", kMaxDims - 1, " axes, got ", shape_of(sizes));
    leading_.assign(sizes.begin(), sizes.end() - 2);
    p.agents = sizes[sizes.size() - 2], p.features = sizes[sizes.size() - 1];
    p.states = state.dim() > 0 ? state.sizes().back() : 0;
    p.obs = arguments.dense_view<3>(arguments.floating("obs", obs, sizes));
    p.state = arguments.dense_view<2>(
        arguments.floating("state", state, shape({p.states}), " because `obs` has shape ", shape_of(sizes)));
    p.steps = p.obs.size[0];
  }

  void read_weights(const Parameters& w) {
    const auto hidden = w.w_hidden.sizes(), head = w.w_head.sizes();
    if (hidden.size() != 3 || hidden[1] != hidden[2] || hidden[0] < 1 || hidden[1] < 1)
      fail("`w_hidden` must have shape [N, H, H] with N and H at least 1, got ", shape_of(hidden));
    if (head.size() != 3 || head[2] < 1) fail("`w_head` must have shape [N, H, A + 1], got ", shape_of(head));
    const int64_t N = p.members = hidden[0], H = p.hidden = hidden[1];
    p.actions = head[2] - 1;
    p.w_encode = read("w_encode", w.w_encode, {N, p.inputs(), H});
    p.b_encode = read("b_encode", w.b_encode, {N, H});
    p.w_hidden = read("w_hidden", w.w_hidden, {N, H, H});
    p.b_hidden = read("b_hidden", w.b_hidden, {N, H});
    p.w_head = read("w_head", w.w_head, {N, H, p.outputs()});
    p.b_head = read("b_head", w.b_head, {N, p.outputs()});
  }

  const void* read(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
    return arguments.contiguous(arguments.floating(name, tensor, shape, " because N = ", p.members, ", S = ", p.states,
                                                   ", O = ", p.features, ", n = ", p.agents, ", H = ", p.hidden,
                                                   " and A = ", p.actions));
  }
};

}  // namespace emix::critic
