// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "policy/floor.h"

namespace emix::policy {

// logits [..., A], and for the terms action [...] and value [..., A].
class Call {
 public:
  Arguments arguments;
  Problem problem;

  Call(const Tensor& logits, const OptionalTensor& avail, const OptionalTensor& value, double floor,
       const OptionalTensor& floor_tensor)
      : arguments{{"logits", logits}, {"value", value}} {
    const auto sizes = logits.sizes();
    if (sizes.size() < 1 || sizes.back() < 1 || sizes.back() > kMaxActions || sizes.size() > kMaxDims)
      fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions and ", kMaxDims,
           " axes at most, got ", shape_of(sizes));
    shape_.assign(sizes.begin(), sizes.end());
    rows_shape_.assign(sizes.begin(), sizes.end() - 1);
    problem.actions = static_cast<int>(sizes.back());
    problem.floor = floor_source(floor, floor_tensor, problem.actions, arguments);
    problem.logits = arguments.view<2>(arguments.floating("logits", logits, shape_));
    problem.value = arguments.view<2>(arguments.floating("value", value, shape_, " like `logits`"));
    problem.avail = arguments.view<2>(arguments.mask("avail", avail, shape_, " like `logits`"));
    problem.rows = problem.logits.size[0];
  }

  Call(const Tensor& logits, const Tensor& action, const OptionalTensor& avail, const OptionalTensor& value,
       double floor, const OptionalTensor& floor_tensor)
      : Call(logits, avail, value, floor, floor_tensor) {
    problem.action =
        arguments.view<1>(arguments.indices("action", action, rows_shape_, ", that of `logits` without its last axis"));
  }

  const std::vector<int64_t>& shape() const { return shape_; }            // [..., A]
  const std::vector<int64_t>& rows_shape() const { return rows_shape_; }  // [...]

  // What arrives at the policy, or at one of the terms.
  View<2> policy_grad(const Tensor& grad) { return arguments.view<2>(arguments.upstream("grad", grad, shape_)); }
  View<1> term_grad(const char* name, const OptionalTensor& grad) {
    return arguments.view<1>(arguments.upstream(name, grad, rows_shape_));
  }

 private:
  std::vector<int64_t> shape_, rows_shape_;
};

}  // namespace emix::policy
