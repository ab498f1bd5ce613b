// Divider against the processor's division, at the ends of the range and over random numbers of every size.
#include "divider.h"

#include <cstdio>
#include <limits>
#include <random>
#include <vector>

template <class Integer>
int mistakes() {
  constexpr int kBits = 8 * sizeof(Integer) - 1;
  constexpr Integer kMost = std::numeric_limits<Integer>::max();
  std::mt19937_64 random(1);
  const auto any_size = [&] { return static_cast<Integer>(random() & kMost) >> random() % kBits; };
  std::vector<Integer> divisors = {1, 2, 3, kMost, kMost - 1};
  for (int bit = 1; bit < kBits; ++bit)
    for (int near = -1; near <= 1; ++near) divisors.push_back((Integer(1) << bit) + near);
  for (int k = 0; k < 10000; ++k) divisors.push_back(any_size() | 1);
  int wrong = 0;
  for (const Integer divisor : divisors) {
    const emix::Divider<Integer> divider(divisor);
    const Integer most = kMost / divisor * divisor;  // the largest multiple
    std::vector<Integer> numbers = {0, 1, divisor - 1, divisor, most - 1, most, kMost};
    for (int k = 0; k < 100; ++k) numbers.push_back(any_size());
    for (const Integer number : numbers) {
      Integer quotient = number;
      const Integer rest = divider.divide(quotient);
      wrong += quotient != number / divisor || rest != number % divisor;
    }
  }
  return wrong;
}

int main() { std::printf("%d %d\n", mistakes<int32_t>(), mistakes<int64_t>()); }
