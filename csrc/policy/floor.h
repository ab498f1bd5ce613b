// From the arguments of an op to its floor, with the checks that the words share.
#pragma once
#include "checks.h"
#include "policy/policy.h"

namespace emix::policy {

// `kept` is what must live until the op has run. A tensor's value is not checked: that would wait for the device.
inline FloorSource floor_source(double number, const OptionalTensor& tensor, int actions, const Tensor& logits,
                                OptionalTensor& kept) {
  if (!tensor) {
    if (!(number >= 0 && number <= 1)) fail("`floor` must lie in [0, 1], got ", number);
    return {floor_of(number, actions), nullptr};
  }
  check_floating("floor", *tensor);
  check_shape("floor", *tensor, std::vector<int64_t>{}, ", or be a number");
  check_device("floor", *tensor, "logits", logits);
  kept = tensor->scalar_type() == ScalarType::Double ? *tensor : torch::stable::to(*tensor, ScalarType::Double);
  return {{}, static_cast<const double*>(kept->const_data_ptr())};
}

}  // namespace emix::policy
