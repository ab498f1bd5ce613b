# emix._host: pybind11, and no header of torch in sight (torch < 2.13 forbids its pybind11 under TORCH_TARGET_VERSION).
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
find_package(pybind11 CONFIG REQUIRED)
pybind11_add_module(_host csrc/host/module.cpp)
target_include_directories(_host PRIVATE csrc)
# What it observes and pays is what libemix.so does, bit for bit.
target_compile_options(_host PRIVATE -ffp-contract=off -fno-trapping-math -fno-math-errno -Wno-psabi)
set_target_properties(_host PROPERTIES CXX_STANDARD 17)
target_compile_definitions(
  _host
  PRIVATE EMIX_BUILD_CUDA="${EMIX_CUDA}"
          EMIX_BUILD_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}"
          EMIX_BUILD_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES}"
          EMIX_BUILD_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          EMIX_BUILD_TORCH="${EMIX_TORCH_VERSION}"
          EMIX_BUILD_VERSION="${SKBUILD_PROJECT_VERSION}")
install(TARGETS _host LIBRARY DESTINATION emix)
