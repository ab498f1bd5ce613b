// The ops: schemas, then each for either device, from the inputs to a Problem and from there to results. `Device` runs
// the loops.
#pragma once
#include "diversity/arguments.h"

namespace emix::diversity {

// q [N, ..., A], avail [..., A] -> [...]
inline void define_ops(Library& m) {
  m.def("bhattacharyya(Tensor q, Tensor? avail) -> Tensor");
  m.def("bhattacharyya_backward(Tensor grad, Tensor q, Tensor? avail, bool detach_mean) -> Tensor");
}

template <class Device>
Tensor bhattacharyya(const Tensor& q, const OptionalTensor& avail) {
  const Device device(q);
  const Call call(q, avail);
  const Tensor result = empty(call.shape, call.arguments.wide, q);
  dispatch_floating(call.arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template forward<T>(call.problem, static_cast<Wide<T>*>(result.mutable_data_ptr()));
  });
  return result;
}

template <class Device>
Tensor bhattacharyya_backward(const Tensor& grad, const Tensor& q, const OptionalTensor& avail, bool detach_mean) {
  const Device device(q);
  const Call call(grad, q, avail, detach_mean);
  const auto sizes = q.sizes();
  const Tensor result = empty({sizes.begin(), sizes.end()}, call.arguments.type, q);
  dispatch_floating(call.arguments.type, [&](auto type) {
    using T = decltype(type);
    device.template backward<T>(call.problem, static_cast<T*>(result.mutable_data_ptr()));
  });
  return result;
}

template <class Device>
void register_ops(Library& m) {
  m.impl("bhattacharyya", TORCH_BOX(&bhattacharyya<Device>));
  m.impl("bhattacharyya_backward", TORCH_BOX(&bhattacharyya_backward<Device>));
}

}  // namespace emix::diversity
