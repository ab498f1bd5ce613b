// gaussian on the CPU: some rows at a time, their numbers side by side, so that every loop over them vectorises,
// whatever D is.
#include <algorithm>
#include <cstring>
#include <memory>

#include "gaussian/ops.h"
#include "instruction_sets.h"

namespace emix::gaussian {
namespace {

inline constexpr int64_t kTile = 512;    // numbers
inline constexpr int64_t kGrain = 4096;  // numbers that are worth waking a thread

// Rows [first, first + rows) of the inputs, contiguous.
template <class F>
struct Tile {
  int64_t most_rows, numbers;
  std::unique_ptr<F[]> memory;
  F *mean, *log_std, *action, *noise, *term, *other;  // noise: e; term, other: of the results
  float* word[kWords];                                // [rows]

  EMIX_HD explicit Tile(const Problem& p)
      : most_rows(std::max<int64_t>(1, kTile / std::max<int64_t>(1, p.numbers))),
        numbers(p.numbers),
        memory(new F[most_rows * (6 * numbers + kWords)]) {
    F* end = memory.get();
    for (F** each : {&mean, &log_std, &action, &noise, &term, &other}) *each = end, end += most_rows * numbers;
    for (float*& each : word) each = reinterpret_cast<float*>(end), end += most_rows;
  }

  EMIX_HD void load(const View<2>& view, int64_t first, int64_t rows, F* to) const {
    if (!view.given()) return;
    for (int64_t r = 0; r < rows; ++r) memcpy(to + r * numbers, view.at<F>(first + r), numbers * sizeof(F));
  }

  EMIX_HD void load_inputs(const Problem& p, int64_t first, int64_t rows) const {
    load(p.mean, first, rows, mean), load(p.log_std, first, rows, log_std), load(p.action, first, rows, action);
  }

  EMIX_HD void draw(int64_t seed, int64_t first, int64_t rows) const {
    for (int64_t block = 0; block * kWords < numbers; ++block) {
      for (int64_t r = 0; r < rows; ++r) {
        float x[kWords];
        normal_numbers(seed, first + r, static_cast<int>(block), x);
        for (int w = 0; w < kWords; ++w) word[w][r] = x[w];
      }
      for (int w = 0; w < kWords && block * kWords + w < numbers; ++w)
        for (int64_t r = 0; r < rows; ++r) noise[r * numbers + block * kWords + w] = static_cast<F>(word[w][r]);
    }
  }

  // out[first + r] = the sum of a row's numbers, in order.
  EMIX_HD void sum_rows(const F* each, int64_t first, int64_t rows, void* out) const {
    for (int64_t r = 0; r < rows; ++r) {
      F sum = 0;
      for (int64_t d = 0; d < numbers; ++d) sum += each[r * numbers + d];
      static_cast<F*>(out)[first + r] = sum;
    }
  }

