// emix._host: what needs neither torch nor a GPU. Never on an op's path.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace {

py::dict build() {
  py::dict info;
  info["version"] = EMIX_BUILD_VERSION;
  info["compiler"] = EMIX_BUILD_COMPILER;
  info["torch"] = EMIX_BUILD_TORCH;
  info["cuda"] = EMIX_BUILD_CUDA;
  info["cuda_version"] = EMIX_BUILD_CUDA_VERSION;
  info["cuda_architectures"] = EMIX_BUILD_CUDA_ARCHITECTURES;
  return info;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host-side helpers of emix that need no torch.";
  m.def("build", &build,
        "How this package was built: version, compiler, torch (whose headers were used; any torch >= 2.10 runs it), "
        "cuda (ON or OFF), "
        "cuda_version and cuda_architectures (empty without CUDA).");
}
