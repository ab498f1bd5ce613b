// torch's current CUDA stream and device, for the .cu files alone.
#pragma once
#include "device.h"
#include "torch.h"

#if !defined(EMIX_EMULATED)
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#endif

namespace emix {

#if defined(EMIX_EMULATED)
#define EMIX_CUDA_KEY CPU  // the emulated kernels stand in for the CPU's

struct CurrentStream {
  explicit CurrentStream(const Tensor&) {}
  cudaStream_t stream = nullptr;
};
#else
#define EMIX_CUDA_KEY CUDA

// Makes the tensor's device current and finds its stream. libtorch_cuda is looked up, not linked, so that the library
// also loads in a torch without CUDA; Stream::id() of the stable ABI is no cudaStream_t, and nativeHandle() needs
// torch 2.13.
struct CurrentStream {
  explicit CurrentStream(const Tensor& tensor) : guard(tensor.get_device_index()) {
    using Get = AOTITorchError (*)(int32_t, void**);
    static const Get get = [] {
      void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
      return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
    }();
    if (!get)
      throw std::runtime_error(
          "emix: this torch has no CUDA (libtorch_cuda.so is not loaded), so a CUDA tensor cannot be worked on");
    void* found = nullptr;
    TORCH_ERROR_CODE_CHECK(get(tensor.get_device_index(), &found));
    stream = static_cast<cudaStream_t>(found);
  }
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream = nullptr;
};
#endif

}  // namespace emix
