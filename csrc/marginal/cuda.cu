// marginal on the GPU: one launch lays out the weights for the matrix units, one runs both layers for every agent and
// joint action; the backward pass needs two more, to add up what blocks have. Rows of W_action lie in the caches, the
// sums over agents in shared memory, x and y in registers.
#include "cuda_stream.h"
#include "marginal/cuda_backward.h"
#include "marginal/cuda_forward.h"
#include "marginal/ops.h"

namespace emix::marginal {
namespace {

// Joint actions that a block has at once, and its shared memory: at most, so that as many blocks as registers allow fit
// on a multiprocessor.
inline constexpr int kForwardJoint = 128, kBackwardJoint = 64, kSharedBytes = 74 << 10;
inline constexpr int kUnits = kBlocksAtOnce * 132;  // at least, where there are states enough: all of an H100
inline constexpr int kBackwardBlocks = kUnits;      // at most: each has sums of its own,
inline constexpr int64_t kSumsBytes = 128 << 20;    // and all of them no more than this

// As many joint actions as fit, and one at least.
template <class Bytes>
int fitting(int most, int limit, const Bytes& bytes) {
  while (most > 1 && bytes(most) > limit) --most;
  return most;
}

// The problem with rows of H padded to 16 numbers and vectors aligned, as the kernels read them.
template <class F>
struct Padded {
  Problem p;
  std::vector<Tensor> kept;

  Padded(const Problem& problem, const Tensor& like, cudaStream_t stream) : p(problem) {
    const int padded = Layout::padded_hidden(p);
    const auto pad = [&](const void*& data, int64_t rows) {
      if (p.hidden == padded && reinterpret_cast<uintptr_t>(data) % 16 == 0) return;
      kept.push_back(empty({rows * padded * int64_t(sizeof(F))}, ScalarType::Byte, like));
      F* to = static_cast<F*>(kept.back().mutable_data_ptr());
      launch("pad_rows", pad_rows<F>, blocks_for(rows * padded, kBlock), kBlock, stream, static_cast<const F*>(data),
             rows, static_cast<int>(p.hidden), to, padded);
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
    const unsigned grid = blocks_for(int64_t(l.hidden) / 8 * l.column_tiles() * kWarp, kBlock);
    launch("lay_out", lay_out<Units>, grid, kBlock, stream, p, l, w);
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
    const int stride = Layout(p, 1, kUnits).stride;
    const auto bytes = [&](int joint) { return forward_bytes<F>(p, stride, joint); };
    const Layout l(p, fitting(kForwardJoint, kSharedBytes, bytes), kUnits);
    const LaidOut<Units> weights(p, l, false, like, current.stream);
    launch_shared("marginal_forward", marginal_forward<Units>, blocks_for(l.units, 1), kBlock, bytes(l.joint()),
                  current.stream, p, l, weights.w, value);
  }

  template <class Units>
  void backward_with(const Problem& problem, const Gradients& g, const Tensor& like) const {
    using F = typename Units::Number;
    const Padded<F> padded(problem, like, current.stream);
    const Problem& p = padded.p;
    const Layout one(p, 1, kUnits);
    const int panels = (one.column_tiles() + kTiles - 1) / kTiles;
    const auto memory = [&](int joint) { return BackwardMemory<F>(p, one.stride, panels, joint); };
    const auto bytes = [&](int joint) { return memory(joint).bytes; };
    const Layout l(p, fitting(kBackwardJoint, kSharedBytes, bytes), kUnits);
    const LaidOut<Units> weights(p, l, true, like, current.stream);
    const SumsLayout places(p, l);
    const int64_t most = std::max<int64_t>(1, kSumsBytes / (places.elements * int64_t(sizeof(F))));
    const int blocks = static_cast<int>(std::max<int64_t>(1, std::min({int64_t(kBackwardBlocks), most, l.units})));
    const Tensor sums = empty({blocks * places.elements * int64_t(sizeof(F))}, ScalarType::Byte, like);
    F* data = static_cast<F*>(sums.mutable_data_ptr());
    launch_shared("marginal_backward", marginal_backward<Units>, blocks, kBlock, bytes(l.joint()), current.stream, p, l,
                  memory(l.joint()), weights.w, g, places, data);
    launch("sum_blocks", sum_blocks<F>, blocks_for(places.elements, kBlock), kBlock, current.stream, data,
           places.elements, blocks);
    launch("write_gradients", write_gradients<F>, blocks_for(places.elements, kBlock), kBlock, current.stream, problem,
           l, g, places, static_cast<const F*>(data));
  }
};

}  // namespace
}  // namespace emix::marginal

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::marginal::register_ops<emix::marginal::Cuda>(m); }
