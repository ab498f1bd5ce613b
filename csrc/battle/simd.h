// A unit's numbers, as many units at once as the device takes: on the GPU a thread has one, on the CPU a vector holds
// eight. The rules are written once for both: F floats, I integers, M what a comparison gives. Branches are taken with
// select(), or where any() of the units needs them.
#pragma once
#include <cmath>
#include <cstdint>

#include "battle/fields.h"
#include "device.h"

namespace emix::battle {

// One unit: the GPU's.
struct One {
  using F = float;
  using I = int;
  using M = bool;
  static constexpr int kWidth = 1;
  static EMIX_HD F splat(float x) { return x; }
  static EMIX_HD I splat(int x) { return x; }
  static EMIX_HD I index(int i) { return i; }
};

EMIX_HD float select(bool m, float a, float b) { return m ? a : b; }
EMIX_HD int select(bool m, int a, int b) { return m ? a : b; }
EMIX_HD bool any(bool m) { return m; }
EMIX_HD float square_root(float x) { return std::sqrt(x); }
EMIX_HD int to_int(float x) { return static_cast<int>(x); }
EMIX_HD bool lane(bool m, int) { return m; }
template <class T>
EMIX_HD T& lane(T& x, int) {
  return x;
}

template <class V, class T>
EMIX_HD auto load(const T* row, int i) {
  if constexpr (V::kWidth == 1) {
    return row[i];
  } else {
    decltype(V::splat(T())) values;
    __builtin_memcpy(&values, row + i, sizeof values);
    return values;
  }
}

#if !defined(__CUDACC__) && !defined(EMIX_EMULATED)

// Eight neighbouring slots: the CPU's. GCC's vectors, which every instruction set can compute.
struct Eight {
  typedef float F __attribute__((vector_size(32)));
  typedef int I __attribute__((vector_size(32)));
  using M = I;
  static constexpr int kWidth = 8;
  static EMIX_HD F splat(float x) { return F{} + x; }
  static EMIX_HD I splat(int x) { return I{} + x; }
  static EMIX_HD I index(int i) { return I{0, 1, 2, 3, 4, 5, 6, 7} + i; }
};
static_assert(Eight::kWidth == kLanes);

EMIX_HD Eight::F select(Eight::M m, Eight::F a, Eight::F b) { return m ? a : b; }
EMIX_HD Eight::F select(Eight::M m, Eight::F a, float b) { return m ? a : Eight::splat(b); }
EMIX_HD Eight::F select(Eight::M m, float a, Eight::F b) { return m ? Eight::splat(a) : b; }
EMIX_HD Eight::F select(Eight::M m, float a, float b) { return m ? Eight::splat(a) : Eight::splat(b); }
EMIX_HD Eight::I select(Eight::M m, Eight::I a, Eight::I b) { return m ? a : b; }
EMIX_HD Eight::I select(Eight::M m, Eight::I a, int b) { return m ? a : Eight::splat(b); }
EMIX_HD Eight::I select(Eight::M m, int a, Eight::I b) { return m ? Eight::splat(a) : b; }
EMIX_HD Eight::I select(Eight::M m, int a, int b) { return m ? Eight::splat(a) : Eight::splat(b); }

EMIX_HD bool any(Eight::M m) {
  typedef int64_t Halves __attribute__((vector_size(32)));
  const Halves bits = reinterpret_cast<Halves>(m);
  return (bits[0] | bits[1] | bits[2] | bits[3]) != 0;
}

EMIX_HD Eight::F square_root(Eight::F x) {
  for (int k = 0; k < Eight::kWidth; ++k) x[k] = __builtin_sqrtf(x[k]);
  return x;
}

EMIX_HD Eight::I to_int(Eight::F x) { return __builtin_convertvector(x, Eight::I); }
EMIX_HD float& lane(Eight::F& x, int k) { return reinterpret_cast<float*>(&x)[k]; }
EMIX_HD int& lane(Eight::I& x, int k) { return reinterpret_cast<int*>(&x)[k]; }
EMIX_HD float lane(const Eight::F& x, int k) { return x[k]; }
EMIX_HD int lane(const Eight::I& x, int k) { return x[k]; }

EMIX_HD void store(float* row, int i, Eight::F values) { __builtin_memcpy(row + i, &values, sizeof values); }
EMIX_HD void store(int* row, int i, Eight::I values) { __builtin_memcpy(row + i, &values, sizeof values); }
#endif

EMIX_HD void store(float* row, int i, float value) { row[i] = value; }
EMIX_HD void store(int* row, int i, int value) { row[i] = value; }

// row[index], unit by unit.
template <class V, class T>
EMIX_HD auto gather(const T* row, const typename V::I& index) {
  decltype(V::splat(T())) values;
  for (int k = 0; k < V::kWidth; ++k) lane(values, k) = row[lane(index, k)];
  return values;
}

template <class F>
EMIX_HD F smaller(F a, F b) {
  return select(b < a, b, a);
}

template <class F>
EMIX_HD F larger(F a, F b) {
  return select(b > a, b, a);
}

}  // namespace emix::battle
