// Kernels that keep CUDA's rules, and the program that runs all the test's kernels by name.
#include <iostream>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels.h"

using emulator::launch;

namespace {

constexpr unsigned kAll = 0xffffffff;

template <class T>
void print(const std::vector<T>& values) {
  for (const T& value : values) std::cout << value << " ";
  std::cout << "\n";
}

// ---- warp primitives

template <class T>
__global__ void scan_kernel(const T* __restrict__ x, T* y) {
  const int lane = threadIdx.x % warpSize, i = blockIdx.x * blockDim.x + threadIdx.x;
  T sum = __ldg(x + i);
  for (int d = 1; d < warpSize; d *= 2) {
    const T below = __shfl_up_sync(kAll, sum, d);
    if (lane >= d) sum += below;
  }
  y[i] = sum;
}

template <class T>
void scan_of() {
  std::vector<T> x(256), y(256);
  std::iota(x.begin(), x.end(), T(-100));
  launch("scan", scan_kernel<T>, 2, 128, 0, x.data(), y.data());
  T sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum = i % warpSize ? sum + x[i] : x[i];
    if (y[i] != sum) throw std::runtime_error("scan of element " + std::to_string(i) + " is wrong");
  }
}

void scan() {
  scan_of<float>(), scan_of<double>(), scan_of<int>(), scan_of<int64_t>(), scan_of<short>();
  std::cout << "right\n";
}

__global__ void width_kernel(int* shfl, int* up, int* down, int* exclusive_or) {
  const int lane = threadIdx.x;
  shfl[lane] = __shfl_sync(kAll, lane, 19, 16);
  up[lane] = __shfl_up_sync(kAll, lane, 3, 16);
  down[lane] = __shfl_down_sync(kAll, lane, 3, 16);
  exclusive_or[lane] = __shfl_xor_sync(kAll, lane, 17, 16);
}

void width() {
  std::vector<int> results[4] = {std::vector<int>(32), std::vector<int>(32), std::vector<int>(32),
                                 std::vector<int>(32)};
  launch("width", width_kernel, 1, 32, 0, results[0].data(), results[1].data(), results[2].data(), results[3].data());
  for (const auto& result : results) print(result);
}

__global__ void vote_kernel(unsigned* out) {
  const unsigned lane = threadIdx.x, half = lane < 16 ? 0x0000ffff : 0xffff0000;
  const unsigned ballot = __ballot_sync(kAll, lane % 4 == 0), half_ballot = __ballot_sync(half, lane % 4 == 1);
  const int any = __any_sync(half, lane == 20), all = __all_sync(half, lane != 20);
  const unsigned sum = __reduce_add_sync(half, lane);
  unsigned* mine = out + lane / 16 * 5;
  __syncwarp();
  if (lane % 16 == 7) mine[0] = ballot, mine[1] = half_ballot, mine[2] = any, mine[3] = all, mine[4] = sum;
}

void vote() {
  std::vector<unsigned> out(10);
  launch("vote", vote_kernel, 1, 32, 0, out.data());
  print(out);
}

struct Pair {
  float mean;
  int count;
};

__global__ void value_kernel(float4* vector, Pair* pair) {
  const int lane = threadIdx.x;
  const float x = float(lane);
  vector[lane] = __shfl_xor_sync(kAll, make_float4(x, x + 1, x + 2, x + 3), 1);
  pair[lane] = __shfl_sync(kAll, Pair{-x, lane}, 31 - lane);
}

void values() {
  std::vector<float4> vector(32);
  std::vector<Pair> pair(32);
  launch("value", value_kernel, 1, 32, 0, vector.data(), pair.data());
  std::cout << vector[6].x << " " << vector[6].w << " " << pair[4].mean << " " << pair[4].count << "\n";
}

__global__ void intrinsic_kernel(unsigned* out) {
  out[0] = __popc(0xf0f0u), out[1] = __ffs(0), out[2] = __ffs(24), out[3] = __clz(0), out[4] = __clz(1),
  out[5] = __clz(-1);
  out[6] = __umulhi(0xD2511F53u, 0x80000001u);
}

void intrinsics() {
  std::vector<unsigned> out(7);
  launch("intrinsic", intrinsic_kernel, 1, 1, 0, out.data());
  print(out);
}

