// recurrent on the GPU. In float32 and float64 forward one launch that transposes the weights and one that walks;
// backward one that walks and two for the gradients of the weights. On matrix units (tf32, bf16) the walk has a launch
// before or after it, the agent's both.
#include "cuda_stream.h"
#include "recurrent/cuda_matrix_sums.h"
#include "recurrent/cuda_matrix_walk.h"
#include "recurrent/ops.h"

namespace emix::recurrent {
namespace {

struct Cuda {
  CurrentStream current;
  const Tensor& like;
  explicit Cuda(const Tensor& x) : current(x), like(x) {}

  template <class F>
  void forward(const Sequence& p, Results results) const {
    if (p.rows() == 0) return;
    Tensor gates;
    if (!results.saved) gates = fresh<F>(p.time * p.rows() * p.saved()), results.saved = gates.mutable_data_ptr();
    if (on_matrix_units(p))
      p.precision == Precision::kTf32 ? matrix_forward<Tf32>(p, results) : matrix_forward<Bf16>(p, results);
    else
      plain_forward<F>(p, results);
  }

  template <class F>
  void backward(const Sequence& p, const Gradients& g) const {
    const int64_t H = p.hidden, places = p.time * p.rows();
    const Tensor floats = fresh<F>(places * (4 * H + (p.is_agent ? 2 * H : 0)));
    const Tensor flags = empty({2 * places}, ScalarType::Byte, like);
    F* data = static_cast<F*>(floats.mutable_data_ptr());
    uint8_t* reached = static_cast<uint8_t*>(flags.mutable_data_ptr());
    const Work<F> work{data, data + 4 * places * H, data + 5 * places * H, reached, reached + places};
    const Jobs jobs(p, g);
    const Tensor sums = fresh<F>(jobs.slices * jobs.elements);
    F* partial = static_cast<F*>(sums.mutable_data_ptr());
    walk_back(p, g, work, jobs, partial);
    launch("recurrent_sum", add_slices<F>, blocks_for(jobs.elements, kThreads), kThreads, current.stream, p, jobs,
           partial);
  }

 private:
  static bool on_matrix_units(const Sequence& p) { return p.precision != Precision::kFloat32 && has_matrix_units(); }

  template <class F>
  Tensor fresh(int64_t elements) const {
    return empty({elements}, sizeof(F) == sizeof(double) ? ScalarType::Double : ScalarType::Float, like);
  }

  // To the partial sums of the weights' gradients.
  template <class F>
  void walk_back(const Sequence& p, const Gradients& g, const Work<F>& work, const Jobs& jobs, F* partial) const {
    if constexpr (std::is_same_v<F, float>) {
      if (on_matrix_units(p))
        return p.precision == Precision::kTf32 ? matrix_backward<Tf32>(p, g, work, jobs, partial)
                                               : matrix_backward<Bf16>(p, g, work, jobs, partial);
    }
    plain_backward(p, g, work, jobs, partial);
  }

  // ---- in the type F

  template <class F>
  void plain_forward(const Sequence& p, const Results& results) const {
    const int64_t H = p.hidden;
    const int64_t in = p.is_agent ? p.in_columns() * H : 0, ih = p.encoded() * 3 * H, hh = H * 3 * H;
    const Tensor weights = fresh<F>(in + ih + hh + p.actions * H);
    F* data = static_cast<F*>(weights.mutable_data_ptr());
    const Transposed<F> to{data, data + in, data + in + ih, data + in + ih + hh};
    launch("recurrent_weights", transpose_weights<F>, blocks_for(ih + 1, kThreads), kThreads, current.stream, p, to);
    launch_walk<F>("recurrent_forward", walk_forward<F, true>, walk_forward<F, false>, p, to, results);
  }

  template <class F>
  void plain_backward(const Sequence& p, const Gradients& g, const Work<F>& work, const Jobs& jobs, F* partial) const {
    launch_walk<F>("recurrent_backward", walk_backward<F, true>, walk_backward<F, false>, p, g, work);
    launch_shared("recurrent_sums", sum_slices<F>, static_cast<unsigned>(jobs.slices * jobs.tiles), kThreads,
                  kSumBytes<F>, current.stream, p, g, work, jobs, partial);
  }

