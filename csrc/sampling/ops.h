// The op: schema, then for either device from the inputs to a Problem and from there to a result. `Device` runs the
// loops.
#pragma once
#include "sampling/arguments.h"

namespace emix::sampling {

// Draws from the softmax of logits [..., A], Philox keyed by seed [1]. samples 0: one, as int64 [...], else uint8
// [samples, ...]. floor_tensor, where there is one, stands for floor: 0-dim, read when the op runs.
inline void define_ops(Library& m) {
  m.def(
      "sample_actions(Tensor logits, Tensor? avail, Tensor seed, float floor=0., int samples=0, Tensor? "
      "floor_tensor=None) -> Tensor");
}

template <class Device>
Tensor sample_actions(const Tensor& logits, const OptionalTensor& avail, const Tensor& seed, double floor,
                      int64_t samples, const OptionalTensor& floor_tensor) {
  const Device device(logits);
  const Call call(logits, avail, seed, floor, floor_tensor, samples);
  const Tensor result = empty(call.shape, samples > 0 ? ScalarType::Byte : ScalarType::Long, logits);
  if (samples > 0)
    device.draw(call.arguments.type, call.problem, static_cast<uint8_t*>(result.mutable_data_ptr()));
  else
    device.draw(call.arguments.type, call.problem, static_cast<int64_t*>(result.mutable_data_ptr()));
  return result;
}

template <class Device>
void register_ops(Library& m) {
  m.impl("sample_actions", TORCH_BOX(&sample_actions<Device>));
}

}  // namespace emix::sampling
