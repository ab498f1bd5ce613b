// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "gaussian/gaussian.h"

namespace emix::gaussian {

struct Call {
  Arguments arguments;
  Problem p;
  std::vector<int64_t> shape;  // [..., D]

  Call(const Tensor& mean, const Tensor& log_std, const OptionalTensor& action)
      : arguments{{"mean", mean}, {"log_std", log_std}, {"action", action}} {
    arguments.widen();
    const auto sizes = mean.sizes();
    if (sizes.size() < 1 || sizes.size() > kMaxDims)
      fail("`mean` must have shape [..., D] with up to ", kMaxDims, " axes, got ", shape_of(sizes));
    shape.assign(sizes.begin(), sizes.end());
    p.numbers = shape.back(), p.rows = 1;
    for (size_t axis = 0; axis + 1 < shape.size(); ++axis) p.rows *= shape[axis];
    const auto read = [&](const char* name, const OptionalTensor& tensor) {
      return tensor ? arguments.dense_view<2>(arguments.floating(name, tensor, shape, " like `mean`")) : View<2>();
    };
    p.mean = read("mean", mean), p.log_std = read("log_std", log_std), p.action = read("action", action);
  }

  std::vector<int64_t> row_shape() const { return {shape.begin(), shape.end() - 1}; }

  const void* upstream(const char* name, const OptionalTensor& grad, const std::vector<int64_t>& of) {
    return arguments.contiguous(arguments.upstream(name, grad, of));
  }
};

}  // namespace emix::gaussian
