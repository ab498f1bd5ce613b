// What the rules use as an index, and where a unit stands: state and tables may come from anywhere. Whoever can look at
// them before anything is changed refuses them (the CPU, check_contents); a GPU, which nobody waits for, mends them.
#pragma once
#include "battle/battle.h"

namespace emix::battle {

EMIX_HD bool names_slot(int index, int slots) { return index >= 0 && index < slots; }
EMIX_HD bool names_slot_or_nobody(int index, int slots) { return index >= kNobody && index < slots; }
EMIX_HD bool has_subject(int order) { return is(order, Order::attack) || is(order, Order::heal); }

// A name of no slot becomes nobody, an order about nobody a stop, a place off the map its corner.
EMIX_HD void mend(const Battle& b, int i) {
  for (const mind::Row row : {mind::kind, mind::order_target, mind::target, mind::attacker})
    if (!names_slot_or_nobody(b[row][i], b.slots)) b[row][i] = kNobody;
  if (has_subject(b[mind::order][i]) && b[mind::order_target][i] == kNobody)
    b[mind::order][i] = static_cast<int>(Order::stop);
  if (!inside(b[unit::x][i], b[unit::y][i])) b[unit::x][i] = b[unit::y][i] = 0;
}

}  // namespace emix::battle