  // With the recurrent weights in shared memory where they fit.
  template <class F, class Kernel, class... Rest>
  void launch_walk(const char* name, Kernel* shared, Kernel* global, const Sequence& p, const Rest&... rest) const {
    const int bytes = Place<F>::bytes(p.hidden), weights = static_cast<int>(3 * p.hidden * p.hidden * sizeof(F));
    const bool fits = bytes + weights <= shared_limit();
    launch_shared(name, fits ? shared : global, blocks_for(p.rows(), kRows), kThreads, fits ? bytes + weights : bytes,
                  current.stream, p, rest...);
  }

  // ---- on matrix units

  template <class Type>
  void matrix_forward(const Sequence& p, const Results& results) const {
    launch_layers<Type>("recurrent_matrix_before", matrix_before_walk<Type>, p, results);
    with_operations<Type>(p, [&](auto operations) {
      constexpr int kOperations = decltype(operations)::value;
      launch_matrix_walk<RecurrentProduct<Type, false, kOperations>>(
          "recurrent_matrix_forward", matrix_walk_forward<Type, kOperations>, 0, p, results);
    });
    if (p.is_agent) launch_layers<Type>("recurrent_matrix_after", matrix_after_walk<Type>, p, results);
  }

  template <class Type>
  void matrix_backward(const Sequence& p, const Gradients& g, const Work<float>& work, const Jobs& jobs,
                       float* partial) const {
    if (p.is_agent) launch_layers<Type>("recurrent_matrix_before_back", matrix_before_walk_back<Type>, p, g, work);
    with_operations<Type>(p, [&](auto operations) {
      constexpr int kOperations = decltype(operations)::value;
      launch_matrix_walk<RecurrentProduct<Type, true, kOperations>>(
          "recurrent_matrix_backward", matrix_walk_backward<Type, kOperations>, kFlagBytes, p, g, work);
    });
    if (p.is_agent || g.x) launch_layers<Type>("recurrent_matrix_after_back", matrix_after_walk_back<Type>, p, g, work);
    launch_shared("recurrent_matrix_sums", matrix_sum_slices<Type>, static_cast<unsigned>(jobs.slices * jobs.tiles),
                  kThreads, kMatrixSumBytes<Type>, current.stream, p, g, work, jobs, partial);
  }

  template <class Type, class Kernel, class... Rest>
  void launch_layers(const char* name, Kernel* kernel, const Sequence& p, const Rest&... rest) const {
    launch_shared(name, kernel, blocks_for(p.time * p.rows(), kSquare), kThreads, Places<Type>::kBytes, current.stream,
                  p, rest...);
  }

  // f of the operations for the depth H whose weights a lane keeps in registers; 0: none, there are too many.
  template <class Type, class F>
  static void with_operations(const Sequence& p, const F& f) {
    const int operations = RecurrentProduct<Type, false, 0>::operations(static_cast<int>(p.hidden));
    if (operations <= 4)
      f(std::integral_constant<int, 4>());
    else if (operations <= 8)
      f(std::integral_constant<int, 8>());
    else
      f(std::integral_constant<int, 0>());
  }

  template <class Product, class Kernel, class... Rest>
  void launch_matrix_walk(const char* name, Kernel* kernel, int bytes, const Sequence& p, const Rest&... rest) const {
    const int H = static_cast<int>(p.hidden), weights = Product::weight_bytes(H);
    bytes += Product::operand_bytes(H);
    const bool fits = bytes + weights <= shared_limit();
    launch_shared(name, kernel, blocks_for(p.rows(), kBlockRows), Product::warps(H) * kWarp,
                  fits ? bytes + weights : bytes, current.stream, p, rest..., fits);
  }
};

}  // namespace
}  // namespace emix::recurrent

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::recurrent::register_ops<emix::recurrent::Cuda>(m); }
