// ensemble on the CPU: neighbouring places share a vector, and a place's members are read once.
#include <algorithm>

#include "ensemble/ops.h"
#include "ensemble/tiles.h"
#include "instruction_sets.h"
#include "lanes.h"

namespace emix::ensemble {
namespace {

inline constexpr int64_t kGrain = 32768;  // values that are worth waking a thread

// A tile of rows, a row a lane (lanes.h).
template <class F>
struct RowTile {
  alignas(64) F logit[kMaxActions][kLanes], available[kMaxActions][kLanes], kurtosis[kMaxActions][kLanes];
  alignas(64) F excess[kLanes];  // above 0 where the gate is open
};

// `kurtosis` [rows, A] are those of the rows from `first` on.
template <class T, class F>
EMIX_HD void explore(const Exploration& e, const F* kurtosis, int64_t first, int rows, RowTile<F>& tile) {
  load_values<T>(e.logits, first, rows, e.actions, tile.logit);
  load_mask(e.avail, first, rows, e.actions, tile.available);
  load_values<F>({kurtosis, {rows, e.actions}, {e.actions, 1}, sizeof(F)}, 0, rows, e.actions, tile.kurtosis);
  for (int row = 0; row < kLanes; ++row) tile.excess[row] = 0;
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      tile.excess[row] += excess(tile.kurtosis[a][row], tile.available[a][row] != 0);
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      tile.logit[a][row] = explored(tile.logit[a][row], tile.kurtosis[a][row], static_cast<F>(e.bonus),
                                    tile.available[a][row] != 0, tile.excess[row] > 0);
}

template <class T, class F>
EMIX_HD void explore_rows(const Exploration& e, const F* kurtosis, int64_t first, int rows, F* out) {
  RowTile<F> tile;
  explore<T>(e, kurtosis, first, rows, tile);
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      tile.logit[a][row] = tile.available[a][row] != 0 ? tile.logit[a][row] : -static_cast<F>(INFINITY);
  store_values(out, first, rows, e.actions, tile.logit);
}

// As in sampling, one draw a row.
template <class T, class F>
EMIX_HD void draw_rows(const Exploration& e, const F* kurtosis, int64_t first, int rows, const Drawn& out) {
  RowTile<F> tile;
  explore<T>(e, kurtosis, first, rows, tile);
  const auto floor = e.floor.read<float>(e.actions);
  alignas(64) float weight[kMaxActions][kLanes], largest[kLanes], sum[kLanes], total[kLanes], cumulative[kLanes],
      chosen[kLanes];
  alignas(64) int32_t uniform[kLanes], action[kLanes];
  for (int row = 0; row < kLanes; ++row) {
    largest[row] = -INFINITY, sum[row] = total[row] = cumulative[row] = 0, action[row] = 0;
    uniform[row] = sampling::uniform_bits(philox(*e.seed, 0, first + row).word[0]);
  }
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const float logit = weight[a][row] =
          policy::counted(static_cast<float>(tile.logit[a][row]), tile.available[a][row] != 0, floor);
      largest[row] = logit > largest[row] ? logit : largest[row];
    }
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      sum[row] += weight[a][row] = sampling::relative_exponential(weight[a][row], largest[row]);
  for (int a = 0; a < e.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      total[row] += weight[a][row] = policy::weight(weight[a][row], sum[row], tile.available[a][row] != 0, floor);
  for (int row = 0; row < kLanes; ++row) chosen[row] = weight[0][row];
  for (int a = 0; a < e.actions - 1; ++a)
    for (int row = 0; row < kLanes; ++row) {
      cumulative[row] += weight[a][row];
      const bool past = uniform[row] > sampling::threshold(cumulative[row], total[row]);
      action[row] += past, chosen[row] = past ? weight[a + 1][row] : chosen[row];
    }
  for (int row = 0; row < rows; ++row) {
    out.action[first + row] = action[row];
    out.probability[first + row] = probability(chosen[row], total[row]);
    out.open[first + row] = tile.excess[row] > 0;
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type.
#define EMIX_ENSEMBLE_CLONES(SETS, T)                                                                             \
  SETS void forward(T, const View<2>& values, int64_t first, int count, Wide<T>* mean, Wide<T>* variance,         \
                    Wide<T>* kurtosis) {                                                                          \
    take_moments<T>(values, first, count, mean, variance, kurtosis);                                              \
  }                                                                                                               \
  SETS void backward(const View<2>& values, const Upstreams& grads, T* out, int64_t first, int count) {           \
    take_gradients<T, Wide<T>>(values, grads, out, first, count);                                                 \
  }                                                                                                               \
  SETS void finish(T, const Exploration& e, const Wide<T>* kurtosis, int64_t first, int rows, Wide<T>* out) {     \
    explore_rows<T>(e, kurtosis, first, rows, out);                                                               \
  }                                                                                                               \
  SETS void finish(T, const Exploration& e, const Wide<T>* kurtosis, int64_t first, int rows, const Drawn& out) { \
    draw_rows<T>(e, kurtosis, first, rows, out);                                                                  \
  }
EMIX_ENSEMBLE_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_ENSEMBLE_CLONES(EMIX_BASELINE, double)
EMIX_ENSEMBLE_CLONES(EMIX_BASELINE, Half)
EMIX_ENSEMBLE_CLONES(EMIX_BASELINE, BFloat16)

#define EMIX_WEIGHT_CLONES(SETS, F)                                      \
  SETS void weigh(const F* kurtosis, F scale, F* out, int count) {       \
    for (int k = 0; k < count; ++k) out[k] = weight(kurtosis[k], scale); \
  }
EMIX_WEIGHT_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_WEIGHT_CLONES(EMIX_BASELINE, double)

// f(first, count) for every tile of the places, on several threads.
template <class F>
void for_each_tile(const View<2>& values, const F& f) {
  run_rows(values.size[1], std::max<int64_t>(kTile, kGrain / members_of(values)), [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kTile)
      f(first, static_cast<int>(std::min<int64_t>(kTile, end - first)));
  });
}

// The kurtoses of rows first .. first + rows - 1, [rows, A]: all their places at once where they lie in one line.
template <class T>
void take_kurtoses(const Exploration& e, int64_t first, int rows, Wide<T>* kurtosis) {
  const int64_t member_stride = e.q.stride[0], row_stride = e.q.stride[1], stride = e.q.stride[2];
  const bool line = row_stride == e.actions * stride;
  const int64_t places = line ? int64_t(rows) * e.actions : e.actions;
  TileMoments<Wide<T>> tile;
  for (int row = 0; row < (line ? 1 : rows); ++row) {
    const View<2> values{e.q.at<T>(0, first + row), {e.members, places}, {member_stride, stride}, sizeof(T)};
    for (int64_t k = 0; k < places; k += kTile) {
      const int count = static_cast<int>(std::min<int64_t>(kTile, places - k));
      forward(T(), values, k, count, tile.mean, tile.variance, tile.kurtosis);
      std::copy_n(tile.kurtosis, count, kurtosis + row * e.actions + k);
    }
  }
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T>
  void moments(const View<2>& values, const MomentsResults& out) const {
    using F = Wide<T>;
    F *const mean = static_cast<F*>(out.mean), *const variance = static_cast<F*>(out.variance),
             *const kurtosis = static_cast<F*>(out.kurtosis);
    for_each_tile(values, [&](int64_t first, int count) {
      forward(T(), values, first, count, mean + first, variance + first, kurtosis + first);
    });
  }

  template <class T>
  void moments_backward(const View<2>& values, const Upstreams& grads, T* out) const {
    for_each_tile(values, [&](int64_t first, int count) { backward(values, grads, out, first, count); });
  }

  template <class T>
  void weights(const View<2>& values, Wide<T> scale, Wide<T>* out) const {
    for_each_tile(values, [&](int64_t first, int count) {
      TileMoments<Wide<T>> tile;
      forward(T(), values, first, count, tile.mean, tile.variance, tile.kurtosis);
      weigh(tile.kurtosis, scale, out + first, count);
    });
  }

  template <class T>
  void explore(const Exploration& e, Wide<T>* out) const {
    finish_rows<T>(e, out);
  }
  template <class T>
  void draw(const Exploration& e, const Drawn& out) const {
    finish_rows<T>(e, out);
  }

 private:
  template <class T, class Out>
  static void finish_rows(const Exploration& e, const Out& out) {
    const int64_t grain = std::max<int64_t>(kLanes, kGrain / (int64_t(e.members) * e.actions) / kLanes * kLanes);
    run_rows(e.rows, grain, [&](int64_t begin, int64_t end) {
      Wide<T> kurtosis[kLanes * kMaxActions];
      for (int64_t first = begin; first < end; first += kLanes) {
        const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
        take_kurtoses<T>(e, first, rows, kurtosis);
        finish(T(), e, kurtosis, first, rows, out);
      }
    });
  }
};

}  // namespace
}  // namespace emix::ensemble

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::ensemble::register_ops<emix::ensemble::Cpu>(m); }
