// recurrent on the GPU: the layers that no step waits for, for all steps at once (cuda_layers.h), around a walk over
// time; backward also the sums of the weights' gradients (cuda_sums.h). In float32 and float64 the walk keeps the
// recurrent weights in registers (cuda_walk.h) or, where they are too many, in shared memory (cuda_wide_walk.h); in tf32
// and bf16 matrix units do all products (cuda_matrix_stage.h, cuda_matrix_walk.h). Launches: forward 2, of the agent 4;
// backward 3, of the agent 5, and one more for a gradient to x.
#include "cuda_stream.h"
#include "recurrent/cuda_layers.h"
#include "recurrent/cuda_matrix_stage.h"
#include "recurrent/cuda_matrix_walk.h"
#include "recurrent/cuda_sums.h"
#include "recurrent/cuda_walk.h"
#include "recurrent/cuda_wide_walk.h"
#include "recurrent/ops.h"

namespace emix::recurrent {
namespace {

template <class Stage>
struct Kind {
  using type = Stage;
};

struct Cuda {
  CurrentStream current;
  const Tensor& like;
  explicit Cuda(const Tensor& x) : current(x), like(x) {}

  template <class F>
  void forward(const Sequence& p, Results results) const {
    if (p.rows() == 0) return;
    Tensor gates;
    if (!results.saved) gates = fresh<F>(p.time * p.rows() * p.saved()), results.saved = gates.mutable_data_ptr();
    with_stage<F>(p, [&](auto stage) {
      using Stage = typename decltype(stage)::type;
      if (p.is_agent) launch_layer<Stage>("recurrent_encode", layer_encode<Stage>, p.hidden, p, results);
      launch_layer<Stage>("recurrent_gates", layer_gates<Stage>, 3 * p.hidden, p, results);
      walk<F>(stage, p, results);
      if (p.is_agent) launch_layer<Stage>("recurrent_head", layer_head<Stage>, p.actions, p, results);
    });
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
    with_stage<F>(p, [&](auto stage) {
      using Stage = typename decltype(stage)::type;
      if (p.is_agent) launch_layer<Stage>("recurrent_head_back", layer_head_back<Stage>, H, p, g, work);
      walk_back<F>(stage, p, g, work);
      if (p.is_agent || g.x)
        launch_layer<Stage>("recurrent_gates_back", layer_gates_back<Stage>, p.encoded(), p, g, work);
      if (p.is_agent && g.x)
        launch_layer<Stage>("recurrent_encode_back", layer_encode_back<Stage>, p.inputs, p, g, work);
      launch_shared("recurrent_sums", sum_slices<Stage>, static_cast<unsigned>(jobs.slices * jobs.tiles), kThreads,
                    kSumBytes<Stage>, current.stream, p, g, work, jobs, partial);
    });
    launch("recurrent_sum", add_slices<F>, blocks_for(jobs.elements, kThreads), kThreads, current.stream, p, jobs,
           partial);
  }

 private:
  // f of the kind of stage that the call's products take.
  template <class F, class Function>
  static void with_stage(const Sequence& p, const Function& f) {
    if constexpr (std::is_same_v<F, float>) {
      if (p.precision != Precision::kFloat32 && has_matrix_units())
        return p.precision == Precision::kTf32 ? f(Kind<MatrixStage<Tf32>>()) : f(Kind<MatrixStage<Bf16>>());
    }
    f(Kind<PlainStage<F>>());
  }

  template <class F>
  Tensor fresh(int64_t elements) const {
    return empty({elements}, sizeof(F) == sizeof(double) ? ScalarType::Double : ScalarType::Float, like);
  }

  template <class Stage, class Kernel, class... Rest>
  void launch_layer(const char* name, Kernel* kernel, int64_t columns, const Sequence& p, const Rest&... rest) const {
    const int64_t blocks = Places<Stage>::tiles(p.time * p.rows()) * Places<Stage>::tiles(columns);
    launch_shared(name, kernel, blocks_for(blocks, 1), kThreads, Places<Stage>::kBytes, current.stream, p, rest...);
  }

  // ---- in the type F

