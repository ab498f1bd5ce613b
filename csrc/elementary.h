// exp and log, as loops that vectorise and with the same bits on CPU and GPU: every operation is exactly rounded (fused
// multiply-adds among them), so there is nothing that a compiler or a mathematical library could do otherwise.
// The float64 forms are the library's.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "device.h"

namespace emix {

EMIX_HD uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

EMIX_HD float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // their sum is ln 2

// Within 1.1 ulp (measured); below 2^-125 it is 0. Polynomial: Cephes, expf.
EMIX_HD float exponential(float x) {
  const float kRound = 0x1.8p23f;  // adding it leaves an integer in the low bits
  x = x < -87.3f ? -87.3f : x;     // a NaN stays one
  x = x > 88.8f ? 88.8f : x;
  const float shifted = fmaf(x, 1.44269504f, kRound), n = shifted - kRound;
  const float r = fmaf(n, -kLn2Low, fmaf(n, -kLn2High, x));  // in [-ln 2 / 2, ln 2 / 2]
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  return 2 * p * float_of((bits_of(shifted) + 126) << 23);  // 2^(n - 1): 2^n itself may be out of range
}

// Within 0.9 ulp (measured); log 0 = -inf, NaN below. Polynomial: Cephes, logf.
EMIX_HD float logarithm(float x) {
  const uint32_t kHalfRoot = 0x3f3504f3u;  // sqrt(1/2)
  const bool tiny = x < 0x1p-126f;
  const uint32_t bits = bits_of(x * (tiny ? 0x1p23f : 1.0f)) - kHalfRoot;
  const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23) - (tiny ? 23.0f : 0.0f);
  const float f = float_of((bits & 0x7fffffu) + kHalfRoot) - 1.0f;  // x = 2^e (1 + f)
  float p = 7.0376836292e-2f;
  p = fmaf(p, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
  const float square = f * f;
  const float tail = fmaf(e, kLn2Low, fmaf(square, -0.5f, p * (f * square)));
  const float result = fmaf(e, kLn2High, f + tail);
  const float finite = x < INFINITY ? result : x;
  return x > 0 ? finite : x == 0 ? -INFINITY : NAN;
}

EMIX_HD double exponential(double x) { return ::exp(x); }
EMIX_HD double logarithm(double x) { return ::log(x); }

}  // namespace emix
