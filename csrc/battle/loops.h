// The phases of a battle as loops over its units, on one thread (simulate.h).
#pragma once
#include "battle/battle.h"

namespace emix::battle {

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

}  // namespace emix::battle
