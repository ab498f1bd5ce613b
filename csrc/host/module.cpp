// emix._host: what needs neither torch nor a GPU. Never on an op's path.
#include <pybind11/pybind11.h>

#include "cuda_versions.h"
#include "host/battle.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace py = pybind11;

namespace {

py::dict build() {
  py::dict info;
  info["version"] = EMIX_BUILD_VERSION;
  info["compiler"] = EMIX_BUILD_COMPILER;
  info["torch"] = EMIX_BUILD_TORCH;
  info["cuda"] = EMIX_BUILD_CUDA;
  info["cuda_version"] = EMIX_BUILD_CUDA_VERSION;
  info["cuda_architectures"] = EMIX_BUILD_CUDA_ARCHITECTURES;
  return info;
}

py::dict battle_fields() {
  py::dict tables;
  const auto table = [&](const char* name) {
    py::list rows;
    tables[name] = rows;
    return rows;
  };
  py::list rows;
#define EMIX_BATTLE_ROW(name) rows.append(#name);
  rows = table("unit");
  EMIX_BATTLE_UNIT(EMIX_BATTLE_ROW)
  rows = table("mind");
  EMIX_BATTLE_MIND(EMIX_BATTLE_ROW)
  rows = table("clock");
  EMIX_BATTLE_CLOCK(EMIX_BATTLE_ROW)
  rows = table("stat");
  EMIX_BATTLE_STAT(EMIX_BATTLE_ROW)
  rows = table("trait");
  EMIX_BATTLE_TRAIT(EMIX_BATTLE_ROW)
  rows = table("rule");
  EMIX_BATTLE_RULE(EMIX_BATTLE_ROW)
#undef EMIX_BATTLE_ROW
  return tables;
}

// The enumerators of a list in their order, from 0, or as the powers of 2.
py::dict numbered(std::initializer_list<const char*> names, bool bits = false) {
  py::dict numbers;
  int next = 0;
  for (const char* name : names) numbers[name] = bits ? 1 << next : next, ++next;
  return numbers;
}

py::dict battle_constants() {
  py::dict constants;
  constants["lanes"] = emix::battle::kLanes;
  constants["map"] = emix::battle::kMap;
  constants["loops"] = emix::battle::kLoops;
  constants["max_slots"] = emix::battle::kMaxSlots;
#define EMIX_BATTLE_NAME(name) #name,
  constants["Order"] = numbered({EMIX_BATTLE_ORDER(EMIX_BATTLE_NAME)});
  constants["Status"] = numbered({EMIX_BATTLE_STATUS(EMIX_BATTLE_NAME)});
  constants["Tag"] = numbered({EMIX_BATTLE_TAG(EMIX_BATTLE_NAME)}, true);
  constants["Layer"] = numbered({EMIX_BATTLE_LAYER(EMIX_BATTLE_NAME)});
  constants["Weapon"] = numbered({EMIX_BATTLE_WEAPON(EMIX_BATTLE_NAME)});
  constants["EnemyOrder"] = numbered({EMIX_BATTLE_ENEMY_ORDER(EMIX_BATTLE_NAME)});
  constants["Retarget"] = numbered({EMIX_BATTLE_RETARGET(EMIX_BATTLE_NAME)});
  constants["Reward"] = numbered({EMIX_BATTLE_REWARD(EMIX_BATTLE_NAME)});
  constants["Feature"] = numbered({EMIX_BATTLE_FEATURE(EMIX_BATTLE_NAME)}, true);
#undef EMIX_BATTLE_NAME
  return constants;
}

py::tuple battle_sizes(int allies, int enemies, int type_bits, int ally_shield, int enemy_shield, int features) {
  const emix::battle::Scenario s =
      emix::battle::scenario_of(allies, enemies, type_bits, ally_shield, enemy_shield, features);
  return py::make_tuple(s.obs_size, s.state_size, s.actions);
}

// A large block is otherwise mapped anew each time and given back when freed, and the system zeroes its pages again.
bool keep_freed_memory() {
#ifdef __GLIBC__
  return mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1;  // -1: never trim
#else
  return false;
#endif
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host-side helpers of emix that need no torch.";
  m.def("build", &build,
        "How this package was built: version, compiler, torch (whose headers were used; any torch >= 2.10 runs it), "
        "cuda (ON or OFF), "
        "cuda_version and cuda_architectures (empty without CUDA).");
  m.def("driver_problem", &emix::driver_problem, py::arg("toolkit"), py::arg("driver"),
        "Why a CUDA driver does not run what a toolkit has built, versions as 12090 for 12.9 (driver 0: none); empty "
        "where it does.");
  m.def("driver_remedy", &emix::driver_remedy, py::arg("toolkit"), py::arg("driver"), "What to do about it.");
  m.def("battle_fields", &battle_fields, "The names of the rows of the battle's tensors, table by table.");
  m.def("battle_constants", &battle_constants, "The battle's sizes, and its enumerations by name.");
  m.def("battle_sizes", &battle_sizes, py::arg("allies"), py::arg("enemies"), py::arg("type_bits"),
        py::arg("ally_shield"), py::arg("enemy_shield"), py::arg("features"),
        "Of a layout: how many numbers an observation and the state have, and how many actions there are.");
  const auto array = [](const char* name) { return py::arg(name).noconvert(); };  // no copy: some are written to
  m.def("battle_observe", &emix::host::observe, array("units"), array("minds"), array("clock"), array("stats"),
        array("traits"), array("rules"), array("terrain"), py::arg("layout"),
        "One battle's observations [n, O], state [S] float32 and available actions [n, A] bool, of arrays as the "
        "battle's tensors; stats and traits are those of the unit that stands in each slot.");
  m.def("battle_score", &emix::host::score, array("before"), array("units"), array("minds"), array("clock"),
        array("stats"), array("traits"), array("rules"), array("terrain"), py::arg("layout"),
        "The end of an environment step: writes clock's step and status, and returns reward, terminated, truncated, "
        "battle_won, dead_allies, dead_enemies. before [slots] float32: each unit's health and shield at its start, 0 "
        "of the dead.");
  m.def("keep_freed_memory", &keep_freed_memory,
        "Let the C library keep freed memory for the next allocation, for the rest of this process. Returns whether it "
        "is glibc, which can.");
}
