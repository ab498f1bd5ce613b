// The only file that names torch: the stable ABI (>= 2.10), so that one libemix.so serves every later torch.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// What torch's last exception on this thread said; torch has it from 2.13 on, and its headers declare it only to those
// who build for that.
extern "C" const char* torch_exception_get_what_without_backtrace() __attribute__((weak));

namespace emix {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Library = torch::stable::detail::StableLibrary;  // where a word's ops.h defines and registers its ops

// A mistake of the caller. Python turns the text after "emix: " into a ValueError; `name` in backticks becomes the
// public argument's name.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  text << "emix: ";
  ((text << parts), ...);
  throw std::runtime_error(text.str());
}

// A shape as fail() writes it, for which nothing is done before: of a tensor's sizes(), or a vector.
struct ShapeText {
  const int64_t* sizes;
  size_t dims;

  friend std::ostream& operator<<(std::ostream& text, const ShapeText& shape) {
    text << "[";
    for (size_t i = 0; i < shape.dims; ++i) text << (i > 0 ? ", " : "") << shape.sizes[i];
    return text << "]";
  }
};

template <class Sizes>
ShapeText shape_of(const Sizes& sizes) {
  return {sizes.data(), sizes.size()};
}

inline std::string device_text(const Tensor& tensor) {
  return tensor.is_cpu() ? "cpu" : "cuda:" + std::to_string(tensor.get_device_index());
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

inline constexpr size_t kMaxDims = 8;

// A new contiguous tensor on the device of `like`, straight from the allocator: torch::stable::empty would pass the
// dispatcher once more.
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType type, const Tensor& like) {
  int64_t strides[kMaxDims] = {};
  if (sizes.size() > kMaxDims) fail("a result of ", sizes.size(), " axes is not supported");
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) strides[i] = stride, stride *= sizes[i] > 0 ? sizes[i] : 1;
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  const auto code = aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides,
                                             static_cast<int32_t>(type), device_type, device_index, &handle);
  // In eager calls Python asks for torch's words itself; this is what a compiled graph's caller reads.
  if (code != TORCH_SUCCESS && torch_exception_get_what_without_backtrace)
    throw std::runtime_error(std::string(torch_exception_get_what_without_backtrace()) +
                             " (API call failed at an allocation by emix)");
  TORCH_ERROR_CODE_CHECK(code);
  return Tensor(handle);
}

// f(begin, end) over [0, rows), on several threads where that pays: waking them costs microseconds.
template <class F>
void run_rows(int64_t rows, int64_t grain, const F& f) {
  if (rows <= grain) {
    if (rows > 0) f(int64_t(0), rows);
  } else {
    torch::stable::parallel_for(0, rows, grain, f);
  }
}

// f(T()) for the element type T of `type`.
template <class F>
void dispatch_floating(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    case ScalarType::Half:
      return f(Half());
    case ScalarType::BFloat16:
      return f(BFloat16());
    default:
      fail("expected a floating dtype");
  }
}

// The same where kernels know float32 and float64 alone.
template <class F>
void dispatch_wide(ScalarType type, const F& f) {
  type == ScalarType::Double ? f(double()) : f(float());
}

}  // namespace emix
