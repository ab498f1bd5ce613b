// For the CPU: rows [rows, A] of a tensor into a tile [A][kLanes] and back, a row a lane, so that loops over a row's
// actions vectorise over the rows, whatever A is. Contiguous rows go through registers, 4 x 4 elements at a time.
#pragma once
#include <cstring>
#include <type_traits>

#include "mask.h"
#include "view.h"

namespace emix {

inline constexpr int kLanes = 32;

template <class F>
struct Four {
  typedef F type __attribute__((vector_size(4 * sizeof(F))));
  typedef std::conditional_t<sizeof(F) == 8, int64_t, int32_t> Integer;
  typedef Integer index __attribute__((vector_size(4 * sizeof(F))));
};

// A named instruction, not elements put together one by one, which GCC leaves scalar. i to l: 0-3 of a, 4-7 of b.
#if defined(__clang__)
#define EMIX_SHUFFLE(F, a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define EMIX_SHUFFLE(F, a, b, i, j, k, l) __builtin_shuffle(a, b, typename Four<F>::index{i, j, k, l})
#endif

template <class F>
EMIX_HD void transpose(typename Four<F>::type (&x)[4]) {
  typedef typename Four<F>::type V;
  const V ab_low = EMIX_SHUFFLE(F, x[0], x[1], 0, 4, 1, 5), ab_high = EMIX_SHUFFLE(F, x[0], x[1], 2, 6, 3, 7);
  const V cd_low = EMIX_SHUFFLE(F, x[2], x[3], 0, 4, 1, 5), cd_high = EMIX_SHUFFLE(F, x[2], x[3], 2, 6, 3, 7);
  x[0] = EMIX_SHUFFLE(F, ab_low, cd_low, 0, 1, 4, 5);
  x[1] = EMIX_SHUFFLE(F, ab_low, cd_low, 2, 3, 6, 7);
  x[2] = EMIX_SHUFFLE(F, ab_high, cd_high, 0, 1, 4, 5);
  x[3] = EMIX_SHUFFLE(F, ab_high, cd_high, 2, 3, 6, 7);
}

// Four neighbours, as numbers of type F. By reference: where vectors of that size are no registers, returning them
// would have no agreed convention.
template <class F, class T>
EMIX_HD void load_four(const T* data, typename Four<F>::type& x) {
  if constexpr (std::is_same_v<T, F>) {
    memcpy(&x, data, sizeof x);
  } else {
    const F four[4] = {static_cast<F>(data[0]), static_cast<F>(data[1]), static_cast<F>(data[2]),
                       static_cast<F>(data[3])};
    memcpy(&x, four, sizeof x);
  }
}

template <class T, class F>
EMIX_HD void store_four(T* data, const typename Four<F>::type& x) {
  if constexpr (std::is_same_v<T, F>)
    memcpy(data, &x, sizeof x);
  else
    for (int j = 0; j < 4; ++j) data[j] = static_cast<T>(x[j]);
}

// The blocks' first actions: 0, 4, ..., and the last four. f(a) once for each; false where there are no four actions.
template <class F>
EMIX_HD bool for_each_four(int actions, const F& f) {
  if (actions < 4) return false;
  for (int a = 0; a < actions; a += 4) f(a + 4 <= actions ? a : actions - 4);
  return true;
}

// tile[a][row] = element(offset), or four_elements(offset, x) where neighbours can be had. Absent rows become 0.
template <class F, class Element, class FourElements>
EMIX_HD void load_tile(const View<2>& view, int64_t first, int rows, int actions, F (*tile)[kLanes],
                       const Element& element, const FourElements& four_elements) {
  const bool by_fours = view.stride[1] == 1 && actions >= 4;
  const int whole = by_fours ? rows / 4 * 4 : 0;
  for (int row = 0; row < whole; row += 4)
    for_each_four(
        actions, [&](int a) __attribute__((always_inline)) {
          typename Four<F>::type x[4];
          for (int i = 0; i < 4; ++i) four_elements((first + row + i) * view.stride[0] + a, x[i]);
          transpose<F>(x);
          for (int i = 0; i < 4; ++i) store_four<F, F>(&tile[a + i][row], x[i]);
        });
  for (int row = whole; row < rows; ++row)
    for (int a = 0; a < actions; ++a) tile[a][row] = element((first + row) * view.stride[0] + a * view.stride[1]);
  for (int a = 0; a < actions && rows < kLanes; ++a)
    for (int row = rows; row < kLanes; ++row) tile[a][row] = 0;
}

template <class T, class F>
EMIX_HD void load_values(const View<2>& view, int64_t first, int rows, int actions, F (*tile)[kLanes]) {
  const T* data = static_cast<const T*>(view.data);
  load_tile(
      view, first, rows, actions,
      tile, [&](int64_t i) __attribute__((always_inline)) { return static_cast<F>(data[i]); },
      [&](int64_t i, typename Four<F>::type & x) __attribute__((always_inline)) { load_four<F>(data + i, x); });
}

// 1 and 0; without a mask 1 everywhere.
template <class F>
EMIX_HD void load_mask(const View<2>& view, int64_t first, int rows, int actions, F (*tile)[kLanes]) {
  if (!view.given()) {
    for (int a = 0; a < actions; ++a)
      for (int row = 0; row < kLanes; ++row) tile[a][row] = 1;
  } else if (view.itemsize == 1) {  // bool, the common case
    const uint8_t* data = static_cast<const uint8_t*>(view.data);
    typedef typename Four<F>::index Integers;
    load_tile(
        view, first, rows, actions,
        tile, [&](int64_t i) __attribute__((always_inline)) { return data[i] ? F(1) : F(0); },
        [&](int64_t i, typename Four<F>::type & x) __attribute__((always_inline)) {
          int32_t bytes;
          memcpy(&bytes, data + i, sizeof bytes);
          const Integers set = ((Integers{} + bytes) & Integers{0xff, 0xff00, 0xff0000, int32_t(0xff000000)}) != 0;
          x = -__builtin_convertvector(set, typename Four<F>::type);  // true is -1
        });
  } else {
    for (int a = 0; a < actions; ++a)
      for (int row = 0; row < kLanes; ++row)
        tile[a][row] =
            row < rows && mask_at(view.data, view.itemsize, (first + row) * view.stride[0] + a * view.stride[1]);
  }
}

// out[(first + row) * actions + a] = tile[a][row]
template <class T, class F>
EMIX_HD void store_values(T* out, int64_t first, int rows, int actions, const F (*tile)[kLanes]) {
  const int whole = actions >= 4 ? rows / 4 * 4 : 0;
  for (int row = 0; row < whole; row += 4)
    for_each_four(
        actions, [&](int a) __attribute__((always_inline)) {
          typename Four<F>::type x[4];
          for (int i = 0; i < 4; ++i) load_four<F>(&tile[a + i][row], x[i]);
          transpose<F>(x);
          for (int i = 0; i < 4; ++i) store_four<T, F>(out + (first + row + i) * actions + a, x[i]);
        });
  for (int row = whole; row < rows; ++row)
    for (int a = 0; a < actions; ++a) out[(first + row) * actions + a] = static_cast<T>(tile[a][row]);
}

}  // namespace emix
