// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include <algorithm>

#include "call_arguments.h"
#include "returns/returns.h"

namespace emix::returns {

// The inputs [B, T] or [B, T + 1], each with all the trailing axes that there are, with size 1 in place of some, or
// without any.
class Call {
 public:
  Arguments arguments;
  Problem problem;

  Call(const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v, double gamma, double lam,
       const OptionalTensor& trace, const OptionalTensor& truncated, const OptionalTensor& valid, int64_t horizon,
       bool clip, bool advantage)
      : arguments{{"reward", reward}, {"q", q}, {"v", v}, {"trace", trace}} {
    if (!(gamma >= 0 && gamma <= 1)) fail("`gamma` must lie in [0, 1], got ", gamma);
    if (!(lam >= 0 && lam <= 1)) fail("`lam` must lie in [0, 1], got ", lam);
    if (horizon < 0) fail("`horizon` must be at least 1");
    const auto sizes = reward.sizes();
    if (sizes.size() < 2) fail("`reward` must have shape [B, T] or [B, T, ...], got ", shape_of(sizes));
    shape_ = {sizes[0], sizes[1]};
    problem.steps = sizes[1];
    problem.horizon = horizon >= problem.steps ? 0 : horizon;
    problem.gamma = gamma, problem.lam = lam, problem.clip = clip, problem.advantage = advantage;
    problem.reward = series(floating("reward", reward, false));
    problem.terminated = series(mask("terminated", terminated));
    problem.q = series(floating("q", q, true));
    problem.v = series(floating("v", v, true));
    problem.trace = series(floating("trace", trace, true));
    problem.truncated = series(mask("truncated", truncated));
    problem.valid = series(mask("valid", valid));
    count_rows();
  }

  const std::vector<int64_t>& shape() const { return shape_; }  // [B, T, trailing axes]

  // A fresh [B, T, trailing axes], or with the entry after the last, of the computed type.
  Tensor fresh(bool next) const {
    std::vector<int64_t> shape = shape_;
    shape[1] += next;
    return empty(shape, arguments.wide, arguments.first());
  }

  // Of such a tensor.
  Series output(const Tensor& fresh) const {
    Series view = series_of(fresh);
    view.data = fresh.mutable_data_ptr();
    return view;
  }

  Series upstream(const Tensor& grad) { return series(arguments.upstream("grad", grad, shape_, " like the result")); }

 private:
  std::vector<int64_t> shape_;

  OptionalTensor floating(const char* name, const OptionalTensor& tensor, bool next) {
    if (!tensor) return {};
    merge_shape(name, *tensor, next);
    return arguments.floating(name, tensor, tensor->sizes());
  }

  OptionalTensor mask(const char* name, const OptionalTensor& tensor) {
    if (!tensor) return {};
    check_real(name, *tensor);
    merge_shape(name, *tensor, false);
    return arguments.mask(name, tensor, tensor->sizes());
  }

  void merge_shape(const char* name, const Tensor& tensor, bool next) {
    const auto sizes = tensor.sizes();
    const int64_t dims = tensor.dim(), steps = shape_[1] + next;
    if (dims < 2 || sizes[0] != shape_[0] || sizes[1] != steps)
      fail("`", name, "` must have shape [", shape_[0], ", ", steps, "] or [", shape_[0], ", ", steps,
           ", ...] because `reward` has ", shape_[0], " episodes of ", shape_[1], " steps",
           next ? " and this one also has the entry after the last" : "", ", got ", shape_of(sizes));
    if (dims > kMaxRowAxes + 1)
      fail("`", name, "` may have ", kMaxRowAxes - 1, " trailing axes at most, got ", dims - 2);
    if (dims == 2) return;
    if (shape_.size() == 2) shape_.insert(shape_.end(), sizes.begin() + 2, sizes.end());
    bool fits = static_cast<int64_t>(shape_.size()) == dims;
    for (int64_t i = 2; fits && i < dims; ++i) {
      if (shape_[i] == 1) shape_[i] = sizes[i];
      fits = sizes[i] == shape_[i] || sizes[i] == 1;
    }
    if (!fits)
      fail("`", name, "` must have the trailing axes ", ShapeText{shape_.data() + 2, shape_.size() - 2},
           " of the inputs before it, or none, got ", shape_of(sizes));
  }

  static Series series_of(const Tensor& tensor) {
    const auto sizes = tensor.sizes(), strides = tensor.strides();
    Series view;
    view.data = data_of(tensor);
    view.itemsize = static_cast<int>(tensor.element_size());
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      view.size[axis] = sizes[axis];
      view.stride[axis] = axis > kTime && sizes[axis] == 1 ? 0 : strides[axis];
    }
    return view;
  }

  Series series(const OptionalTensor& tensor) { return tensor ? series_of(arguments.keep(*tensor)) : Series(); }

  // A row is an index on each axis but that of time.
  void count_rows() {
    problem.row_axes = static_cast<int>(shape_.size()) - 1;
    problem.rows = shape_[0];
    for (int axis = 1; axis < problem.row_axes; ++axis) {
      problem.rows *= shape_[axis + 1];
      problem.row_size[axis] = Divider<int64_t>(std::max<int64_t>(1, shape_[axis + 1]));
    }
  }
};

}  // namespace emix::returns
