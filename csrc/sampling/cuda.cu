// sampling on the GPU, one launch. A block takes 32 rows, a row a lane. All its warps load the logits (neighbouring
// threads neighbouring elements) into shared memory, the first one turns them into thresholds, then the warps share the
// draws: a search in the lane's own column of the table, which is free of bank conflicts, and a store of 32
// neighbouring bytes.
#include "cuda_stream.h"
#include "divider.h"
#include "mask.h"
#include "sampling/ops.h"

namespace emix::sampling {
namespace {

inline constexpr int kBlock = 256;
inline constexpr int kBlocks = 6;          // on a multiprocessor at once: caps the registers
inline constexpr int kStride = kWarp + 1;  // of the logits: neither neighbouring rows nor neighbouring actions share a
inline constexpr int kByteStride = kWarp + 4;  // bank of the shared memory

// Which parts of the shared memory hold what, and which element of a row is whose.
struct Layout {
  int table = 2;  // entries a row, a power of two: the search halves it
  int logits = 0, available = 0, bytes = 0;
  Divider<int32_t> actions;

  explicit Layout(int actions_) : actions(actions_) {
    while (table < actions_) table *= 2;
    logits = table * kWarp * static_cast<int>(sizeof(int32_t));
    available = logits + actions_ * kStride * static_cast<int>(sizeof(float));
    bytes = available + actions_ * kByteStride;
  }
};

inline constexpr int kLoads = 4;  // elements of a thread at once, so that their latencies overlap

template <class T, class Offset, class There>
__device__ __forceinline__ void load_logits(const void* data, const Offset& offset, const There& there,
                                            float (&logit)[kLoads]) {
  T x[kLoads];
#pragma unroll
  for (int j = 0; j < kLoads; ++j) x[j] = there(j) ? static_cast<const T*>(data)[offset(j)] : static_cast<T>(0.0f);
#pragma unroll
  for (int j = 0; j < kLoads; ++j) logit[j] = static_cast<float>(x[j]);
}

__device__ __forceinline__ void load(const Problem& p, const Floor<float>& floor, ScalarType type, const Layout& layout,
                                     int64_t first, const Shared<float>& logits, const Shared<uint8_t>& available) {
  const int rows = static_cast<int>(p.rows - first < kWarp ? p.rows - first : kWarp);
  for (int start = static_cast<int>(threadIdx.x); start < rows * p.actions; start += kLoads * kBlock) {
    int row[kLoads], action[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) row[j] = start + j * kBlock, action[j] = layout.actions.divide(row[j]);
    const auto there = [&](int j) { return row[j] < rows; };
    const auto offset = [&](const View<2>& view, int j) {
      return (first + row[j]) * view.stride[0] + action[j] * view.stride[1];
    };
    const auto logit_offset = [&](int j) { return offset(p.logits, j); };
    Masks<kLoads> open;
    open.load(p.avail.data, p.avail.itemsize, [&](int j) { return offset(p.avail, j); }, there);
    float logit[kLoads];
    switch (type) {
      case ScalarType::Float:
        load_logits<float>(p.logits.data, logit_offset, there, logit);
        break;
      case ScalarType::Double:
        load_logits<double>(p.logits.data, logit_offset, there, logit);
        break;
      case ScalarType::Half:
        load_logits<Half>(p.logits.data, logit_offset, there, logit);
        break;
      default:
        load_logits<BFloat16>(p.logits.data, logit_offset, there, logit);
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      if (!there(j)) break;
      logits[action[j] * kStride + row[j]] = counted(logit[j], open[j], floor);
      available[action[j] * kByteStride + row[j]] = open[j];
    }
  }
}

// The sums run in the order of the actions, as on the CPU.
__device__ __forceinline__ void find_thresholds(const Problem& p, const Floor<float>& floor, int table, int lane,
                                                const Shared<float>& logits, const Shared<uint8_t>& available,
                                                const Shared<int32_t>& thresholds) {
  float largest = -INFINITY, sum = 0, total = 0;
  for (int a = 0; a < p.actions; ++a) {
    const float logit = logits[a * kStride + lane];
    largest = logit > largest ? logit : largest;
  }
#pragma unroll 4
  for (int a = 0; a < p.actions; ++a)
    sum += logits[a * kStride + lane] = relative_exponential(logits[a * kStride + lane], largest);
  for (int a = 0; a < p.actions; ++a)
    logits[a * kStride + lane] = total +=
        weight(logits[a * kStride + lane], sum, available[a * kByteStride + lane], floor);
#pragma unroll 4
  for (int a = 0; a < table; ++a)
    thresholds[a * kWarp + lane] = a < p.actions ? threshold(logits[a * kStride + lane], total) : INT32_MAX;
}

template <class Out>
__global__ void __launch_bounds__(kBlock, kBlocks)
    draw_actions(const __grid_constant__ Problem p, ScalarType type, const __grid_constant__ Layout layout, Out* out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const Shared<int32_t> thresholds(0, layout.table * kWarp);
  const Shared<float> logits(layout.logits, p.actions * kStride);
  const Shared<uint8_t> available(layout.available, p.actions * kByteStride);
  const int64_t seed = *p.seed;
  const auto floor = p.floor.read<float>(p.actions);
  for (int64_t first = blockIdx.x * int64_t(kWarp); first < p.rows; first += gridDim.x * int64_t(kWarp)) {
    load(p, floor, type, layout, first, logits, available);
    block_barrier();
    if (warp == 0 && first + lane < p.rows)
      find_thresholds(p, floor, layout.table, lane, logits, available, thresholds);
    block_barrier();
    if (first + lane < p.rows) {
      for (int64_t draw = warp * kWords; draw < p.draws; draw += kBlock / kWarp * kWords) {
        const Philox random = philox(seed, static_cast<uint32_t>(draw / kWords), first + lane);
        int at[kWords] = {lane, lane, lane, lane};
        for (int step = layout.table / 2; step > 0; step /= 2) {
#pragma unroll
          for (int word = 0; word < kWords; ++word)
            if (uniform_bits(random.word[word]) > thresholds[at[word] + (step - 1) * kWarp]) at[word] += step * kWarp;
        }
#pragma unroll
        for (int word = 0; word < kWords; ++word)
          if (draw + word < p.draws) out[(draw + word) * p.rows + first + lane] = static_cast<Out>(at[word] / kWarp);
      }
    }
    block_barrier();  // before the next rows' logits
  }
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class Out>
  void draw(ScalarType logits, const Problem& p, Out* out) const {
    const Layout layout(p.actions);
    launch_shared("draw_actions", draw_actions<Out>, blocks_for(p.rows, kWarp), kBlock, layout.bytes, current.stream, p,
                  logits, layout, out);
  }
};

}  // namespace
}  // namespace emix::sampling

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::sampling::register_ops<emix::sampling::Cuda>(m); }
