// Division by a number that the host knows, as a product: a GPU divides 64-bit numbers in a subroutine of a hundred
// instructions.
//
// With l = ceil(log2 d) and m = ceil(2^(N + l) / d), floor(n / d) = floor(m n / 2^(N + l)) for all 0 <= n < 2^N
// (Granlund and Montgomery 1994, theorem 4.2). N is one less than the bits of a word, so m fits into one.
#pragma once
#include <type_traits>

#include "device.h"

namespace emix {

// Integer: int32_t or int64_t. Of numbers that are not negative, by one that is positive.
template <class Integer>
class Divider {
  using Word = std::make_unsigned_t<Integer>;

 public:
  Divider() : Divider(1) {}
  explicit Divider(Integer divisor) : divisor_(divisor) {
    while (shift_ < kBits - 1 && Word(1) << shift_ < Word(divisor)) ++shift_;
    const unsigned __int128 power = static_cast<unsigned __int128>(1) << (kBits - 1 + shift_);
    factor_ = static_cast<Word>((power + Word(divisor) - 1) / Word(divisor));
  }

  EMIX_HD Integer divisor() const { return divisor_; }
  EMIX_HD Integer quotient(Integer n) const { return Integer(high_half(factor_, Word(n) << 1) >> shift_); }

  // From n to n / divisor; what remains is returned.
  EMIX_HD Integer divide(Integer& n) const {
    const Integer all = n;
    n = quotient(all);
    return all - n * divisor_;
  }

 private:
  static EMIX_HD Word high_half(Word a, Word b) {  // of their product
    if constexpr (sizeof(Word) == 4) {
      return static_cast<Word>(static_cast<uint64_t>(a) * b >> 32);
    } else {
#if defined(__CUDA_ARCH__)
      return __umul64hi(a, b);
#else
      return static_cast<Word>(static_cast<unsigned __int128>(a) * b >> 64);
#endif
    }
  }

  static constexpr int kBits = 8 * sizeof(Integer);
  Word factor_ = 0;
  Integer divisor_ = 1;
  int shift_ = 0;
};

}  // namespace emix
