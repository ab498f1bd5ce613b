// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "policy/floor.h"
#include "sampling/sampling.h"

namespace emix::sampling {

struct Call {
  Arguments arguments;
  Problem problem;
  std::vector<int64_t> shape;  // of the result

  // samples 0: one draw a row, else so many.
  Call(const Tensor& logits, const OptionalTensor& avail, const Tensor& seed, double floor,
       const OptionalTensor& floor_tensor, int64_t samples)
      : arguments{{"logits", logits}} {
    if (samples < 0) fail("`samples` must be at least 1, got ", samples);
    const auto sizes = logits.sizes();
    if (sizes.size() < 1 || sizes.back() < 1 || sizes.back() > kMaxActions)
      fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions, got ", shape_of(sizes));
    if (sizes.size() > kMaxDims - 1) fail("`logits` may have ", kMaxDims - 1, " axes at most, got ", sizes.size());
    problem.logits = arguments.view<2>(arguments.floating("logits", logits, sizes));
    problem.rows = problem.logits.size[0];
    problem.actions = static_cast<int>(sizes.back());
    problem.draws = samples > 0 ? samples : 1;
    problem.floor = policy::floor_source(floor, floor_tensor, problem.actions, arguments);
    problem.avail = arguments.view<2>(arguments.mask("avail", avail, sizes, " like `logits`"));
    problem.seed = arguments.seed("seed", seed);
    if (samples > 0) shape.push_back(samples);
    shape.insert(shape.end(), sizes.begin(), sizes.end() - 1);
  }
};

}  // namespace emix::sampling
