// The order in which blocks, warps and lanes run: EMIX_EMULATOR_ORDER=ascending|descending|shuffled[:seed], or
// set_order().
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

enum class Order { kAscending, kDescending, kShuffled };

struct Schedule {
  Order order = Order::kAscending;
  uint64_t seed = 0;  // of kShuffled
};

inline thread_local std::optional<Schedule> chosen_schedule;

// For the launches that this OS thread makes from now on; without it, the environment variable at the time of the
// launch holds.
inline void set_order(Order order, uint64_t seed = 0) { chosen_schedule = Schedule{order, seed}; }
inline void reset_order() { chosen_schedule.reset(); }

inline Schedule current_schedule() {
  if (chosen_schedule) return *chosen_schedule;
  const char* variable = std::getenv("EMIX_EMULATOR_ORDER");
  const std::string text = variable ? variable : "ascending", prefix = "shuffled:";
  if (text == "ascending") return {Order::kAscending};
  if (text == "descending") return {Order::kDescending};
  if (text == "shuffled") return {Order::kShuffled};
  const std::string seed = text.rfind(prefix, 0) == 0 ? text.substr(prefix.size()) : "";
  if (seed.empty() || seed.size() > 18 || seed.find_first_not_of("0123456789") != std::string::npos) {
    throw std::invalid_argument(
        "EMIX_EMULATOR_ORDER must be ascending, descending, shuffled or shuffled:<seed>, got '" + text + "'");
  }
  return {Order::kShuffled, std::stoull(seed)};
}

// Deals out the numbers 0 ... count - 1. A launch makes its own from the seed, so it repeats whatever ran before.
class Dealer {
 public:
  explicit Dealer(Schedule schedule) : order_(schedule.order), random_(schedule.seed) {}

  std::vector<uint64_t> numbers(uint64_t count) {
    std::vector<uint64_t> result(count);
    std::iota(result.begin(), result.end(), 0);
    if (order_ == Order::kDescending) std::reverse(result.begin(), result.end());
    deal_again(result);
    return result;
  }
  void deal_again(std::vector<uint64_t>& numbers) {
    if (order_ == Order::kShuffled) std::shuffle(numbers.begin(), numbers.end(), random_);
  }

 private:
  Order order_;
  std::mt19937_64 random_;
};

}  // namespace emulator
