// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random words as a function of a
// key and a counter, without a state, so that every element draws its own and CPU and GPU draw the same.
#pragma once
#include <cstdint>

#include "device.h"

namespace emix {

struct Philox {
  uint32_t word[4];
};

EMIX_HD constexpr uint32_t high_product(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

EMIX_HD constexpr Philox philox(uint32_t key0, uint32_t key1, Philox counter) {
  uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = high_product(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = high_product(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ key0, c1 = low1;
    c2 = high0 ^ c3 ^ key1, c3 = low0;
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Four words of a sequence: the `block`-th of stream `stream` (an element's index, say) under a seed.
EMIX_HD constexpr Philox philox(int64_t seed, uint32_t block, int64_t stream) {
  return philox(
      static_cast<uint32_t>(seed), static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32),
      {{block, static_cast<uint32_t>(stream), static_cast<uint32_t>(static_cast<uint64_t>(stream) >> 32), 0}});
}

// In [0, 1), every multiple of 2^-24.
EMIX_HD constexpr float uniform_float(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// In [0, 1), every multiple of 2^-53.
EMIX_HD constexpr double uniform_double(uint32_t high, uint32_t low) {
  return static_cast<double>((static_cast<uint64_t>(high) << 32 | low) >> 11) * 0x1p-53;
}

namespace known_answers {  // of Random123's kat_vectors, checked when this is compiled
constexpr bool equal(const Philox& a, const Philox& b) {
  return a.word[0] == b.word[0] && a.word[1] == b.word[1] && a.word[2] == b.word[2] && a.word[3] == b.word[3];
}
static_assert(equal(philox(0, 0, {{0, 0, 0, 0}}), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
static_assert(equal(philox(0xffffffff, 0xffffffff, {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}),
                    {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
static_assert(equal(philox(0xa4093822, 0x299f31d0, {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}),
                    {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}  // namespace known_answers

}  // namespace emix
