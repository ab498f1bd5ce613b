// The rules of CUDA that are checked before a launch, and the words in which a broken one is told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "cuda_types.h"
#include "races.h"

namespace emulator {

// A kernel, or its launch, broke a rule of CUDA.
struct Fault : std::logic_error {
  using std::logic_error::logic_error;
};

inline std::string text(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}
inline std::string text(const uint3& i) { return text(i.x, i.y, i.z); }
inline std::string text(const dim3& d) { return text(d.x, d.y, d.z); }

enum class Primitive : uint8_t {
  kSyncwarp,
  kShfl,
  kShflUp,
  kShflDown,
  kShflXor,
  kBallot,
  kAny,
  kAll,
  kReduceAdd,
  kMma
};
inline constexpr const char* kPrimitiveNames[] = {
    "__syncwarp",    "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",  "__shfl_xor_sync",
    "__ballot_sync", "__any_sync",  "__all_sync",     "__reduce_add_sync", "mma.sync"};

// What the lanes of a mask must agree on.
struct Call {
  Primitive primitive;
  unsigned mask;
  size_t value_bytes;
};
inline bool operator==(const Call& a, const Call& b) {
  return a.primitive == b.primitive && a.mask == b.mask && a.value_bytes == b.value_bytes;
}
inline std::string text(const Call& call) {
  char mask[16];
  std::snprintf(mask, sizeof(mask), "0x%08x", call.mask);
  return std::string(kPrimitiveNames[size_t(call.primitive)]) + " (mask " + mask + ", " +
         std::to_string(call.value_bytes) + "-byte value)";
}

inline constexpr const char* kMissingNames[] = {"no __syncwarp of both lanes (or __syncthreads) lies between",
                                                "no __syncthreads lies between",
                                                "nothing orders the blocks of a launch"};

inline std::string text(const Race& race) {
  char address[32];
  std::snprintf(address, sizeof(address), race.in_shared ? "%zu of shared memory" : "0x%zx", size_t(race.address));
  return std::string("data race: ") + (race.writes ? "writes " : "reads ") + std::to_string(race.bytes) +
         (race.bytes == 1 ? " byte" : " bytes") + " at " + (race.in_shared ? "byte " : "address ") + address;
}

inline void check_launch(const std::string& kernel, const dim3& grid, const dim3& block, size_t shared_bytes) {
  const auto require = [&](bool holds, const std::string& rule, const std::string& got) {
    if (!holds) throw Fault("launch of kernel " + kernel + ": " + rule + ", got " + got);
  };
  require(grid.x && grid.y && grid.z, "a grid must have a block at least", text(grid));
  require(grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535,
          "a grid may have (2147483647, 65535, 65535) blocks at most", text(grid));
  require(block.x && block.y && block.z, "a block must have a thread at least", text(block));
  require(block.x <= 1024 && block.y <= 1024 && block.z <= 64 && block.x * block.y * block.z <= 1024,
          "a block may have 1024 threads at most, and 64 in z", text(block));
  require(shared_bytes <= 227 << 10, "a block may have 227 KiB (232448 bytes) of shared memory at most",
          std::to_string(shared_bytes) + " bytes");
}

}  // namespace emulator
