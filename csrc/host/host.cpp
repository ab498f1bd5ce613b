// libemix_host.so: what needs neither torch nor a GPU nor Python, as C functions that python/emix/_host.py reads by
// ctypes, so that one wheel serves every Python. Never on an op's path. Sizes of arrays are the caller's to check.
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "battle/loops.h"
#include "battle/simulate.h"
#include "cuda_versions.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define EMIX_C extern "C" __attribute__((visibility("default")))

namespace {

using namespace emix::battle;

using Names = std::initializer_list<const char*>;

// "key": value, as a member of a JSON object.
std::string member(const std::string& key, const std::string& value) { return "\"" + key + "\": " + value; }

std::string object(std::initializer_list<std::string> members) {
  std::string text;
  for (const std::string& each : members) text += (text.empty() ? "" : ", ") + each;
  return "{" + text + "}";
}

std::string text(const char* key, const char* value) { return member(key, "\"" + std::string(value) + "\""); }

// A table's rows: their names in order.
std::string rows(const char* table, Names names) {
  std::string text;
  for (const char* name : names) text += (text.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  return member(table, "[" + text + "]");
}

// The enumerators of a list in their order, from 0, or as the powers of 2.
std::string numbered(const char* list, Names names, bool bits = false) {
  std::string text;
  int next = 0;
  for (const char* name : names) {
    text += (text.empty() ? "" : ", ") + member(name, std::to_string(bits ? 1 << next : next));
    ++next;
  }
  return member(list, "{" + text + "}");
}

#define EMIX_BATTLE_NAME(name) #name,

std::string build() {
  return object({text("version", EMIX_BUILD_VERSION), text("compiler", EMIX_BUILD_COMPILER),
                 text("torch", EMIX_BUILD_TORCH), text("cuda", EMIX_BUILD_CUDA),
                 text("cuda_version", EMIX_BUILD_CUDA_VERSION),
                 text("cuda_architectures", EMIX_BUILD_CUDA_ARCHITECTURES)});
}

std::string fields() {
  return object(
      {rows("unit", {EMIX_BATTLE_UNIT(EMIX_BATTLE_NAME)}), rows("mind", {EMIX_BATTLE_MIND(EMIX_BATTLE_NAME)}),
       rows("clock", {EMIX_BATTLE_CLOCK(EMIX_BATTLE_NAME)}), rows("stat", {EMIX_BATTLE_STAT(EMIX_BATTLE_NAME)}),
       rows("trait", {EMIX_BATTLE_TRAIT(EMIX_BATTLE_NAME)}), rows("rule", {EMIX_BATTLE_RULE(EMIX_BATTLE_NAME)})});
}

std::string constants() {
  return object({member("lanes", std::to_string(kLanes)), member("map", std::to_string(kMap)),
                 member("loops", std::to_string(kLoops)), member("max_slots", std::to_string(kMaxSlots)),
                 numbered("Order", {EMIX_BATTLE_ORDER(EMIX_BATTLE_NAME)}),
                 numbered("Status", {EMIX_BATTLE_STATUS(EMIX_BATTLE_NAME)}),
                 numbered("Tag", {EMIX_BATTLE_TAG(EMIX_BATTLE_NAME)}, true),
                 numbered("Layer", {EMIX_BATTLE_LAYER(EMIX_BATTLE_NAME)}),
                 numbered("Weapon", {EMIX_BATTLE_WEAPON(EMIX_BATTLE_NAME)}),
                 numbered("EnemyOrder", {EMIX_BATTLE_ENEMY_ORDER(EMIX_BATTLE_NAME)}),
                 numbered("Retarget", {EMIX_BATTLE_RETARGET(EMIX_BATTLE_NAME)}),
                 numbered("Reward", {EMIX_BATTLE_REWARD(EMIX_BATTLE_NAME)}),
                 numbered("Feature", {EMIX_BATTLE_FEATURE(EMIX_BATTLE_NAME)}, true)});
}

#undef EMIX_BATTLE_NAME

Scenario scenario_of(const int* layout) {  // [6]
  return emix::battle::scenario_of(layout[0], layout[1], layout[2], layout[3], layout[4], layout[5]);
}

}  // namespace

// One battle's arrays, as the battle's tensors; stats and traits are those of the unit that stands in each slot.
struct EmixBattle {
  float* units;
  int32_t* minds;
  int64_t* clock;
  float* stats;
  int32_t* traits;
  double* rules;
  uint8_t* terrain;
};

namespace {

Battle battle_of(Scenario& s, const EmixBattle& arrays) {
  s.rules = arrays.rules, s.terrain = arrays.terrain;
  Battle b;
  b.scenario = &s, b.slots = s.slots;
  b.units = arrays.units, b.minds = arrays.minds, b.clock = arrays.clock;
  b.stats = s.stats = arrays.stats;
  b.traits = s.traits = arrays.traits;
  return b;
}

}  // namespace

// How this was built, the names of the rows of the battle's tensors, its sizes and enumerations, as JSON.
EMIX_C const char* emix_host_tables() {
  static const std::string tables =
      object({member("build", build()), member("fields", fields()), member("constants", constants())});
  return tables.c_str();
}

// The sentence is good until this thread's next call.
EMIX_C const char* emix_host_driver_problem(int toolkit, int driver) {
  static thread_local std::string sentence;
  sentence = emix::driver_problem(toolkit, driver);
  return sentence.c_str();
}

EMIX_C const char* emix_host_driver_remedy(int toolkit, int driver) {
  static thread_local std::string sentence;
  sentence = emix::driver_remedy(toolkit, driver);
  return sentence.c_str();
}

// sizes [3]: how many numbers an observation and the state have, and how many actions there are.
EMIX_C void emix_host_battle_sizes(const int* layout, int* sizes) {
  const Scenario s = scenario_of(layout);
  sizes[0] = s.obs_size, sizes[1] = s.state_size, sizes[2] = s.actions;
}

// Writes obs [n, O], state [S] and avail [n, A].
EMIX_C void emix_host_battle_observe(const int* layout, const EmixBattle* arrays, float* obs, float* state,
                                     bool* avail) {
  Scenario s = scenario_of(layout);
  const Battle b = battle_of(s, *arrays);
  observe(Loops(), b, {obs, state, avail});
}

// The end of an environment step: writes clock's step and status, the reward, results [5]: terminated, truncated,
// battle_won, dead_allies, dead_enemies. before [slots]: each unit's health and shield at its start, 0 of the dead.
EMIX_C void emix_host_battle_score(const int* layout, const EmixBattle* arrays, const float* before, float* reward,
                                   int64_t* results) {
  Scenario s = scenario_of(layout);
  Battle b = battle_of(s, *arrays);
  std::vector<float> notes(static_cast<size_t>(note::rows) * s.slots);
  b.notes = notes.data();
  std::copy(before, before + s.slots, b[note::before]);
  bool terminated = false, truncated = false, won = false;
  report(b, 0, score(b), {reward, &terminated, &truncated, &won, results + 3, results + 4});
  results[0] = terminated, results[1] = truncated, results[2] = won;
}

// A large block is otherwise mapped anew each time and given back when freed, and the system zeroes its pages again.
EMIX_C int emix_host_keep_freed_memory() {
#ifdef __GLIBC__
  return mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1;  // -1: never trim
#else
  return 0;
#endif
}
