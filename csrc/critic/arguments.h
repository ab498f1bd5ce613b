// From tensors to a Critic, with the checks.
#pragma once
#include "argument_reader.h"
#include "critic/critic.h"
#include "rows.h"

namespace emix::critic {

struct Parameters {
  const Tensor &w_in, &b_in, &w_hidden, &b_hidden, &w_head, &b_head;
};

struct Call {
  Arguments arguments;
  Critic p;
  std::vector<int64_t> leading;  // the axes that are R

  Call(const Tensor& state, const Tensor& obs, const Parameters& w) : arguments("obs", obs) {
    const std::pair<const char*, const Tensor&> given[] = {
        {"state", state},         {"obs", obs},         {"w_in", w.w_in},    {"b_in", w.b_in}, {"w_hidden", w.w_hidden},
        {"b_hidden", w.b_hidden}, {"w_head", w.w_head}, {"b_head", w.b_head}};
    for (const auto& [name, tensor] : given) arguments.note(name, tensor);
    read_inputs(state, obs);
    read_weights(w);
  }

  std::vector<int64_t> shape(bool with_members, std::initializer_list<int64_t> last) const {
    std::vector<int64_t> result;
    if (with_members) result.push_back(p.members);
    result.insert(result.end(), leading.begin(), leading.end());
    result.insert(result.end(), last);
    return result;
  }

 private:
  void read_inputs(const Tensor& state, const Tensor& obs) {
    const auto sizes = obs.sizes();
    if (sizes.size() < 2 || sizes.size() >= kMaxDims)
      fail("`obs` must have shape [..., n, O] with up to ", kMaxDims - 1, " axes, got ",
           shape_text(sizes.data(), sizes.size()));
    leading.assign(sizes.begin(), sizes.end() - 2);
    p.agents = sizes[sizes.size() - 2], p.features = sizes[sizes.size() - 1];
    p.states = state.sizes().size() > 0 ? state.sizes()[state.sizes().size() - 1] : 0;
    check_shape("state", state, shape(false, {p.states}), " because `obs` has shape ",
                shape_text(sizes.data(), sizes.size()));
    const Rows states = rows_of(arguments.strided(state), 1), rows = rows_of(arguments.strided(obs), 2);
    arguments.keep(states.tensor), arguments.keep(rows.tensor);
    p.steps = rows.rows;
    p.state = states.data, p.state_step = states.row_stride;
    p.obs = rows.data, p.obs_step = rows.row_stride, p.obs_agent = rows.stride[0];
  }

  void read_weights(const Parameters& w) {
    const auto hidden = w.w_hidden.sizes(), head = w.w_head.sizes();
    if (hidden.size() != 3 || hidden[1] != hidden[2] || hidden[0] < 1 || hidden[1] < 1)
      fail("`w_hidden` must have shape [N, H, H] with N and H at least 1, got ",
           shape_text(hidden.data(), hidden.size()));
    if (head.size() != 3 || head[2] < 1)
      fail("`w_head` must have shape [N, H, A + 1], got ", shape_text(head.data(), head.size()));
    const int64_t N = p.members = hidden[0], H = p.hidden = hidden[1];
    p.actions = head[2] - 1;
    std::ostringstream why;
    why << " because N = " << N << ", S = " << p.states << ", O = " << p.features << ", n = " << p.agents
        << ", H = " << H << " and A = " << p.actions;
    arguments.because(why.str());
    p.w_in = arguments.read("w_in", w.w_in, {N, p.inputs(), H});
    p.b_in = arguments.read("b_in", w.b_in, {N, H});
    p.w_hidden = arguments.read("w_hidden", w.w_hidden, {N, H, H});
    p.b_hidden = arguments.read("b_hidden", w.b_hidden, {N, H});
    p.w_head = arguments.read("w_head", w.w_head, {N, H, p.outputs()});
    p.b_head = arguments.read("b_head", w.b_head, {N, p.outputs()});
  }
};

}  // namespace emix::critic
