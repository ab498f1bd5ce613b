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

// Some elements of a mask for the GPU: loaded as they lie in memory, and looked at later. A comparison beside each load
// would make the next load wait for it.
template <int kCount>
class Masks {
 public:
  // Element i is at offset(i), where there(i); elsewhere it is false. Without data it is true where there(i).
  template <class Offset, class There>
  EMIX_HD void load(const void* data, int itemsize, const Offset& offset, const There& there) {
    if (!data) {
      EMIX_UNROLL
      for (int i = 0; i < kCount; ++i) raw_[i] = there(i);
      return;
    }
    switch (itemsize) {
      case 1:
        return load_as<uint8_t>(data, offset, there);
      case 2:
        counts_ = 0x7fffu;
        return load_as<uint16_t>(data, offset, there);
      case 4:
        counts_ = 0x7fffffffu;
        return load_as<uint32_t>(data, offset, there);
      default:
        return load_as<uint64_t>(data, offset, there);
    }
  }

  EMIX_HD bool operator[](int i) const { return (raw_[i] & counts_) != 0; }

 private:
  template <class Word, class Offset, class There>
  EMIX_HD void load_as(const void* data, const Offset& offset, const There& there) {
    Word word[kCount];
    EMIX_UNROLL
    for (int i = 0; i < kCount; ++i) word[i] = there(i) ? static_cast<const Word*>(data)[offset(i)] : Word(0);
    EMIX_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if constexpr (sizeof(Word) == 8)
        raw_[i] = static_cast<uint32_t>(word[i] | (word[i] >> 32 & 0x7fffffffu));
      else
        raw_[i] = word[i];
    }
  }

  uint32_t raw_[kCount];
  uint32_t counts_ = 0xffffffffu;  // the bits that do
};

}  // namespace emix