  template <class F>
  void walk(Kind<PlainStage<F>>, const Sequence& p, const Results& results) const {
    with_block<F>(p, [&](auto units, auto rows) {
      constexpr int kUnits = decltype(units)::value, kRows = decltype(rows)::value;
      if constexpr (kUnits > 0) {
        using Product = UnitProduct<F, kUnits, kRows, false>;
        launch_shared("recurrent_forward", walk_forward<F, kUnits, kRows>, blocks_for(p.rows(), kRows),
                      Product::kThreads, Product::kBytes, current.stream, p, StepStrides(p), results);
      } else {
        const Tensor transposed = fresh<F>(3 * p.hidden * p.hidden);
        F* w_hh = static_cast<F*>(transposed.mutable_data_ptr());
        launch("recurrent_weights", transpose_weights<F>, static_cast<unsigned>(p.hidden), kThreads, current.stream, p,
               w_hh);
        launch_wide<F>("recurrent_wide_forward", wide_walk_forward<F, true>, wide_walk_forward<F, false>, p, w_hh,
                       results);
      }
    });
  }

  template <class F>
  void walk_back(Kind<PlainStage<F>>, const Sequence& p, const Gradients& g, const Work<F>& work) const {
    with_block<F>(p, [&](auto units, auto rows) {
      constexpr int kUnits = decltype(units)::value, kRows = decltype(rows)::value;
      if constexpr (kUnits > 0) {
        using Product = UnitProduct<F, kUnits, kRows, true>;
        launch_shared("recurrent_backward", walk_backward<F, kUnits, kRows>, blocks_for(p.rows(), kRows),
                      Product::kThreads, kBackwardBytes<F, kUnits, kRows>, current.stream, p, StepStrides(p), g, work);
      } else {
        launch_wide<F>("recurrent_wide_backward", wide_walk_backward<F, true>, wide_walk_backward<F, false>, p, g,
                       work);
      }
    });
  }

  // f of the units that a block has registers for (0: there are too many), and its rows.
  template <class F, class Function>
  static void with_block(const Sequence& p, const Function& f) {
    constexpr bool kIsFloat = std::is_same_v<F, float>;
    if (p.hidden <= 64)
      with_rows<64>(p, f);
    else if (kIsFloat && p.hidden <= 128)
      with_rows<kIsFloat ? 128 : 64>(p, f);
    else
      f(std::integral_constant<int, 0>(), std::integral_constant<int, kWideRows>());
  }

  // As few rows as leave every block a multiprocessor of its own: a step waits for the last one, and takes longer the
  // more rows, but less than twice as long for twice as many. Two blocks share one only where there are more than that.
  template <int kUnits, class Function>
  static void with_rows(const Sequence& p, const Function& f) {
    const int64_t blocks = multiprocessors();
    const std::integral_constant<int, kUnits> units;
    if (p.rows() <= blocks)
      f(units, std::integral_constant<int, 1>());
    else if (p.rows() <= 2 * blocks)
      f(units, std::integral_constant<int, 2>());
    else
      f(units, std::integral_constant<int, 4>());
  }

  // With the recurrent weights in shared memory where they fit.
  template <class F, class Kernel, class... Rest>
  void launch_wide(const char* name, Kernel* shared, Kernel* global, const Sequence& p, const Rest&... rest) const {
    const int bytes = WideBlock<F>::bytes(p.hidden), weights = static_cast<int>(3 * p.hidden * p.hidden * sizeof(F));
    const bool fits = bytes + weights <= shared_limit();
    launch_shared(name, fits ? shared : global, blocks_for(p.rows(), kWideRows), kThreads,
                  fits ? bytes + weights : bytes, current.stream, p, rest...);
  }

  // ---- on matrix units

  template <class F, class Type>
  void walk(Kind<MatrixStage<Type>>, const Sequence& p, const Results& results) const {
    with_operations<Type>(p, [&](auto operations) {
      constexpr int kOperations = decltype(operations)::value;
      launch_matrix_walk<RecurrentProduct<Type, false, kOperations>>(
          "recurrent_matrix_forward", matrix_walk_forward<Type, kOperations>, 0, p, results);
    });
  }

  template <class F, class Type>
  void walk_back(Kind<MatrixStage<Type>>, const Sequence& p, const Gradients& g, const Work<float>& work) const {
    with_operations<Type>(p, [&](auto operations) {
      constexpr int kOperations = decltype(operations)::value;
      launch_matrix_walk<RecurrentProduct<Type, true, kOperations>>(
          "recurrent_matrix_backward", matrix_walk_backward<Type, kOperations>, kFlagBytes, p, g, work);
    });
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
