// One battle as the rules see it: rows of its tensors by name, the two sides, the map. Where the state lies (in place
// on the CPU, in shared memory on the GPU) is the caller's choice.
#pragma once
#include "battle/fields.h"
#include "battle/simd.h"
#include "philox.h"

namespace emix::battle {

// What a loop's phases tell each other, float [rows, slots].
namespace note {
enum Row : int {
  before,  // health and shield at the start of the environment step
  wish_x,  // where the unit walks
  wish_y,
  length,   // how far at most; 0: it does not
  healing,  // life that it gives its target
  pushed_x,
  pushed_y,
  rows
};
}

// The same, int [rows, slots].
namespace mark {
enum Row : int {
  strike,   // whom this unit's hit meets now; kNobody: nobody
  sweep,    // 1: a pass of its beam meets whoever stands in it
  explode,  // 1: it blows itself up
  blast,    // 1: it has exploded
  path,     // 1: it walks around obstacles, not straight into them
  rows
};
}

EMIX_HD constexpr int bit(Tag tag) { return 1 << static_cast<int>(tag); }
EMIX_HD constexpr int bit(Feature feature) { return 1 << static_cast<int>(feature); }
inline constexpr int64_t slots_of(int64_t units) { return (units + kLanes - 1) / kLanes * kLanes; }  // of a side
inline constexpr int kAllFeatures = (1 << static_cast<int>(Feature::count)) - 1;

// What is the same for all battles of a call.
struct Scenario {
  const float* stats = nullptr;        // [stat::rows, slots]
  const int* traits = nullptr;         // [trait::rows, slots]
  const double* rules = nullptr;       // [rule::rows]
  const uint8_t* terrain = nullptr;    // [2, 32, 32]: open, closed; 0 blocked, else 1 + height
  const int16_t* waypoints = nullptr;  // [2, 1024, 1024]: to the goal cell from the own cell; nullptr: the way is free
  int allies = 0, enemies = 0;
  int ally_slots = 0, slots = 0;
  int type_bits = 0, ally_shield = 0, enemy_shield = 0, features = 0;
  int actions = 0, obs_size = 0, state_size = 0;

  EMIX_HD float rule(rule::Row row) const { return static_cast<float>(rules[row]); }
  EMIX_HD bool has(Feature feature) const { return (features & bit(feature)) != 0; }
};

// Slots [begin, end) of a side.
struct Side {
  int begin, end;
};

struct Battle {
  const Scenario* scenario = nullptr;
  float* units = nullptr;
  int* minds = nullptr;
  int64_t* clock = nullptr;
  const float* stats = nullptr;  // of the unit that stands in the slot
  const int* traits = nullptr;
  float* notes = nullptr;
  int* marks = nullptr;
  int slots = 0;

  EMIX_HD float* operator[](unit::Row row) const { return row_of(units, row); }
  EMIX_HD int* operator[](mind::Row row) const { return row_of(minds, row); }
  EMIX_HD int64_t& operator[](clock::Row row) const { return clock[row]; }
  EMIX_HD const float* operator[](stat::Row row) const { return row_of(stats, row); }
  EMIX_HD const int* operator[](trait::Row row) const { return row_of(traits, row); }
  EMIX_HD float* operator[](note::Row row) const { return row_of(notes, row); }
  EMIX_HD int* operator[](mark::Row row) const { return row_of(marks, row); }

  template <class T>
  EMIX_HD T* row_of(T* table, int row) const {
    return table + static_cast<int64_t>(row) * slots;
  }

  EMIX_HD bool ally(int slot) const { return slot < scenario->ally_slots; }
  EMIX_HD Side allies() const { return {0, scenario->allies}; }
  EMIX_HD Side enemies() const { return {scenario->ally_slots, scenario->ally_slots + scenario->enemies}; }
  EMIX_HD Side friends_of(int slot) const { return ally(slot) ? allies() : enemies(); }
  EMIX_HD Side opponents_of(int slot) const { return ally(slot) ? enemies() : allies(); }
  EMIX_HD bool alive(int slot) const { return (*this)[unit::health][slot] > 0; }
  EMIX_HD const uint8_t* terrain() const { return scenario->terrain + ((*this)[clock::closed] ? kMap * kMap : 0); }
  EMIX_HD const int16_t* waypoints() const {
    return scenario->waypoints + ((*this)[clock::closed] ? kMap * kMap * kMap * kMap : 0);
  }
};

template <class I>
EMIX_HD auto is(const I& value, Order order) {
  return value == static_cast<int>(order);
}
template <class I>
EMIX_HD auto is(const I& value, Weapon weapon) {
  return value == static_cast<int>(weapon);
}
template <class I>
EMIX_HD auto is(const I& value, Layer layer) {
  return value == static_cast<int>(layer);
}

EMIX_HD bool inside(float x, float y) { return x >= 0 && y >= 0 && x < kMap && y < kMap; }
EMIX_HD int cell_of(float x, float y) { return static_cast<int>(y) * kMap + static_cast<int>(x); }

// What an episode's random numbers are drawn for. The key is the episode's stream, the counter (draw, at).
enum class Draw : uint32_t { kStream, kCooldown, kSpawn, kShuffle, kGoal };

EMIX_HD Philox random(int64_t stream, Draw draw, int64_t at) { return philox(stream, static_cast<uint32_t>(draw), at); }

EMIX_HD float between(float low, float high, uint32_t word) { return low + (high - low) * uniform_float(word); }

}  // namespace emix::battle
