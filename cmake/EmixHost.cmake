# libemix_host.so: C functions without torch and Python, which python/emix/_host.py reads by ctypes.
# The version that Python sees, in builds without scikit-build, too.
file(STRINGS pyproject.toml VERSION_LINE REGEX "^version = ")
string(REGEX REPLACE ".*\"(.*)\"" "\\1" EMIX_VERSION "${VERSION_LINE}")
set(ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
if(ARCHITECTURES STREQUAL native AND CMAKE_CUDA_ARCHITECTURES_NATIVE)
  set(ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")  # what `native` was, so that `emix doctor` knows on another machine
endif()
string(REPLACE ";" " " ARCHITECTURES "${ARCHITECTURES}")  # a list would be several definitions
add_library(emix_host SHARED csrc/host/host.cpp)
target_include_directories(emix_host PRIVATE csrc)
# What it observes and pays is what libemix.so does, bit for bit.
target_compile_options(emix_host PRIVATE -Wall -Wextra -ffp-contract=off -fno-trapping-math -fno-math-errno -Wno-psabi)
set_target_properties(emix_host PROPERTIES CXX_STANDARD 17 CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
target_compile_definitions(
  emix_host
  PRIVATE EMIX_BUILD_CUDA="${EMIX_CUDA}"
          EMIX_BUILD_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}"
          EMIX_BUILD_CUDA_ARCHITECTURES="${ARCHITECTURES}"
          EMIX_BUILD_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          EMIX_BUILD_TORCH="${EMIX_TORCH_VERSION}"
          EMIX_BUILD_VERSION="${EMIX_VERSION}")
install(TARGETS emix_host LIBRARY DESTINATION emix)
