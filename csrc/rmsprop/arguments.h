// From lists of tensors, which are changed in place, to chunks, with the checks.
#pragma once
#include "checks.h"
#include "rmsprop/rmsprop.h"

namespace emix::rmsprop {

inline constexpr int64_t kChunk = 1 << 14;  // elements that a task takes

using Tensors = std::vector<Tensor>;

inline void check(const char* name, const Tensors& tensors, const Tensors& parameters) {
  if (tensors.size() != parameters.size())
    fail("`", name, "` must have as many tensors as `parameters` (", parameters.size(), "), got ", tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_shape(name, tensors[i], parameters[i].sizes(), " like its parameter");
    if (tensors[i].scalar_type() != parameters[i].scalar_type()) fail("`", name, "` must have its parameter's dtype");
    if (!tensors[i].is_contiguous()) fail("`", name, "` must be contiguous");
  }
}

inline ScalarType checked_type(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs) {
  if (parameters.empty()) fail("`parameters` must have at least one tensor");
  const ScalarType type = parameters[0].scalar_type();
  for (const Tensor& each : parameters)
    if (each.scalar_type() != type || (type != ScalarType::Float && type != ScalarType::Double))
      fail("`parameters` must be float32, or all float64");
  check("parameters", parameters, parameters), check("grads", grads, parameters);
  check("square_avgs", square_avgs, parameters);
  return type;
}

inline std::vector<Chunk> chunks_of(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs,
                                    int64_t element) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t size = parameters[i].numel();
    for (int64_t at = 0; at < size; at += kChunk)
      chunks.push_back({static_cast<char*>(parameters[i].mutable_data_ptr()) + at * element,
                        static_cast<char*>(grads[i].mutable_data_ptr()) + at * element,
                        static_cast<char*>(square_avgs[i].mutable_data_ptr()) + at * element,
                        std::min(kChunk, size - at)});
  }
  return chunks;
}

}  // namespace emix::rmsprop
