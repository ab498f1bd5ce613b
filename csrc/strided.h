// How kernels see an input that rows_of() has looked at.
#pragma once
#include <cstdint>

namespace emix {

// Where the element (row, action) lies, in elements, and how many bytes it has.
struct Strided {
  const void* data = nullptr;  // nullptr: an optional input that was not given
  int64_t row = 0, action = 0;
  int itemsize = 0;
};

}  // namespace emix
