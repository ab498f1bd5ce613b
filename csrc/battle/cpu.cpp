// battle on the CPU: threads over battles, a vector over neighbouring units.
#include <algorithm>

#include "battle/cpu_contents.h"
#include "battle/loops.h"
#include "battle/ops.h"
#include "instruction_sets.h"

namespace emix::battle {
namespace {

inline constexpr int64_t kGrain = 8;  // battles of a handful of units that are worth waking a thread

// What a thread needs beside the state.
struct Workspace {
  alignas(64) float stats[stat::rows * kMaxSlots], notes[note::rows * kMaxSlots];
  alignas(64) int traits[trait::rows * kMaxSlots], marks[mark::rows * kMaxSlots];
};

EMIX_INSTRUCTION_SETS void step_battles(const Run& run, const int64_t* actions, int64_t begin, int64_t end) {
  Workspace work;
  for (int64_t index = begin; index < end; ++index) {
    Battle b = battle_at(run, index);
    b.notes = work.notes, b.marks = work.marks;
    read_kinds(Loops(), b, work.stats, work.traits);
    double reward = 0;
    if (b[clock::status] == static_cast<int64_t>(Status::running))
      reward = play<Eight>(Loops(), b, actions + index * run.scenario.allies);
    observe(Loops(), b, observed_at(run, index));
    report(b, index, reward, run.outcome);
  }
}

void reset_battles(const Run& run, const Start& start, int64_t begin, int64_t end) {
  Workspace work;
  for (int64_t index = begin; index < end; ++index) {
    Battle b = battle_at(run, index);
    if (start.where[index]) begin_episode(Loops(), b, start.seed, start.first + index, start.closed);
    read_kinds(Loops(), b, work.stats, work.traits);
    observe(Loops(), b, observed_at(run, index));
    report(b, index, 0, run.outcome);
  }
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void step(const Run& run, const int64_t* actions) const {
    check_contents(run, nullptr);
    run_rows(run.battles, grain(run), [&](int64_t begin, int64_t end) { step_battles(run, actions, begin, end); });
  }
  void reset(const Run& run, const Start& start) const {
    check_contents(run, start.where);
    run_rows(run.battles, grain(run), [&](int64_t begin, int64_t end) { reset_battles(run, start, begin, end); });
  }

 private:
  static int64_t grain(const Run& run) { return std::max<int64_t>(1, kGrain * 2 * kLanes / run.scenario.slots); }
};

}  // namespace
}  // namespace emix::battle

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::battle::register_ops<emix::battle::Cpu>(m); }
