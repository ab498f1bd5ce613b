# torch without find_package(Torch): that links far more than is used (all of CUDA's libraries) and fails for a CUDA torch on a machine without
# the toolkit. The stable ABI needs torch's headers and libtorch_cpu, nothing else, and any torch >= 2.10 at run time.
find_package(Python REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE TORCH_FOLDER
  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT EXISTS "${TORCH_FOLDER}/include/torch/csrc/stable/library.h")
  message(FATAL_ERROR "emix needs torch >= 2.10 in ${Python_EXECUTABLE} to build and found ${TORCH_FOLDER}: pip install torch==2.13.0, or build without --no-build-isolation.")
endif()
file(STRINGS ${TORCH_FOLDER}/version.py TORCH_VERSION_LINE REGEX "^__version__")
string(REGEX REPLACE ".*'(.*)'" "\\1" EMIX_TORCH_VERSION "${TORCH_VERSION_LINE}")

add_library(emix_torch INTERFACE)
target_include_directories(emix_torch SYSTEM INTERFACE ${TORCH_FOLDER}/include)
target_compile_definitions(emix_torch INTERFACE TORCH_TARGET_VERSION=0x020A000000000000ULL)  # 2.10
target_link_libraries(emix_torch INTERFACE ${TORCH_FOLDER}/lib/libtorch_cpu.so)
