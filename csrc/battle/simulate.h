// An environment step, and a start: the order in which the rules are applied. Units act at the same time: within a
// phase nobody writes what another one reads.
//
// `Block` runs a function over units (each: as wide as V), over single things (each_one, each_pair) or once, and is
// done with all of them before it goes on: loops on the CPU, a block of threads on the GPU.
#pragma once
#include "battle/combat.h"
#include "battle/movement.h"
#include "battle/observe.h"
#include "battle/reset.h"
#include "battle/score.h"
#include "battle/targets.h"

namespace emix::battle {

inline constexpr int kPushes = 5;  // steps of keeping apart in a game loop, an odd number: crowds need that many

template <class V, class Block>
EMIX_HD void game_loop(const Block& block, const Battle& b, int64_t loop) {
  block.template each<V>(b.slots, [&](int i) EMIX_INLINE {
    choose_targets<V>(b, i);
    engage<V>(b, i, loop);
  });
  block.template each<V>(b.slots, [&](int i) EMIX_INLINE { take_hits<V>(b, i); });
  block.template each<V>(b.slots, [&](int i) EMIX_INLINE { take_blasts_and_care<V>(b, i); });
  block.template each<V>(b.slots, [&](int i) EMIX_INLINE { regenerate_and_walk<V>(b, i); });
  // The units were at (x, y) and have walked to where the notes say; there and back until they are at (x, y) again.
  float *const x = b[unit::x], *const y = b[unit::y], *const to_x = b[note::pushed_x], *const to_y = b[note::pushed_y];
  for (int k = 0; k < kPushes; ++k) {
    const bool back = k % 2 == 0;
    block.template each<V>(b.slots, [&](int i) EMIX_INLINE {
      keep_apart<V>(b, i, back ? to_x : x, back ? to_y : y, back ? x : to_x, back ? y : to_y);
    });
  }
}

// The reward of an environment step of a running battle. actions [allies].
template <class V, class Block>
EMIX_HD double play(const Block& block, const Battle& b, const int64_t* actions) {
  block.once([&]() EMIX_INLINE {
    for (int i = 0; i < b.scenario->allies; ++i) note_fault(b, i, actions[i]);
  });
  block.each_one(b.slots, [&](int i) EMIX_INLINE {
    b[note::before][i] = b.alive(i) ? b[unit::health][i] + b[unit::shield][i] : 0.0f;
  });
  block.each_one(b.scenario->allies, [&](int i) EMIX_INLINE { obey(b, i, actions[i]); });
  const int64_t first = b[clock::step] * kLoops;
  for (int k = 0; k < kLoops; ++k) game_loop<V>(block, b, first + k);
  double reward = 0;
  block.once([&]() EMIX_INLINE { reward = score(b); });
  return reward;
}

template <class Block>
EMIX_HD void begin_episode(const Block& block, const Battle& b, int64_t seed, int64_t index, bool closed) {
  block.once([&]() EMIX_INLINE { start_clock(b, seed, index, closed); });
  block.each_one(b.slots, [&](int i) EMIX_INLINE { place_unit(b, i); });
}

// The tables' rows, of the unit that stands in each slot. Where every slot has its own row and the tables are as near
// as a copy would be, they are used as they are.
template <class Block>
EMIX_HD void read_kinds(const Block& block, Battle& b, float* stats, int* traits) {
  bool moved = !Block::kTablesAreNear;
  for (int i = b.enemies().begin; i < b.enemies().end; ++i) moved |= b[mind::kind][i] != i;
  b.stats = b.scenario->stats, b.traits = b.scenario->traits;
  if (!moved) return;
  block.each_one(b.slots, [&](int i) EMIX_INLINE {
    const int kind = b[mind::kind][i] == kNobody ? i : b[mind::kind][i];
    for (int row = 0; row < stat::rows; ++row) stats[row * b.slots + i] = b.scenario->stats[row * b.slots + kind];
    for (int row = 0; row < trait::rows; ++row) traits[row * b.slots + i] = b.scenario->traits[row * b.slots + kind];
  });
  b.stats = stats, b.traits = traits;
}

// Of one battle: obs [allies, obs_size], state [state_size], avail [allies, actions].
struct Observed {
  float *obs, *state;
  bool* avail;
};

template <class Block>
EMIX_HD void observe(const Block& block, const Battle& b, const Observed& to) {
  const Scenario& s = *b.scenario;
  const Sizes sizes(s);
  block.each_pair(s.allies, s.enemies, [&](int i, int j) EMIX_INLINE {
    observe_enemy(b, sizes, i, j, to.obs + int64_t(i) * s.obs_size, to.avail + int64_t(i) * s.actions);
  });
  block.each_pair(s.allies, s.allies, [&](int i, int j) EMIX_INLINE {
    float* obs = to.obs + int64_t(i) * s.obs_size;
    if (i == j)
      observe_self(b, sizes, i, obs, to.avail + int64_t(i) * s.actions);
    else
      observe_ally(b, sizes, i, j, obs);
  });
  block.each_one(s.allies + s.enemies, [&](int k) EMIX_INLINE { describe_state(b, sizes, k, to.state); });
  block.each_one(s.allies, [&](int i) EMIX_INLINE { describe_past(b, sizes, i, to.state); });
}

}  // namespace emix::battle
