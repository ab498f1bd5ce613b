// Checks that the ops share; what they throw names the argument, what was expected and what came.
#pragma once
#include <algorithm>

#include "torch.h"

namespace emix {

inline void check_real(const char* name, const Tensor& tensor) {
  if (!tensor.defined()) fail("`", name, "` must be a tensor, got None");
  const ScalarType type = tensor.scalar_type();
  if (type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble || type == ScalarType::ComplexHalf)
    fail("`", name, "` must be real, got a complex tensor");
}

inline void check_floating(const char* name, const Tensor& tensor) {
  check_real(name, tensor);
  if (!is_floating(tensor.scalar_type()))
    fail("`", name, "` must be a float16, bfloat16, float32 or float64 tensor, got an integer or bool one");
}

inline void check_device(const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) {
  if (tensor.is_cpu() != like.is_cpu() || (!like.is_cpu() && tensor.get_device_index() != like.get_device_index()))
    fail("`", name, "` must be on ", device_text(like), " like `", like_name, "`, got ", device_text(tensor));
}

// `why` ends the sentence about the shape, as in "because `q` has 3 actions".
template <class Expected, class... Why>
void check_shape(const char* name, const Tensor& tensor, const Expected& expected, const Why&... why) {
  const auto sizes = tensor.sizes();
  if (sizes.size() != expected.size() || !std::equal(sizes.begin(), sizes.end(), expected.begin()))
    fail("`", name, "` must have shape ", shape_of(expected), why..., ", got ", shape_of(sizes));
}

}  // namespace emix
