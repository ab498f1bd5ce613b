// sampling on the CPU: 32 rows at a time, a row a lane. Everything after the loads vectorises over the rows: the
// exponentials, Philox, and the search, which counts the thresholds that a draw exceeds.
#include <algorithm>

#include "instruction_sets.h"
#include "lanes.h"
#include "sampling/ops.h"

namespace emix::sampling {
namespace {

inline constexpr int64_t kGrain = 8192;  // draws and logits that are worth waking a thread

struct Tile {
  alignas(64) float logit[kMaxActions][kLanes];  // later exp(logit - largest)
  alignas(64) float available[kMaxActions][kLanes];
  alignas(64) int32_t threshold[kMaxActions][kLanes];
};

EMIX_HD void find_thresholds(const Problem& p, const Floor<float>& floor, Tile& tile) {
  alignas(64) float largest[kLanes], sum[kLanes], total[kLanes];
  for (int row = 0; row < kLanes; ++row) largest[row] = -INFINITY, sum[row] = total[row] = 0;
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const float logit = tile.logit[a][row] = counted(tile.logit[a][row], tile.available[a][row] != 0, floor);
      largest[row] = logit > largest[row] ? logit : largest[row];
    }
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      sum[row] += tile.logit[a][row] = relative_exponential(tile.logit[a][row], largest[row]);
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      tile.logit[a][row] = total[row] += weight(tile.logit[a][row], sum[row], tile.available[a][row] != 0, floor);
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row) tile.threshold[a][row] = threshold(tile.logit[a][row], total[row]);
}

template <class T, class Out>
EMIX_HD void draw_rows(const Problem& p, Out* out, int64_t begin, int64_t end) {
  Tile tile;
  const int64_t seed = *p.seed;
  const auto floor = p.floor.read<float>(p.actions);
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    load_values<T>(p.logits, first, rows, p.actions, tile.logit);
    load_mask(p.avail, first, rows, p.actions, tile.available);
    find_thresholds(p, floor, tile);
    for (int64_t draw = 0; draw < p.draws; draw += kWords) {
      alignas(64) int32_t uniform[kWords][kLanes];
      for (int row = 0; row < kLanes; ++row) {
        const Philox random = philox(seed, static_cast<uint32_t>(draw / kWords), first + row);
        for (int word = 0; word < kWords; ++word) uniform[word][row] = uniform_bits(random.word[word]);
      }
      for (int word = 0; word < std::min<int64_t>(kWords, p.draws - draw); ++word) {
        alignas(64) int32_t action[kLanes] = {};
        for (int a = 0; a < p.actions - 1; ++a)
          for (int row = 0; row < kLanes; ++row) action[row] += uniform[word][row] > tile.threshold[a][row];
        Out* target = out + (draw + word) * p.rows + first;
        if (rows == kLanes) {
          for (int row = 0; row < kLanes; ++row) target[row] = static_cast<Out>(action[row]);
        } else {
          for (int row = 0; row < rows; ++row) target[row] = static_cast<Out>(action[row]);
        }
      }
    }
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named.
#define EMIX_SAMPLING_CLONES(SETS, T)                                                                                 \
  SETS void draw(T, const Problem& p, int64_t* out, int64_t begin, int64_t end) { draw_rows<T>(p, out, begin, end); } \
  SETS void draw(T, const Problem& p, uint8_t* out, int64_t begin, int64_t end) { draw_rows<T>(p, out, begin, end); }
EMIX_SAMPLING_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_SAMPLING_CLONES(EMIX_BASELINE, double)
EMIX_SAMPLING_CLONES(EMIX_BASELINE, Half)
EMIX_SAMPLING_CLONES(EMIX_BASELINE, BFloat16)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class Out>
  void draw(ScalarType logits, const Problem& p, Out* out) const {
    const int64_t grain = std::max<int64_t>(kLanes, kGrain / (p.actions + p.draws) / kLanes * kLanes);
    dispatch_floating(logits, [&](auto type) {
      run_rows(p.rows, grain, [&](int64_t begin, int64_t end) { sampling::draw(type, p, out, begin, end); });
    });
  }
};

}  // namespace
}  // namespace emix::sampling

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::sampling::register_ops<emix::sampling::Cpu>(m); }
