// For the CPU: rows [rows, A] of a tensor into a tile [A][kLanes] and back, a row a lane, so that loops over a row's
// actions vectorise over the rows, whatever A is. Contiguous rows go through registers, 4 x 4 elements at a time.
#pragma once
#include <cstring>
#include <type_traits>

#include "mask.h"
#include "strided.h"

namespace emix {

inline constexpr int kLanes = 32;

template <class F>
struct Four {
  typedef F type __attribute__((vector_size(4 * sizeof(F))));
};

template <class F>
EMIX_HD void transpose(typename Four<F>::type (&x)[4]) {
  typedef typename Four<F>::type V;
  const V a = x[0], b = x[1], c = x[2], d = x[3];
  const V ab_low{a[0], b[0], a[1], b[1]}, cd_low{c[0], d[0], c[1], d[1]};
  const V ab_high{a[2], b[2], a[3], b[3]}, cd_high{c[2], d[2], c[3], d[3]};
  x[0] = V{ab_low[0], ab_low[1], cd_low[0], cd_low[1]};
  x[1] = V{ab_low[2], ab_low[3], cd_low[2], cd_low[3]};
  x[2] = V{ab_high[0], ab_high[1], cd_high[0], cd_high[1]};
  x[3] = V{ab_high[2], ab_high[3], cd_high[2], cd_high[3]};
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
EMIX_HD void load_tile(const Strided& view, int64_t first, int rows, int actions, F (*tile)[kLanes],
                       const Element& element, const FourElements& four_elements) {
  const bool by_fours = view.action == 1 && actions >= 4;
  const int whole = by_fours ? rows / 4 * 4 : 0;
  for (int row = 0; row < whole; row += 4)
    for_each_four(
        actions, [&](int a) __attribute__((always_inline)) {
          alignas(32) F block[4][4];
          for (int i = 0; i < 4; ++i) four_elements((first + row + i) * view.row + a, block[i]);
          typename Four<F>::type x[4];
          for (int i = 0; i < 4; ++i) memcpy(&x[i], block[i], sizeof x[i]);
          transpose<F>(x);
          for (int i = 0; i < 4; ++i) memcpy(&tile[a + i][row], &x[i], sizeof x[i]);
        });
  for (int row = whole; row < rows; ++row)
    for (int a = 0; a < actions; ++a) tile[a][row] = element((first + row) * view.row + a * view.action);
  for (int a = 0; a < actions && rows < kLanes; ++a)
    for (int row = rows; row < kLanes; ++row) tile[a][row] = 0;
}

template <class T, class F>
EMIX_HD void load_values(const Strided& view, int64_t first, int rows, int actions, F (*tile)[kLanes]) {
  const T* data = static_cast<const T*>(view.data);
  load_tile(
      view, first, rows, actions,
      tile, [&](int64_t i) __attribute__((always_inline)) { return static_cast<F>(data[i]); },
      [&](int64_t i, F * x) __attribute__((always_inline)) {
        if constexpr (std::is_same_v<T, F>)
          memcpy(x, data + i, 4 * sizeof(F));
        else
          for (int j = 0; j < 4; ++j) x[j] = static_cast<F>(data[i + j]);
      });
}

// 1 and 0; without a mask 1 everywhere.
template <class F>
EMIX_HD void load_mask(const Strided& view, int64_t first, int rows, int actions, F (*tile)[kLanes]) {
  if (!view.data) {
    for (int a = 0; a < actions; ++a)
      for (int row = 0; row < kLanes; ++row) tile[a][row] = 1;
  } else if (view.itemsize == 1) {  // bool, the common case
    const uint8_t* data = static_cast<const uint8_t*>(view.data);
    typedef std::conditional_t<sizeof(F) == 8, int64_t, int32_t> Integer;
    typedef Integer Integers __attribute__((vector_size(4 * sizeof(F))));
    load_tile(
        view, first, rows, actions,
        tile, [&](int64_t i) __attribute__((always_inline)) { return data[i] ? F(1) : F(0); },
        [&](int64_t i, F * x) __attribute__((always_inline)) {
          int32_t bytes;
          memcpy(&bytes, data + i, sizeof bytes);
          const Integers set = ((Integers{} + bytes) & Integers{0xff, 0xff00, 0xff0000, int32_t(0xff000000)}) != 0;
          const typename Four<F>::type mask = -__builtin_convertvector(set, typename Four<F>::type);  // true is -1
          memcpy(x, &mask, sizeof mask);
        });
  } else {
    const auto element = [&](int64_t i) __attribute__((always_inline)) {
      return mask_at(view.data, view.itemsize, i) ? F(1) : F(0);
    };
    load_tile(
        view, first, rows, actions, tile, element, [&](int64_t i, F * x) __attribute__((always_inline)) {
          for (int j = 0; j < 4; ++j) x[j] = element(i + j);
        });
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
          for (int i = 0; i < 4; ++i) memcpy(&x[i], &tile[a + i][row], sizeof x[i]);
          transpose<F>(x);
          for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) out[(first + row + i) * actions + a + j] = static_cast<T>(x[i][j]);
        });
  for (int row = whole; row < rows; ++row)
    for (int a = 0; a < actions; ++a) out[(first + row) * actions + a] = static_cast<T>(tile[a][row]);
}

}  // namespace emix
