// From tensors to pointers, with the checks, for ops whose inputs are all computed as one element type.
#pragma once
#include <deque>

#include "checks.h"

namespace emix {

// Reads the inputs of one call as one element type: float64 where one is float64, else float32.
class Arguments {
 public:
  ScalarType type = ScalarType::Float;

  explicit Arguments(const char* name, const Tensor& x) : name_(name), x_(x) {}

  void note(const char* name, const OptionalTensor& tensor) {
    if (!tensor) return;
    check_floating(name, *tensor);
    check_device(name, *tensor, name_, x_);
    if (tensor->scalar_type() == ScalarType::Double) type = ScalarType::Double;
  }

  // Contiguous, of that shape; nullptr where not given.
  const void* read(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape) {
    if (!tensor) return nullptr;
    check_shape(name, *tensor, shape, why_);
    return keep(torch::stable::contiguous(converted(*tensor))).const_data_ptr();
  }

  // Any strides but along the last axis.
  const Tensor& strided(const Tensor& tensor) {
    const Tensor wide = converted(tensor);
    const size_t last = wide.sizes().size() - 1;
    return keep(wide.sizes()[last] > 1 && wide.strides()[last] != 1 ? torch::stable::contiguous(wide) : wide);
  }

  const int64_t* integers(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
    check_real(name, tensor);
    if (is_floating(tensor.scalar_type())) fail("`", name, "` must be an integer tensor, got a floating one");
    check_device(name, tensor, name_, x_);
    check_shape(name, tensor, std::vector<int64_t>(shape), why_);
    const Tensor wide = tensor.scalar_type() == ScalarType::Long ? tensor : torch::stable::to(tensor, ScalarType::Long);
    return static_cast<const int64_t*>(keep(torch::stable::contiguous(wide)).const_data_ptr());
  }

  // f(T()) for the element type T.
  template <class F>
  void dispatch(const F& f) const {
    type == ScalarType::Double ? f(double()) : f(float());
  }

  void because(const std::string& why) { why_ = why; }
  const Tensor& keep(const Tensor& tensor) { return kept_.emplace_back(tensor); }
  Tensor fresh(const std::vector<int64_t>& shape) const { return empty(shape, type, x_); }
  const Tensor& x() const { return x_; }

 private:
  Tensor converted(const Tensor& tensor) const {
    return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  }

  const char* name_;
  const Tensor& x_;
  std::string why_;
  std::deque<Tensor> kept_;  // the data that is read
};

}  // namespace emix
