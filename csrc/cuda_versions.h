// Which CUDA drivers run what a toolkit has built, and what to say of one that does not. No CUDA here: `emix doctor`
// asks without a GPU, too.
#pragma once
#include <string>

namespace emix {

// Versions as CUDA numbers them: 12090 for 12.9.
inline std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The first driver of a toolkit's major version. A runtime, linked statically or not, runs on it and all later ones;
// its minor version does not count. Source: NVIDIA, "CUDA Compatibility", minor version compatibility, table 1.
inline std::string oldest_driver(int toolkit) {
  const int major = toolkit / 1000;
  return major == 11 ? "450" : major == 12 ? "525" : major == 13 ? "580" : "CUDA " + std::to_string(major) + "'s";
}

// Why a driver for CUDA `driver` (0: none) does not run what was built with `toolkit`; empty where it does.
inline std::string driver_problem(int toolkit, int driver) {
  if (driver / 1000 >= toolkit / 1000) return "";
  return "emix was built with CUDA " + cuda_version_text(toolkit) + " and needs a driver of " + oldest_driver(toolkit) +
         " or newer, " + (driver == 0 ? "but there is none" : "but this one is for CUDA " + cuda_version_text(driver));
}

inline std::string driver_remedy(int toolkit, int driver) {
  const std::string update = std::string(driver == 0 ? "install" : "update") + " the driver";
  if (driver < 12000 || toolkit < 13000) return update;
  return update + ", or build emix with CUDA 12: CUDACXX=/usr/local/cuda-12.9/bin/nvcc pip install --force-reinstall .";
}

}  // namespace emix
