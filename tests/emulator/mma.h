// The matrix units: mma.sync m16n8 of a whole warp, included by emulator.h.
#pragma once

#include "scheduler.h"

namespace emulator {

// D += A B, 8 words of depth, from the lanes' words in the layout of PTX ISA 9.2, section 9.7.14.5; Type::value(word,
// part) is one of the Type::kPerWord operands in a word.
template <class Type>
void mma_m16n8(float (&d)[4], const uint4& a, const uint2& b) {
  constexpr unsigned kAllLanes = ~0u;
  const unsigned group = scheduler->lane() / 4, item = scheduler->lane() % 4;
  scheduler->meet(Primitive::kMma, kAllLanes, a);
  unsigned left[2][8], right[2][8];  // rows group and group + 8, columns 2 item and 2 item + 1
  for (unsigned word = 0; word < 4; ++word) {
    const uint4 from = scheduler->received<uint4>(group * 4 + word);
    left[0][word] = from.x, left[1][word] = from.y, left[0][word + 4] = from.z, left[1][word + 4] = from.w;
  }
  scheduler->meet(Primitive::kMma, kAllLanes, b);
  for (unsigned column = 0; column < 2; ++column) {
    for (unsigned word = 0; word < 4; ++word) {
      const uint2 from = scheduler->received<uint2>((item * 2 + column) * 4 + word);
      right[column][word] = from.x, right[column][word + 4] = from.y;
    }
  }
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned word = 0; word < 8; ++word) {
      for (int part = 0; part < Type::kPerWord; ++part)
        d[i] += Type::value(left[i / 2][word], part) * Type::value(right[i % 2][word], part);
    }
  }
}

}  // namespace emulator
