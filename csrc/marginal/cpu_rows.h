// Which rows the blocks have. Few agents, or agents that are sure of what to do, draw the same joint action again and
// again: each distinct one of a state is a row once, with how often it was drawn.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "cpu_memory.h"
#include "marginal/marginal.h"

namespace emix::marginal {

inline constexpr int64_t kBlockRows = 64;           // where that is not too much memory:
inline constexpr int64_t kBlockElements = 1 << 18;  // of agents x rows x H
inline constexpr int64_t kDraws = 4096;             // of a state among which equal ones are found

inline int64_t most_rows(const Problem& p) {
  const int64_t row = std::max<int64_t>(1, p.agents * padded(p.hidden, kColumns));
  const int64_t rows = std::clamp(kBlockElements / row / kPadRows * kPadRows, kPadRows, kBlockRows);
  return std::min(rows, padded(p.states * p.samples, kPadRows));
}

template <class F>
struct Row {
  int64_t place;  // of the first agent's action
  F count = 1;    // of draws

  explicit Row(int64_t at) : place(at) {}
};

// The distinct joint actions of a state, in the order of their first draws. Agents' actions are the digits of a number
// to the base A, and a hash table has the numbers seen. Where they may take more than 64 bits, and for continuous
// actions, every draw is a row.
template <class F>
class Distinct {
 public:
  std::vector<Row<F>> rows;

  explicit Distinct(const Problem& problem) : p(problem), numbered(p.samples > 1 && !p.continuous && numbers_fit()) {
    const int64_t draws = std::min(p.samples, kDraws);
    rows.reserve(draws);
    if (!numbered) return;
    while (int64_t(1) << bits < 2 * draws) ++bits;
    slots.resize(size_t(1) << bits);
    numbers.reserve(draws);
  }

  // Of the samples from `begin` to `end`, at most kDraws.
  void find(int64_t state, int64_t begin, int64_t end) {
    rows.clear(), numbers.clear();
    std::fill(slots.begin(), slots.end(), 0);
    for (int64_t sample = begin; sample < end; ++sample) {
      const int64_t place = p.place(sample, state, 0);
      if (!numbered || is_new(place)) rows.emplace_back(place);
    }
  }

 private:
  const Problem& p;
  const bool numbered;
  int bits = 1;
  std::vector<int> slots;         // 2^bits: 1 + the row, or 0
  std::vector<uint64_t> numbers;  // of the rows

  bool numbers_fit() const {
    const auto base = static_cast<uint64_t>(p.choices);
    uint64_t count = 1;
    for (int64_t i = 0; i < p.agents; ++i) {
      if (count > std::numeric_limits<uint64_t>::max() / base) return false;
      count *= base;
    }
    return true;
  }

  // Whether no row has this joint action yet. The row that has it counts it.
  bool is_new(int64_t place) {
    uint64_t number = 0;
    for (int64_t i = 0; i < p.agents; ++i) number = number * p.choices + p.index(place + i);
    size_t slot = number * 0x9E3779B97F4A7C15 >> (64 - bits);  // by the golden ratio: neighbours lie far apart
    for (; slots[slot] > 0; slot = (slot + 1) % slots.size()) {
      if (numbers[slots[slot] - 1] != number) continue;
      rows[slots[slot] - 1].count += 1;
      return false;
    }
    numbers.push_back(number);
    slots[slot] = static_cast<int>(numbers.size());
    return true;
  }
};

// A block's rows of one state.
struct Segment {
  int64_t state, begin, end;
  bool first, last;  // whether the state's first row is among them, and its last one
};

// The rows of neighbouring states, a block after the other. A state may begin in one block and end in a later one.
template <class F>
class Rows {
 public:
  std::vector<Row<F>> rows;  // of the block
  std::vector<Segment> segments;

  explicit Rows(const Problem& problem) : p(problem), most(most_rows(problem)), distinct(problem) {
    rows.reserve(most), segments.reserve(most);
  }

  // Blocks are from here on of these states.
  void start(int64_t begin, int64_t end) {
    state = begin - 1, states_end = end;
    looked_through = p.samples, taken = 0;
    distinct.rows.clear();
  }

  // The next block, if there is one.
  bool next() {
    rows.clear(), segments.clear();
    while (static_cast<int64_t>(rows.size()) < most && found()) take();
    return !rows.empty();
  }

 private:
  const Problem& p;
  const int64_t most;
  Distinct<F> distinct;
  int64_t state = 0, states_end = 0;      // the present one, and that behind the last
  int64_t looked_through = 0, taken = 0;  // of its samples, and of the distinct rows found last

  // Whether there are rows that no block has.
  bool found() {
    if (taken < static_cast<int64_t>(distinct.rows.size())) return true;
    if (looked_through == p.samples) ++state, looked_through = 0;
    if (state >= states_end) return false;
    const int64_t end = std::min(looked_through + kDraws, p.samples);
    distinct.find(state, looked_through, end);
    looked_through = end, taken = 0;
    return true;
  }

  void take() {
    const auto begin = static_cast<int64_t>(rows.size()), count = static_cast<int64_t>(distinct.rows.size());
    const int64_t end = std::min(most, begin + count - taken);
    const auto from = distinct.rows.begin() + taken;
    const bool first = taken == 0 && looked_through <= kDraws;
    rows.insert(rows.end(), from, from + (end - begin));
    taken += end - begin;
    segments.push_back({state, begin, end, first, taken == count && looked_through == p.samples});
  }
};

}  // namespace emix::marginal
