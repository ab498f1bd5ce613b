// marginal on the GPU: one launch lays out the weights for the matrix units, one runs both layers for every agent and
// joint action; the backward pass needs two more, to add up what blocks have. Rows of W_action lie in the caches, x of
// some hundred rows in shared memory, y in registers.
#include "cuda_stream.h"
#include "marginal/cuda_backward.h"
#include "marginal/cuda_forward.h"
#include "marginal/ops.h"

namespace emix::marginal {
namespace {

inline constexpr int kMultiprocessors = 132;      // an H100's: so many units at least, where there are states enough
inline constexpr int64_t kSumsBytes = 128 << 20;  // of all blocks, at most

// How much a block has at once. 8 warps with 256 rows, or 128 where a layer has several panels of columns, keep all
// busy with one tile each at a time; two such blocks share a multiprocessor, so that one multiplies while the other
// waits for memory. Where x is too wide for two, 16 warps have all of the shared memory, and 128 rows.
template <class F, class Memory>
struct Plan {
  Layout l;
  int blocks_at_once, threads;  // on a multiprocessor; of a block

  explicit Plan(const Problem& p) : l(p, 1, 1) {
    const bool wide = l.hidden_panels() > 1 || l.output_panels() > 1;
    const int64_t most = std::max<int64_t>(1, (wide ? 128 : 256) / std::max(1, l.agents));
    const int limit = shared_limit(), half = limit / 2 - 512;  // the driver takes 1 KiB of each block's
    const auto bytes = [&](int64_t joint) { return Memory(Layout(p, joint, 1)).bytes; };
    const bool two = kMostThreads<F> > kSmallBlock && bytes(most - most / 8) <= half;
    blocks_at_once = two ? 2 : 1, threads = two ? kSmallBlock : kMostThreads<F>;
    int64_t joint = most;
    while (joint > 1 && bytes(joint) > (two ? half : limit)) --joint;
    if (bytes(joint) > limit)
      fail("`first` must have shape [..., n, H] with n agents of H units that fit into the ", limit >> 10,
           " KiB of shared memory that this GPU has, got n = ", p.agents, " and H = ", p.hidden, ", which take ",
           (bytes(joint) >> 10) + 1, " KiB");
    l = Layout(p, joint, kMultiprocessors);
  }
};

// The problem with rows of H padded to 32 numbers and vectors aligned, as the kernels read them.
template <class F>
struct Padded {
  Problem p;
  std::vector<Tensor> kept;

  Padded(const Problem& problem, const Tensor& like, cudaStream_t stream) : p(problem) {
    const int padded = Layout::padded(p.hidden);
    const auto pad = [&](const void*& data, int64_t rows) {
      if (p.hidden == padded && reinterpret_cast<uintptr_t>(data) % 16 == 0) return;
      kept.push_back(empty({rows * padded * int64_t(sizeof(F))}, ScalarType::Byte, like));
      F* to = static_cast<F*>(kept.back().mutable_data_ptr());
      launch("pad_rows", pad_rows<F>, blocks_for(rows * padded, kSmallBlock), kSmallBlock, stream,
             static_cast<const F*>(data), rows, static_cast<int>(p.hidden), to, padded);
      data = to;
    };
    pad(p.first, p.states * p.agents);
    pad(p.w_action, p.agents * p.choices);
  }
};

template <class Units>
struct LaidOut {
  Tensor memory;
  Fragments<Units> w;

  LaidOut(const Problem& p, const Layout& l, bool with_backward, const Tensor& like, cudaStream_t stream)
      : memory(empty({Fragments<Units>::bytes(l, with_backward)}, ScalarType::Byte, like)),
        w(l, memory.mutable_data_ptr(), with_backward) {
    const unsigned grid = blocks_for(std::max<int64_t>(1, Fragments<Units>::count(l)), kSmallBlock);
    launch("lay_out", lay_out<Units>, grid, kSmallBlock, stream, p, l, w);
  }
};

struct Cuda {
  const CurrentStream current;

  explicit Cuda(const Tensor& like) : current(like) {}

  template <class F>
  void forward(const Problem& problem, F* value, const Tensor& like) const {
    if (problem.states * problem.agents == 0) return;
    with_units(F(), [&](auto units) { forward_with<decltype(units)>(problem, value, like); });
  }

  template <class F>
  void backward(F, const Problem& problem, const Gradients& g, const Tensor& like) const {
    with_units(F(), [&](auto units) { backward_with<decltype(units)>(problem, g, like); });
  }

 private:
  template <class Each>
  static void with_units(float, const Each& each) {
    has_matrix_units() ? each(SplitTf32()) : each(Shuffled<float>());
  }
  template <class Each>
  static void with_units(double, const Each& each) {
    each(Shuffled<double>());
  }

  template <class Units>
  void forward_with(const Problem& problem, typename Units::Number* value, const Tensor& like) const {
    using F = typename Units::Number;
    const Padded<F> padded(problem, like, current.stream);
    const Problem& p = padded.p;
    const Plan<F, ForwardMemory<F>> plan(p);
    const ForwardMemory<F> memory(plan.l);
    const LaidOut<Units> weights(p, plan.l, false, like, current.stream);
    launch_shared("marginal_forward", marginal_forward<Units>, blocks_for(plan.l.units, 1), plan.threads, memory.bytes,
                  current.stream, p, plan.l, memory, weights.w, value);
  }

  template <class Units>
  void backward_with(const Problem& problem, const Gradients& g, const Tensor& like) const {
    using F = typename Units::Number;
    const Padded<F> padded(problem, like, current.stream);
    const Problem& p = padded.p;
    const Plan<F, BackwardMemory<F>> plan(p);
    const Layout& l = plan.l;
    const BackwardMemory<F> memory(l);
    const LaidOut<Units> weights(p, l, true, like, current.stream);
    const SumsLayout places(p, l, plan.threads / kWarp);
    const int64_t most =
        std::min<int64_t>(plan.blocks_at_once * kMultiprocessors, kSumsBytes / (places.elements * int64_t(sizeof(F))));
    const int blocks = static_cast<int>(std::max<int64_t>(1, std::min(most, l.units)));
    const Tensor sums = empty({blocks * places.elements * int64_t(sizeof(F))}, ScalarType::Byte, like);
    F* data = static_cast<F*>(sums.mutable_data_ptr());
    launch_shared("marginal_backward", marginal_backward<Units>, blocks, plan.threads, memory.bytes, current.stream, p,
                  l, memory, weights.w, g, places, data);
    launch_shared("sum_blocks", sum_blocks<F>, blocks_for(places.elements, kWarp), kSmallBlock,
                  kSmallBlock * int(sizeof(F)), current.stream, data, places.elements, blocks);
    launch("write_gradients", write_gradients<F>, blocks_for(places.elements, kSmallBlock), kSmallBlock, current.stream,
           problem, l, g, places, static_cast<const F*>(data));
  }
};

}  // namespace
}  // namespace emix::marginal

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::marginal::register_ops<emix::marginal::Cuda>(m); }
