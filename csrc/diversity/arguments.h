// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "diversity/diversity.h"

namespace emix::diversity {

// q [N, ..., A], avail [..., A]
struct Call {
  Arguments arguments;
  Problem problem;
  std::vector<int64_t> shape;  // of the distances, [...]

  Call(const Tensor& q, const OptionalTensor& avail) : arguments{{"q", q}} {
    const auto sizes = q.sizes();
    if (sizes.size() < 2 || sizes[0] < 1 || sizes[0] > kMaxMembers || sizes.back() < 1 || sizes.back() > kMaxActions)
      fail("`q` must have shape [N, ..., A] with 1 to ", kMaxMembers, " members N and 1 to ", kMaxActions,
           " actions A, got ", shape_of(sizes));
    shape.assign(sizes.begin() + 1, sizes.end());
    problem.q = arguments.view<3>(arguments.floating("q", q, sizes), 1);
    problem.avail = arguments.view<2>(arguments.mask("avail", avail, shape, " like a member of `q`"));
    problem.members = static_cast<int>(sizes[0]), problem.actions = static_cast<int>(sizes.back());
    problem.rows = problem.q.size[1];
    shape.pop_back();
  }

  Call(const Tensor& grad, const Tensor& q, const OptionalTensor& avail, bool detach_mean) : Call(q, avail) {
    problem.grad = arguments.view<1>(arguments.upstream("grad", grad, shape));
    problem.detach_mean = detach_mean;
  }
};

}  // namespace emix::diversity
