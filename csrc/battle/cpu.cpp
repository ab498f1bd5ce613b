// battle on the CPU: threads over battles, a vector over neighbouring units.
#include <algorithm>

#include "battle/arguments.h"
#include "instruction_sets.h"

namespace emix::battle {
namespace {

inline constexpr int64_t kGrain = 8;  // battles of a handful of units that are worth waking a thread

struct Loops {
  static constexpr bool kTablesAreNear = true;

  template <class V, class F>
  EMIX_HD void each(int slots, const F& f) const {
    for (int i = 0; i < slots; i += V::kWidth) f(i);
  }
  template <class F>
  EMIX_HD void each_one(int count, const F& f) const {
    for (int i = 0; i < count; ++i) f(i);
  }
  template <class F>
  EMIX_HD void each_pair(int rows, int columns, const F& f) const {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) f(i, j);
  }
  template <class F>
  EMIX_HD void once(const F& f) const {
    f();
  }
};

// What a thread needs beside the state.
struct Workspace {
  alignas(64) float stats[stat::rows * kMaxSlots], notes[note::rows * kMaxSlots];
  alignas(64) int traits[trait::rows * kMaxSlots], marks[mark::rows * kMaxSlots];
};

struct Run {
  const Scenario& scenario;
  float* units;
  int* minds;
  int64_t* clock;
  View views;
  Outcome outcome;
};

EMIX_INSTRUCTION_SETS void step_battles(const Run& run, const int64_t* actions, int64_t begin, int64_t end) {
  Workspace work;
  for (int64_t index = begin; index < end; ++index) {
    Battle b = battle_at(run.scenario, run.units, run.minds, run.clock, index);
    b.notes = work.notes, b.marks = work.marks;
    read_kinds(Loops(), b, work.stats, work.traits);
    double reward = 0;
    if (b[clock::status] == static_cast<int64_t>(Status::running))
      reward = play<Eight>(Loops(), b, actions + index * run.scenario.allies);
    observe(Loops(), b, view_at(run.scenario, run.views, index));
    report(b, index, reward, run.outcome);
  }
}

void reset_battles(const Run& run, const bool* where, int64_t seed, int64_t first, bool closed, int64_t begin,
                   int64_t end) {
  Workspace work;
  for (int64_t index = begin; index < end; ++index) {
    Battle b = battle_at(run.scenario, run.units, run.minds, run.clock, index);
    if (where[index]) start(Loops(), b, seed, first + index, closed);
    read_kinds(Loops(), b, work.stats, work.traits);
    observe(Loops(), b, view_at(run.scenario, run.views, index));
    report(b, index, 0, run.outcome);
  }
}

int64_t grain(const Scenario& scenario) { return std::max<int64_t>(1, kGrain * 2 * kLanes / scenario.slots); }

Result battle_step(const Tensor& units, const Tensor& minds, const Tensor& clock, const Tensor& actions,
                   const Tensor& stats, const Tensor& traits, const Tensor& rules, const Tensor& terrain,
                   const Tensor& waypoints, const std::vector<int64_t>& layout) {
  Call call({units, minds, clock, stats, traits, rules, terrain, waypoints}, layout);
  const int64_t* action = check_actions(actions, call, units);
  const Run run{call.scenario, call.units, call.minds, call.clock, call.views(), call.outcome()};
  run_rows(call.battles, grain(call.scenario),
           [&](int64_t begin, int64_t end) { step_battles(run, action, begin, end); });
  return call.result();
}

Result battle_reset(const Tensor& units, const Tensor& minds, const Tensor& clock, const Tensor& where,
                    const Tensor& stats, const Tensor& traits, const Tensor& rules, const Tensor& terrain,
                    const Tensor& waypoints, const std::vector<int64_t>& layout, int64_t seed, int64_t first,
                    bool closed) {
  Call call({units, minds, clock, stats, traits, rules, terrain, waypoints}, layout);
  const bool* starts = check_where(where, call, units);
  check_first(first, call);
  const Run run{call.scenario, call.units, call.minds, call.clock, call.views(), call.outcome()};
  run_rows(call.battles, grain(call.scenario),
           [&](int64_t begin, int64_t end) { reset_battles(run, starts, seed, first, closed, begin, end); });
  return call.result();
}

}  // namespace
}  // namespace emix::battle

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) {
  m.impl("battle_step", TORCH_BOX(&emix::battle::battle_step));
  m.impl("battle_reset", TORCH_BOX(&emix::battle::battle_reset));
}
