// recurrent on the GPU: forward one launch that transposes the weights and one that walks; backward one that walks and
// two for the gradients of the weights.
#include "cuda_stream.h"
#include "recurrent/cuda_sums.h"
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
    const int64_t H = p.hidden, width = p.saved();
    const int64_t in = p.is_agent ? p.in_columns() * H : 0, ih = p.encoded() * 3 * H, hh = H * 3 * H;
    const Tensor weights = fresh<F>(in + ih + hh + p.actions * H);
    F* data = static_cast<F*>(weights.mutable_data_ptr());
    const Transposed<F> to{data, data + in, data + in + ih, data + in + ih + hh};
    Tensor gates;
    if (!results.saved) gates = fresh<F>(p.time * p.rows() * width), results.saved = gates.mutable_data_ptr();
    launch("recurrent_weights", transpose_weights<F>, blocks_for(ih + 1, kThreads), kThreads, current.stream, p, to);
    launch_walk<F>("recurrent_forward", walk_forward<F, true>, walk_forward<F, false>, p, to, results);
  }

  template <class F>
  void backward(const Sequence& p, const Gradients& g) const {
    const int64_t H = p.hidden, places = p.time * p.rows();
    const Tensor floats = fresh<F>(places * (4 * H + (p.is_agent ? 2 * H : 0)));
    const Tensor flags = empty({2 * places}, ScalarType::Byte, like);
    F* data = static_cast<F*>(floats.mutable_data_ptr());
    uint8_t* reached = static_cast<uint8_t*>(flags.mutable_data_ptr());
    const Work<F> work{data, data + 4 * places * H, data + 5 * places * H, reached, reached + places};
    if (p.rows() > 0) launch_walk<F>("recurrent_backward", walk_backward<F, true>, walk_backward<F, false>, p, g, work);
    const Jobs jobs(p, g);
    const Tensor sums = fresh<F>(jobs.slices * jobs.elements);
    F* partial = static_cast<F*>(sums.mutable_data_ptr());
    launch_shared("recurrent_sums", sum_slices<F>, static_cast<unsigned>(jobs.slices * jobs.tiles), kThreads,
                  2 * kSumDepth * kTile * static_cast<int>(sizeof(F)), current.stream, p, g, work, jobs, partial);
    launch("recurrent_sum", add_slices<F>, blocks_for(jobs.elements, kThreads), kThreads, current.stream, p, jobs,
           partial);
  }

 private:
  template <class F>
  Tensor fresh(int64_t elements) const {
    return empty({elements}, sizeof(F) == sizeof(double) ? ScalarType::Double : ScalarType::Float, like);
  }

  // With the recurrent weights in shared memory where they fit.
  template <class F, class Kernel, class... Rest>
  void launch_walk(const char* name, Kernel* shared, Kernel* global, const Sequence& p, const Rest&... rest) const {
    const int bytes = Place<F>::bytes(p.hidden), weights = static_cast<int>(3 * p.hidden * p.hidden * sizeof(F));
    const bool fits = bytes + weights <= shared_limit();
    launch_shared(name, fits ? shared : global, blocks_for(p.rows(), kRows), kThreads, fits ? bytes + weights : bytes,
                  current.stream, p, rest...);
  }
};

}  // namespace
}  // namespace emix::recurrent

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::recurrent::register_ops<emix::recurrent::Cuda>(m); }
