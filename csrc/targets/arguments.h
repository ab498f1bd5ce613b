// From tensors to a Joint, with the checks that both devices share.
#pragma once
#include <limits>

#include "call_arguments.h"
#include "targets/targets.h"

namespace emix::targets {

// q [B, T + 1, n, A] or [N, B, T + 1, n, A], pi [B, T + 1, n, A], actions and weight [B, T + 1, n], bias [B, T + 1],
// valid [B, T]
class Call {
 public:
  Arguments arguments;
  Joint problem;
  std::vector<int64_t> shape;  // of the results, [B, T + 1]

  Call(const Tensor& q, const OptionalTensor& pi, const Tensor& actions, const Tensor& weight,
       const OptionalTensor& bias, const OptionalTensor& valid, std::optional<double> uncertainty_scale)
      : arguments{{"q", q}, {"pi", pi}, {"weight", weight}, {"bias", bias}} {
    const auto sizes = q.sizes();
    const size_t member_axes = check_values(sizes);
    if (uncertainty_scale && member_axes == 0)
      fail("`uncertainty_scale` must be None where `q` has no members, got ", *uncertainty_scale);
    const std::vector<int64_t> values(sizes.begin() + member_axes, sizes.end());
    const std::vector<int64_t> agents(values.begin(), values.end() - 1);
    shape.assign(agents.begin(), agents.end() - 1);
    Joint& p = problem;
    p.rows = values[0] * values[1], p.entries = Divider<int64_t>(values[1]);
    p.agents = values[2], p.actions = values[3];
    p.members = member_axes > 0 ? static_cast<int>(sizes[0]) : 1;
    p.uncertain = uncertainty_scale.has_value(), p.scale = uncertainty_scale.value_or(0);
    p.q = arguments.rows(arguments.floating("q", q, sizes), member_axes + 2, member_axes);
    p.pi = read("pi", pi, values), p.weight = read("weight", weight, agents), p.bias = read("bias", bias, shape);
    p.taken =
        arguments.rows(arguments.indices("actions", actions, agents, " because `q` has shape ", shape_of(sizes)), 2);
    p.valid = arguments.view<2>(arguments.mask("valid", valid, std::vector<int64_t>{values[0], values[1] - 1},
                                               ", which `q` has an entry more than"));
  }

 private:
  // The number of axes before those of the entries.
  template <class Sizes>
  static size_t check_values(const Sizes& sizes) {
    if (sizes.size() != 4 && sizes.size() != 5)
      fail("`q` must have shape [B, T + 1, n, A] or [N, B, T + 1, n, A], got ", shape_of(sizes));
    const size_t member_axes = sizes.size() - 4;
    if (member_axes > 0 && (sizes[0] < 1 || sizes[0] > ensemble::kMaxMembers))
      fail("`q` must have 1 to ", ensemble::kMaxMembers, " members on its first axis, got shape ", shape_of(sizes));
    if (sizes[member_axes + 1] < 1) fail("`q` must have the entry after the last step, got shape ", shape_of(sizes));
    if (sizes[member_axes + 3] < 1 ||
        sizes[member_axes + 2] * sizes[member_axes + 3] > std::numeric_limits<int32_t>::max())
      fail("`q` must have an action at least on its last axis, and fewer than 2^31 on the last two, got shape ",
           shape_of(sizes));
    return member_axes;
  }

  RowView read(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& expected) {
    const auto sizes = arguments.first().sizes();
    return arguments.rows(arguments.floating(name, tensor, expected, " because `q` has shape ", shape_of(sizes)), 2);
  }
};

}  // namespace emix::targets
