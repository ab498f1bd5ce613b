// How an ensemble's rows are shared out among cores: the same tasks, and so the same sums, for any number of threads.
#pragma once
#include <algorithm>

#include "device.h"
#include "torch.h"

namespace emix {

inline constexpr int64_t kWorthAThread = 64;  // rows x members

// A task is a group of neighbouring blocks of rows, and one member. The members of a group follow each other, so that
// its rows are still in the second cache.
struct Tasks {
  int64_t blocks, groups, members;

  int64_t count() const { return groups * members; }
  EMIX_HD int64_t member(int64_t task) const { return task % members; }
  EMIX_HD int64_t group(int64_t task) const { return task / members; }
  EMIX_HD int64_t begin(int64_t task) const { return group(task) * blocks / groups; }
  EMIX_HD int64_t end(int64_t task) const { return (group(task) + 1) * blocks / groups; }
  int64_t grain(int64_t rows) const {
    return std::max<int64_t>(1, kWorthAThread * groups / std::max<int64_t>(1, rows));
  }
};

// Groups of so many blocks; at least one group.
inline Tasks tasks_of_size(int64_t blocks, int64_t members, int64_t size) {
  return {blocks, std::max<int64_t>(1, (blocks + size - 1) / size), members};
}

// So many tasks, but none of fewer blocks than `least` where there is more than one group.
inline Tasks tasks_of_number(int64_t blocks, int64_t members, int64_t number, int64_t least) {
  return {blocks, std::max<int64_t>(1, std::min(blocks / least, (number + members - 1) / members)), members};
}

// The tasks' sums [groups, members, elements], over the groups in order: write(member, total) for each member.
template <class F, class Write>
void sum_groups(const Tasks& tasks, int64_t elements, F* sums, const Write& write) {
  run_rows(tasks.members, std::max<int64_t>(1, (1 << 14) / elements), [&](int64_t begin, int64_t end) {
    for (int64_t member = begin; member < end; ++member) {
      F* total = sums + member * elements;
      for (int64_t group = 1; group < tasks.groups; ++group)
        for (int64_t k = 0; k < elements; ++k) total[k] += total[group * tasks.members * elements + k];
      write(member, total);
    }
  });
}

// [N, size] summed over the members in order.
template <class F>
void sum_members(const void* parts, int64_t members, int64_t size, void* result) {
  const F* part = static_cast<const F*>(parts);
  F* total = static_cast<F*>(result);
  run_rows(size, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) total[k] = part[k];
    for (int64_t member = 1; member < members; ++member)
      for (int64_t k = begin; k < end; ++k) total[k] += part[member * size + k];
  });
}

}  // namespace emix