__global__ void partial_warp_kernel(int* sum, unsigned* ballots) {
  const int thread = threadIdx.x, lanes = thread < 32 ? 32 : 16;
  int total = thread;
  for (int d = lanes / 2; d > 0; d /= 2) total += __shfl_xor_sync(kAll, total, d);
  sum[thread] = total;
  const unsigned ballot = __ballot_sync(kAll, 1);
  const int all = __all_sync(kAll, 1);
  if (thread % 32 == 0) ballots[thread / 32] = all ? ballot : 0;
}

void partial_warp() {
  std::vector<int> sum(48);
  std::vector<unsigned> ballots(2);
  launch("partial_warp", partial_warp_kernel, 1, 48, 0, sum.data(), ballots.data());
  std::cout << sum[0] << " " << sum[31] << " " << sum[32] << " " << sum[47] << " ";
  print(ballots);
}

// Two numbers in a word, or one.
template <int kBits>
struct Words {
  static constexpr int kPerWord = 32 / kBits;
  static float value(unsigned word, int part) { return float(word >> kBits * part & 0xffff); }
};

// The product of two matrices of integers. Rows and columns of a lane's elements are written as in the PTX ISA's
// "Matrix Fragments for mma.m16n8k16" (bf16) and "mma.m16n8k8" (tf32).
template <int kBits>
__global__ void mma_kernel(const unsigned (*a)[16], const unsigned (*b)[8], float (*d)[8]) {
  const int group = threadIdx.x >> 2, item = threadIdx.x % 4;
  unsigned left[4] = {}, right[2] = {};
  for (int i = 0; i < 4 * 32 / kBits; ++i) {
    const int row = kBits == 32 ? (i == 0 || i == 2 ? group : group + 8)
                                : ((0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8);
    const int column = kBits == 32 ? (i < 2 ? item : item + 4) : item * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    left[i * kBits / 32] |= a[row][column] << i * kBits % 32;
  }
  for (int i = 0; i < 2 * 32 / kBits; ++i) {
    const int row = kBits == 32 ? (i == 0 ? item : item + 4) : item * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    right[i * kBits / 32] |= b[row][group] << i * kBits % 32;
  }
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[i < 2 ? group : group + 8][item * 2 + (i & 1)];
  emulator::mma_m16n8<Words<kBits>>(sum, {left[0], left[1], left[2], left[3]}, {right[0], right[1]});
  for (int i = 0; i < 4; ++i) d[i < 2 ? group : group + 8][item * 2 + (i & 1)] = sum[i];
}

template <int kBits>
void mma_of() {
  constexpr int kDepth = 8 * 32 / kBits;
  unsigned a[16][16], b[16][8];
  float d[16][8];
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) a[i][k] = i * 31 + k * 7;
    for (int j = 0; j < 8; ++j) b[i][j] = i * 5 + j * 11, d[i][j] = float(i - j);
  }
  launch("mma", mma_kernel<kBits>, 1, 32, 0, &a[0], &b[0], &d[0]);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = float(i - j);
      for (int k = 0; k < kDepth; ++k) sum += float(a[i][k] * b[k][j]);
      if (d[i][j] != sum) throw std::runtime_error("element " + std::to_string(i * 8 + j) + " is wrong");
    }
  }
}

void mma() {
  mma_of<16>(), mma_of<32>();
  std::cout << "right\n";
}

// ---- blocks, shared memory, order

// Twice: warps leave their sums in shared memory, then every thread adds these up.
__global__ void block_sum_kernel(const float* x, float* sums) {
  float* shared = static_cast<float*>(emulator::dynamic_shared());
  const int thread = threadIdx.x, warps = blockDim.x / 32;
  for (int round = 0; round < 2; ++round) {
    float sum = x[blockIdx.x * blockDim.x + thread] * float(round + 1);
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(kAll, sum, d);
    if (thread % 32 == 0) shared[thread / 32] = sum;
    __syncthreads();
    float total = 0;
    for (int warp = 0; warp < warps; ++warp) total += shared[warp];
    if (thread % 32 == 0) sums[(round * gridDim.x + blockIdx.x) * warps + thread / 32] = total;
    __syncthreads();
  }
}

