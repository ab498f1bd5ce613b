// A mask of any dtype that holds 0 and 1.
#pragma once
#include <cstdint>

#include "device.h"

namespace emix {

// Every bit but the sign counts, so that -0.0 is false. `itemsize`: bytes of an element; `offset` in elements.
EMIX_HD bool mask_at(const void* data, int itemsize, int64_t offset) {
  switch (itemsize) {
    case 1:
      return static_cast<const uint8_t*>(data)[offset] != 0;
    case 2:
      return (static_cast<const uint16_t*>(data)[offset] & 0x7fffu) != 0;
    case 4:
      return (static_cast<const uint32_t*>(data)[offset] & 0x7fffffffu) != 0;
    default:
      return (static_cast<const uint64_t*>(data)[offset] & 0x7fffffffffffffffu) != 0;
  }
}

}  // namespace emix