  // A number of each row, once for each of the row's numbers; 0 where it is absent.
  EMIX_HD void spread(const void* of_rows, int64_t first, int64_t rows, F* to) const {
    for (int64_t r = 0; r < rows; ++r)
      std::fill(to + r * numbers, to + (r + 1) * numbers, of_rows ? static_cast<const F*>(of_rows)[first + r] : F(0));
  }
};

// f(tile, first, rows) for the rows from begin to end.
template <class F, class Each>
EMIX_HD void for_tiles(const Problem& p, int64_t begin, int64_t end, const Each& each) {
  const Tile<F> tile(p);
  for (int64_t first = begin; first < end; first += tile.most_rows) {
    const int64_t rows = std::min(tile.most_rows, end - first);
    tile.load_inputs(p, first, rows);
    each(tile, first, rows);
  }
}

template <class F>
EMIX_HD void terms_rows(const Problem& p, const Results& out, int64_t begin, int64_t end) {
  for_tiles<F>(p, begin, end, [&](const Tile<F>& tile, int64_t first, int64_t rows) EMIX_INLINE {
    F* __restrict log_prob = tile.term, * __restrict entropy = tile.other;
    for (int64_t e = 0; e < rows * p.numbers; ++e) {
      const Terms<F> terms(tile.mean[e], tile.log_std[e], tile.action[e]);
      log_prob[e] = terms.log_prob, entropy[e] = terms.entropy;
    }
    tile.sum_rows(log_prob, first, rows, out.log_prob);
    tile.sum_rows(entropy, first, rows, out.entropy);
  });
}

template <class F>
EMIX_HD void terms_backward_rows(const Problem& p, const Results& out, int64_t begin, int64_t end) {
  for_tiles<F>(p, begin, end, [&](const Tile<F>& tile, int64_t first, int64_t rows) EMIX_INLINE {
    tile.spread(p.log_prob_grad, first, rows, tile.term);
    tile.spread(p.entropy_grad, first, rows, tile.other);
    F* __restrict mean_grad = static_cast<F*>(out.mean_grad) + first * p.numbers;
    F* __restrict log_std_grad = static_cast<F*>(out.log_std_grad) + first * p.numbers;
    for (int64_t e = 0; e < rows * p.numbers; ++e) {
      const TermsGradient<F> grad(tile.mean[e], tile.log_std[e], tile.action[e], tile.term[e], tile.other[e]);
      mean_grad[e] = grad.mean, log_std_grad[e] = grad.log_std;
    }
  });
}

template <class F>
EMIX_HD void sample_rows(const Problem& p, const Results& out, int64_t begin, int64_t end) {
  const int64_t seed = *p.seed;
  for_tiles<F>(p, begin, end, [&](const Tile<F>& tile, int64_t first, int64_t rows) EMIX_INLINE {
    tile.draw(seed, first, rows);
    F* __restrict action = static_cast<F*>(out.action) + first * p.numbers, * __restrict log_prob = tile.term;
    for (int64_t e = 0; e < rows * p.numbers; ++e) {
      const Sample<F> sample(tile.mean[e], tile.log_std[e], tile.noise[e], p.squash);
      action[e] = sample.action, log_prob[e] = sample.log_prob;
    }
    tile.sum_rows(log_prob, first, rows, out.log_prob);
  });
}

template <class F>
EMIX_HD void sample_backward_rows(const Problem& p, const Results& out, int64_t begin, int64_t end) {
  const int64_t seed = *p.seed;
  for_tiles<F>(p, begin, end, [&](const Tile<F>& tile, int64_t first, int64_t rows) EMIX_INLINE {
    tile.draw(seed, first, rows);
    tile.spread(p.log_prob_grad, first, rows, tile.term);
    if (p.action_grad)
      memcpy(tile.other, static_cast<const F*>(p.action_grad) + first * p.numbers, rows * p.numbers * sizeof(F));
    else
      std::fill(tile.other, tile.other + rows * p.numbers, F(0));
    F* __restrict mean_grad = static_cast<F*>(out.mean_grad) + first * p.numbers;
    F* __restrict log_std_grad = static_cast<F*>(out.log_std_grad) + first * p.numbers;
    for (int64_t e = 0; e < rows * p.numbers; ++e) {
      const SampleGradient<F> grad(tile.mean[e], tile.log_std[e], tile.noise[e], p.squash, tile.other[e], tile.term[e]);
      mean_grad[e] = grad.mean, log_std_grad[e] = grad.log_std;
    }
  });
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type.
#define EMIX_GAUSSIAN_CLONE(SETS, F, name, rows) \
  SETS void name(F, const Problem& p, const Results& out, int64_t begin, int64_t end) { rows<F>(p, out, begin, end); }
#define EMIX_GAUSSIAN_CLONES(SETS, F)                               \
  EMIX_GAUSSIAN_CLONE(SETS, F, terms_of, terms_rows)                \
  EMIX_GAUSSIAN_CLONE(SETS, F, terms_gradient, terms_backward_rows) \
  EMIX_GAUSSIAN_CLONE(SETS, F, draw, sample_rows)                   \
  EMIX_GAUSSIAN_CLONE(SETS, F, draw_gradient, sample_backward_rows)
EMIX_GAUSSIAN_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_GAUSSIAN_CLONES(EMIX_BASELINE, double)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void terms(F type, const Problem& p, const Results& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { terms_of(type, p, out, begin, end); });
  }
  template <class F>
  void terms_backward(F type, const Problem& p, const Results& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { terms_gradient(type, p, out, begin, end); });
  }
  template <class F>
  void sample(F type, const Problem& p, const Results& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { draw(type, p, out, begin, end); });
  }
  template <class F>
  void sample_backward(F type, const Problem& p, const Results& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { draw_gradient(type, p, out, begin, end); });
  }

 private:
  template <class Each>
  static void for_rows(const Problem& p, const Each& each) {
    run_rows(p.rows, kGrain / std::max<int64_t>(1, p.numbers) + 1, each);
  }
};

}  // namespace
}  // namespace emix::gaussian

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::gaussian::register_ops<emix::gaussian::Cpu>(m); }