void block_sum() {
  std::vector<float> x(3 * 128), sums(2 * 3 * 4);
  std::iota(x.begin(), x.end(), 0.f);
  launch("block_sum", block_sum_kernel, 3, 128, 4 * sizeof(float), x.data(), sums.data());
  print(sums);
}

struct Trace {
  struct Entry {
    char at;
    unsigned block, thread;
  } entries[3 * 3 * 70];
  int count = 0;

  // The test's own memory, which no kernel would share.
  EMULATOR_UNWATCHED void note(char at) { entries[count++] = {at, blockIdx.x, threadIdx.x}; }
};

__global__ void trace_kernel(Trace* trace) {
  trace->note('a');
  __syncwarp();
  trace->note('b');
  __syncthreads();
  trace->note('c');
}

std::vector<std::string> traced() {
  Trace trace;
  launch("trace", trace_kernel, 3, 70, 0, &trace);
  std::vector<std::string> result;
  for (const auto& entry : trace.entries)
    result.push_back(entry.at + std::to_string(entry.block) + "." + std::to_string(entry.thread));
  return result;
}

void trace() { print(traced()); }

void setter() {
  using emulator::Order;
  const auto from_environment = traced();  // of the test: descending
  emulator::set_order(Order::kAscending);
  const auto ascending = traced();
  emulator::set_order(Order::kShuffled, 7);
  const auto shuffled = traced(), again = traced();
  emulator::reset_order();
  std::cout << (from_environment != ascending) << (ascending != shuffled) << (shuffled == again)
            << (traced() == from_environment) << "\n";
}

__global__ void index_kernel(std::vector<int>* counts) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  __syncthreads();
  (*counts)[block * 24 + thread] += int(__shfl_sync(kAll, thread, int(thread)) == thread);
}

void indices() {
  std::vector<int> counts(24 * 30);
  launch("index", index_kernel, dim3(2, 3, 5), dim3(4, 3, 2), 0, &counts);
  std::cout << (counts == std::vector<int>(24 * 30, 1) ? "each once" : "wrong") << "\n";
}

__global__ void poison_kernel(float* seen) {
  float* shared = static_cast<float*>(emulator::dynamic_shared());
  seen[blockIdx.x] = shared[3];
  shared[3] = 1;
}

void poison() {
  std::vector<float> seen(2);
  launch("poison", poison_kernel, 2, 1, 16, seen.data());
  std::cout << std::isnan(seen[0]) << std::isnan(seen[1]) << emulator::dynamic_shared_bytes() << "\n";
}

void os_threads() {
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&right, i] {
      for (int repeat = 0; repeat < 20; ++repeat) scan_of<float>();
      right[i] = 1;
    });
  }
  for (auto& thread : threads) thread.join();
  print(right);
}

__global__ void nothing_kernel() {}

void at_limits() {
  launch("nothing", nothing_kernel, dim3(1, 1, 3), dim3(16, 1, 64), 227 << 10);
  launch("nothing", nothing_kernel, dim3(1, 65535, 1), 1, 0);
  std::cout << "ran\n";
}

// Whatever a launch ended in, the same fibers must serve the next one.
void recovery() {
  for (const Cases& cases : {kBrokenCases, kRacyCases}) {
    for (const auto& broken : cases) {
      try {
        broken.second();
      } catch (const std::logic_error&) {
        block_sum();
      }
    }
  }
}

}  // namespace

int main(int, char** arguments) {
  Cases cases = {
      CASE(scan),   CASE(width),        CASE(vote),      CASE(values),   CASE(intrinsics),
      CASE(mma),    CASE(partial_warp), CASE(trace),     CASE(setter),   CASE(indices),
      CASE(poison), CASE(os_threads),   CASE(at_limits), CASE(recovery), CASE(block_sum),
  };
  cases.insert(kBrokenCases.begin(), kBrokenCases.end());
  cases.insert(kFatalCases.begin(), kFatalCases.end());
  cases.insert(kRacyCases.begin(), kRacyCases.end());
  cases.insert(kRaceFreeCases.begin(), kRaceFreeCases.end());
  try {
    cases.at(arguments[1])();
  } catch (const emulator::Fault& fault) {
    std::cout << "Fault: " << fault.what() << "\n";
  } catch (const std::exception& error) {
    std::cout << "exception: " << error.what() << "\n";
  }
}
