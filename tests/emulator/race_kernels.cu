// Kernels that pass memory between threads: each as it should be, and with what orders the threads left out.
#include <numeric>
#include <vector>

#include "kernels.h"

using emulator::launch;

namespace {

constexpr unsigned kAll = 0xffffffff, kLow = 0x0000ffff, kHigh = 0xffff0000;

__device__ float* shared_floats() { return static_cast<float*>(emulator::dynamic_shared()); }

__device__ float warp_sum(float x) {
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(kAll, x, d);
  return x;
}

// ---- lanes of a warp

// As mixing's backward: some lanes leave a value each in global memory, a sum goes round by shuffles, all lanes read.
template <bool kRight>
__global__ void group_values_kernel(float* values, int count) {
  const int lane = threadIdx.x % 32;
  float sum = 0;
  for (int i = lane / 8; i < count; i += 4) {
    if (lane % 8 == 0) values[i] = float(i), sum += float(i);
  }
  sum = warp_sum(sum);
  if (kRight) __syncwarp();
  for (int i = lane; i < count; i += 32) values[i] -= sum;
}
template <bool kRight>
void group_values() {
  std::vector<float> values(40);
  launch("group_values", group_values_kernel<kRight>, 1, 32, 0, values.data(), 40);
}

// As returns' backward: a scan from the end keeps its results in global memory, one from the start reads the next
// step's and then overwrites them; then one lane writes both ends, which others wrote before.
enum class Left { kNothing, kBetweenScans, kBeforeEnds };
template <Left kOut>
__global__ void scan_back_kernel(float* kept, int steps) {
  const int lane = threadIdx.x;
  float carry = 0;
  for (int last = steps; last > 0; last -= 32) {
    const int t = last - 32 + lane;
    if (t >= 0) kept[t] = carry + float(t);
    carry = __shfl_sync(kAll, float(t), 0);
  }
  if (kOut != Left::kBetweenScans) __syncwarp();
  for (int first = 0; first < steps; first += 32) {
    const int t = first + lane;
    const float next = t + 1 < steps ? kept[t + 1] : 0.f;
    if (t < steps) kept[t + 1] = next * carry;
    carry = __shfl_sync(kAll, next, 31);
  }
  if (kOut != Left::kBeforeEnds) __syncwarp();
  if (lane == 0) kept[0] = kept[steps] = 0;
}
template <Left kOut>
void scan_back() {
  std::vector<float> kept(71);
  launch("scan_back", scan_back_kernel<kOut>, 1, 32, 0, kept.data(), 70);
}

// No primitive but __syncwarp orders memory.
enum class Between { kSyncwarp, kShuffle, kBallot, kVote, kReduction, kMatrix };
struct Word {
  static constexpr int kPerWord = 1;
  static float value(unsigned word, int) { return float(word); }
};
template <Between kBetween>
__global__ void swap_kernel() {
  float* shared = shared_floats();
  const int lane = threadIdx.x;
  float sum[4] = {};
  shared[lane] = float(lane);
  if (kBetween == Between::kSyncwarp) __syncwarp();
  if (kBetween == Between::kShuffle) __shfl_xor_sync(kAll, lane, 1);
  if (kBetween == Between::kBallot) __ballot_sync(kAll, lane);
  if (kBetween == Between::kVote) __all_sync(kAll, __any_sync(kAll, lane));
  if (kBetween == Between::kReduction) __reduce_add_sync(kAll, lane);
  if (kBetween == Between::kMatrix) emulator::mma_m16n8<Word>(sum, {}, {});
  if (shared[lane ^ 1] != float(lane ^ 1)) throw std::runtime_error("the lanes did not meet");
}
template <Between kBetween>
void swap() {
  launch("swap", swap_kernel<kBetween>, 1, 32, 32 * sizeof(float));
}

// Lane 0 writes what lane `reader` reads, after parts of the warp have met: lane 15 takes part in two.
enum class Meet { kHalves, kLowThenHigh, kHighThenLow };
template <Meet kMeet>
__global__ void part_of_a_warp_kernel(int reader) {
  float* shared = shared_floats();
  const int lane = threadIdx.x;
  constexpr unsigned kMiddleAndHigh = kHigh | 1u << 15;
  if (lane == 0) *shared = 1;
  if (kMeet == Meet::kHighThenLow && lane >= 15) __syncwarp(kMiddleAndHigh);
  if (lane < 16) __syncwarp(kLow);
  if (kMeet == Meet::kHalves && lane >= 16) __syncwarp(kHigh);
  if (kMeet == Meet::kLowThenHigh && lane >= 15) __syncwarp(kMiddleAndHigh);
  if (lane == reader && *shared != 1) throw std::runtime_error("lane 0 has not written");
}
template <Meet kMeet, int kReader>
void part_of_a_warp() {
  launch("part_of_a_warp", part_of_a_warp_kernel<kMeet>, 1, 32, sizeof(float), kReader);
}

// All lanes read a word, and meet without a barrier; one of them writes it: the first of the readers, or the last.
template <bool kRight, int kWriter>
__global__ void all_read_kernel() {
  float* shared = shared_floats();
  const float read = shared[0];
  if (kRight) __syncwarp();
  __ballot_sync(kAll, read > 0);
  if (threadIdx.x == kWriter) shared[0] = read;
}
template <bool kRight, int kWriter>
void all_read() {
  launch("all_read", all_read_kernel<kRight, kWriter>, 1, 32, sizeof(float));
}

// The last warp of a block, with 8 lanes.
template <bool kRight>
__global__ void partial_warp_kernel(float* result) {
  float* shared = shared_floats();
  shared[threadIdx.x] = float(threadIdx.x);
  if (kRight) __syncwarp();
  result[threadIdx.x] = shared[threadIdx.x ^ 7];
}
template <bool kRight>
void partial_last_warp() {
  std::vector<float> result(40);
  launch("partial_last_warp", partial_warp_kernel<kRight>, 1, 40, 40 * sizeof(float), result.data());
}

// Two lanes write the same value to a word.
template <bool kRight>
__global__ void same_value_kernel(float* sum) {
  const float total = warp_sum(float(threadIdx.x));
  if (threadIdx.x == 0 || (!kRight && threadIdx.x == 9)) *sum = total;
}
template <bool kRight>
void same_value() {
  float sum = 0;
  launch("same_value", same_value_kernel<kRight>, 1, 32, 0, &sum);
}

// ---- warps of a block

// A tile after another: written by all threads, read by all.
enum class Forgotten { kNothing, kAfterWrite, kAfterRead };
template <Forgotten kForgotten>
__global__ void tiles_kernel(const float* x, float* y) {
  float* tile = shared_floats();
  const int thread = threadIdx.x;
  float sum = 0;
  for (int first = 0; first < 256; first += 64) {
    if (kForgotten != Forgotten::kAfterRead) __syncthreads();
    tile[thread] = x[first + thread];
    if (kForgotten != Forgotten::kAfterWrite) __syncthreads();
    sum += tile[(thread + 32) % 64];
  }
  y[thread] = sum;
}
template <Forgotten kForgotten>
void tiles() {
  std::vector<float> x(256), y(64);
  launch("tiles", tiles_kernel<kForgotten>, 1, 64, 64 * sizeof(float), x.data(), y.data());
}

// One barrier a step is enough for two buffers, and not for one.
template <int kBuffers>
__global__ void buffers_kernel() {
  float* shared = shared_floats();
  float state = float(threadIdx.x);
  for (int step = 0; step < 4; ++step) {
    float* buffer = shared + step % kBuffers * 64;
    buffer[threadIdx.x] = state;
    __syncthreads();
    state += buffer[63 - threadIdx.x];
  }
}
template <int kBuffers>
void buffers() {
  launch("buffers", buffers_kernel<kBuffers>, 1, 64, kBuffers * 64 * sizeof(float));
}

// Warp 0 reads a word and warp 1 does; warp 1 writes it when its own lanes have met, or the block.
template <bool kRight>
__global__ void readers_kernel() {
  float* shared = shared_floats();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float read = lane < 30 ? shared[0] : 0.f;
  if (kRight) __syncthreads();
  __syncwarp();
  if (warp == 1 && lane == 31) shared[0] = 1;
  shared[1 + threadIdx.x] = read;
}
template <bool kRight>
void readers() {
  launch("readers", readers_kernel<kRight>, 1, 64, 65 * sizeof(float));
}

// ---- sizes

template <int kBytes>
struct Bytes {
  unsigned char bytes[kBytes];
};

// Each thread copies a value; with a `shift`, one of them also writes that byte of the next one's, counted from 1.
template <class T>
__global__ void copies_kernel(const T* from, unsigned char* to, int shift) {
  const int thread = threadIdx.x;
  *reinterpret_cast<T*>(to + thread * sizeof(T)) = from[thread];
  if (thread == 37 && shift) to[(thread + 1) * sizeof(T) + shift - 1] = 0;
}
template <class T, int kShift>
void copies() {
  std::vector<T> from(64), to(65);
  launch("copies", copies_kernel<T>, 1, 64, 0, from.data(), reinterpret_cast<unsigned char*>(to.data()), kShift);
}
template <int kShift>
void bytes() {
  copies<unsigned char, kShift>();
}
template <int kShift>
void halves() {
  copies<uint16_t, kShift>();
}
template <int kShift>
void vectors() {
  copies<float4, kShift>();
}
template <int kShift>
void structs() {
  copies<Bytes<200>, kShift>();  // 12800 bytes: over several pages
}

// ---- blocks of a grid

enum class Share { kNothing, kWrites, kReadAfterWrite, kWriteAfterRead };
template <Share kShare>
__global__ void blocks_kernel(const float* x, float* words, float* y) {
  __syncthreads();
  const bool first = blockIdx.x == 1, second = blockIdx.x == 6, one = threadIdx.x == 3;
  const int block = blockIdx.x;
  float value = x[threadIdx.x] + x[0];  // all read what nobody writes
  words[block * 64 + threadIdx.x] = value;
  if (kShare == Share::kWrites && one && (first || second)) y[8] = value;
  if (kShare == Share::kReadAfterWrite && one && second) value = words[1 * 64 + 40];
  if (kShare == Share::kWriteAfterRead && one && second) words[7 * 64 + 64] = value;
  if (kShare == Share::kWriteAfterRead && one && first) value = words[7 * 64 + 64];
  if (one) y[block] = value;
}
template <Share kShare>
void blocks() {
  std::vector<float> x(64), words(8 * 64 + 1), y(9);
  launch("blocks", blocks_kernel<kShare>, dim3(8), 64, 0, x.data(), words.data(), y.data());
}

// Each block has shared memory of its own, and a launch all that the one before it wrote.
__global__ void rotate_kernel(float* x) {
  float* shared = shared_floats();
  shared[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
  __syncwarp();
  x[blockIdx.x * 32 + threadIdx.x] = shared[(threadIdx.x + 1) % 32];
}
void launches() {
  std::vector<float> x(3 * 32);
  std::iota(x.begin(), x.end(), 0.f);
  for (int repeat = 0; repeat < 32; ++repeat) launch("rotate", rotate_kernel, 3, 32, 32 * sizeof(float), x.data());
  for (int i = 0; i < 3 * 32; ++i) {
    if (x[i] != float(i)) throw std::runtime_error("element " + std::to_string(i) + " is wrong");
  }
}

// A word of each of many pages, more than are remembered from launch to launch.
template <bool kRight>
__global__ void pages_kernel(float* x, int pages) {
  for (int page = blockIdx.x * 32 + threadIdx.x; page < pages; page += gridDim.x * 32)
    x[page * 1024] += kRight ? 1 : x[(page + 1) % pages * 1024];
}
template <bool kRight>
void pages() {
  constexpr int kPages = 5000;
  std::vector<float> x(kPages * 1024);
  for (int repeat = 0; repeat < 2; ++repeat) launch("pages", pages_kernel<true>, 2, 32, 0, x.data(), kPages);
  launch("pages", pages_kernel<kRight>, 2, 32, 0, x.data(), kPages);
}

}  // namespace

const Cases kRaceFreeCases = {
    {"group_values", group_values<true>},
    {"scan_back", scan_back<Left::kNothing>},
    {"swap", swap<Between::kSyncwarp>},
    {"half_warp", part_of_a_warp<Meet::kHalves, 15>},
    {"half_warps_in_turn", part_of_a_warp<Meet::kLowThenHigh, 31>},
    {"all_read", all_read<true, 0>},
    {"partial_last_warp", partial_last_warp<true>},
    {"same_value", same_value<true>},
    {"tiles", tiles<Forgotten::kNothing>},
    {"buffers", buffers<2>},
    {"readers", readers<true>},
    {"bytes", bytes<0>},
    {"halves", halves<0>},
    {"vectors", vectors<0>},
    {"structs", structs<0>},
    {"blocks", blocks<Share::kNothing>},
    {"launches", launches},
    {"pages", pages<true>},
};

const Cases kRacyCases = {
    {"group_values_race", group_values<false>},
    {"scans_race", scan_back<Left::kBetweenScans>},
    {"ends_race", scan_back<Left::kBeforeEnds>},
    {"shuffle_is_no_barrier", swap<Between::kShuffle>},
    {"ballot_is_no_barrier", swap<Between::kBallot>},
    {"vote_is_no_barrier", swap<Between::kVote>},
    {"reduction_is_no_barrier", swap<Between::kReduction>},
    {"mma_is_no_barrier", swap<Between::kMatrix>},
    {"half_warp_race", part_of_a_warp<Meet::kHalves, 16>},
    {"half_warps_out_of_turn_race", part_of_a_warp<Meet::kHighThenLow, 31>},
    {"first_of_all_readers_race", all_read<false, 0>},
    {"last_of_all_readers_race", all_read<false, 31>},
    {"partial_last_warp_race", partial_last_warp<false>},
    {"same_value_race", same_value<false>},
    {"read_after_write_race", tiles<Forgotten::kAfterWrite>},
    {"write_after_read_race", tiles<Forgotten::kAfterRead>},
    {"one_buffer_race", buffers<1>},
    {"readers_race", readers<false>},
    {"bytes_race", bytes<1>},
    {"halves_race", halves<2>},
    {"vectors_race", vectors<16>},
    {"structs_race", structs<200>},
    {"blocks_write_race", blocks<Share::kWrites>},
    {"blocks_read_after_write_race", blocks<Share::kReadAfterWrite>},
    {"blocks_write_after_read_race", blocks<Share::kWriteAfterRead>},
    {"pages_race", pages<false>},
};
