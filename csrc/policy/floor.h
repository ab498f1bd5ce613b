// From the arguments of an op to its floor.
#pragma once
#include "call_arguments.h"
#include "policy/policy.h"

namespace emix::policy {

// A tensor's value is not checked: that would wait for the device.
inline FloorSource floor_source(double number, const OptionalTensor& tensor, int actions, Arguments& arguments) {
  if (tensor) return {{}, arguments.number("floor", *tensor, ", or be a number")};
  if (!(number >= 0 && number <= 1)) fail("`floor` must lie in [0, 1], got ", number);
  return {floor_of(number, actions), nullptr};
}

}  // namespace emix::policy
