// From tensors to a Problem, with the checks.
#pragma once
#include "call_arguments.h"
#include "marginal/marginal.h"

namespace emix::marginal {

struct Inputs {
  const Tensor &first, &actions, &w_action, &w_hidden, &b_hidden, &w_head, &b_head;
};

class Call {
 public:
  Arguments arguments;
  Problem p;
  std::vector<int64_t> shape;  // of the values, [..., n]

  explicit Call(const Inputs& in)
      : arguments{{"first", in.first},
                  {"w_action", in.w_action},
                  {"w_hidden", in.w_hidden},
                  {"b_hidden", in.b_hidden},
                  {"w_head", in.w_head},
                  {"b_head", in.b_head},
                  {"actions", numbers(in.actions)}} {
    arguments.widen();
    p.continuous = is_floating(in.actions.scalar_type());
    read_sizes(in);
    const int64_t n = p.agents, H = p.hidden, H2 = p.outputs;
    p.first = arguments.contiguous(arguments.floating("first", in.first, in.first.sizes()));
    read_actions(in.actions);
    p.w_action = read("w_action", in.w_action, {n, p.choices, H});
    p.w_hidden = read("w_hidden", in.w_hidden, {H, H2});
    p.b_hidden = read("b_hidden", in.b_hidden, {H2});
    p.w_head = read("w_head", in.w_head, {H2});
    p.b_head = read("b_head", in.b_head, {});
  }

 private:
  static OptionalTensor numbers(const Tensor& actions) {
    return is_floating(actions.scalar_type()) ? OptionalTensor(actions) : OptionalTensor();
  }

  void read_sizes(const Inputs& in) {
    const auto first = in.first.sizes(), w_action = in.w_action.sizes(), w_hidden = in.w_hidden.sizes();
    if (first.size() < 2 || first.size() >= kMaxDims || first.back() < 1)
      fail("`first` must have shape [..., n, H] with up to ", kMaxDims - 1, " axes and H at least 1, got ",
           shape_of(first));
    if (w_action.size() != 3 || (w_action[1] < 1 && !p.continuous))
      fail("`w_action` must have shape [n, A, H] with A at least 1, or [n, D, H] for actions of D numbers, got ",
           shape_of(w_action));
    if (w_hidden.size() != 2) fail("`w_hidden` must have shape [H, H2], got ", shape_of(w_hidden));
    shape.assign(first.begin(), first.end() - 1);
    p.states = 1;
    for (size_t axis = 0; axis + 2 < first.size(); ++axis) p.states *= first[axis];
    p.agents = shape.back(), p.hidden = first.back();
    p.choices = w_action[1], p.outputs = w_hidden[1];
  }

  // [K, ..., n], and with numbers [K, ..., n, D].
  void read_actions(const Tensor& actions) {
    p.samples = actions.dim() > 0 ? actions.sizes()[0] : 0;
    std::vector<int64_t> expected = shape;
    expected.insert(expected.begin(), p.samples);
    if (p.continuous) expected.push_back(p.choices);
    const ShapeText first = shape_of(arguments.first().sizes());
    if (p.continuous) {
      p.actions = arguments.contiguous(arguments.floating("actions", actions, expected, " because `first` has shape ",
                                                          first, " and `w_action` ", p.choices, " rows an agent"));
    } else {
      const OptionalTensor indices =
          arguments.indices("actions", actions, expected, " because `first` has shape ", first);
      const bool bytes = actions.scalar_type() == ScalarType::Byte;
      p.index_bytes = bytes ? 1 : 8;
      p.actions = bytes ? arguments.contiguous(indices) : arguments.contiguous_integers(indices);
    }
    if (p.samples < 1) fail("`actions` must hold at least one joint action, got K = 0");
  }

  const void* read(const char* name, const Tensor& tensor, const std::vector<int64_t>& of) {
    return arguments.contiguous(arguments.floating(name, tensor, of, " because `first` has n = ", p.agents,
                                                   " agents and H = ", p.hidden,
                                                   ", and `w_hidden` has H2 = ", p.outputs));
  }
};

}  // namespace emix::marginal
