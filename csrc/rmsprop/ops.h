// The op: schema, then from the lists of tensors to chunks and from there to the norm. `Device` runs the loops; there
// are those of the CPU alone, for a GPU has torch's one launch.
#pragma once
#include "rmsprop/arguments.h"

namespace emix::rmsprop {

// A step of torch's optimiser after the gradients were scaled down to max_norm; gives the norm that they had.
inline void define_ops(Library& m) {
  m.def(
      "rmsprop_step(Tensor(a!)[] parameters, Tensor(b!)[] grads, Tensor(c!)[] square_avgs, float lr, float alpha, "
      "float eps, float max_norm) -> Tensor");
}

template <class Device>
Tensor rmsprop_step(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs, double lr,
                    double alpha, double eps, double max_norm) {
  const ScalarType type = checked_type(parameters, grads, square_avgs);
  const Device device(parameters[0]);
  const Tensor norm = empty({}, type, parameters[0]);
  dispatch_wide(type, [&](auto element) {
    using F = decltype(element);
    const std::vector<Chunk> chunks = chunks_of(parameters, grads, square_avgs, sizeof(F));
    device.step(chunks, Rates{lr, alpha, eps}, max_norm, static_cast<F*>(norm.mutable_data_ptr()));
  });
  return norm;
}

template <class Device>
void register_ops(Library& m) {
  m.impl("rmsprop_step", TORCH_BOX(&rmsprop_step<Device>));
}

}  // namespace emix::rmsprop
