// From tensors to the structs of mixing.h, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "mixing/mixing.h"

namespace emix::mixing {

// Of every mixer: all inputs have the leading axes of `q`, which are the rows.
class Call {
 public:
  Arguments arguments;
  int64_t rows = 1;

  std::vector<int64_t> shape(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> result = leading_;
    result.insert(result.end(), inner);
    return result;
  }

  std::vector<int64_t> result_shape() const { return outputs_ ? shape({*outputs_}) : leading_; }

  RowView upstream(const char* name, const Tensor& grad) {
    return arguments.rows(arguments.upstream(name, grad, result_shape(), " like the result"), leading_.size());
  }

 protected:
  std::optional<int64_t> outputs_;  // of a mixer of several values, which has an axis for them

  Call(std::initializer_list<Input> inputs, size_t inner_axes) : arguments(inputs) {
    const auto sizes = arguments.first().sizes();
    if (sizes.size() < inner_axes)
      fail("`q` must have shape ", inner_axes == 1 ? "[..., n]" : "[..., n, A]", ", got ", shape_of(sizes));
    if (sizes.size() > kMaxDims) fail("`q` may have ", kMaxDims, " axes at most, got ", sizes.size());
    leading_.assign(sizes.begin(), sizes.end() - inner_axes);
    for (const int64_t size : leading_) rows *= size;
  }

  RowView read(const char* name, const OptionalTensor& tensor, std::initializer_list<int64_t> inner) {
    const auto q = arguments.first().sizes();
    return arguments.rows(arguments.floating(name, tensor, shape(inner), " because `q` has shape ", shape_of(q)),
                          leading_.size());
  }

 private:
  std::vector<int64_t> leading_;
};

struct LinearCall : Call {
  Linear problem;

  LinearCall(const Tensor& q, const Tensor& weight, const OptionalTensor& bias)
      : Call({{"q", q}, {"weight", weight}, {"bias", bias}}, 1) {
    const int64_t n = q.sizes().back();
    problem.rows = rows, problem.agents = n;
    problem.q = read("q", q, {n}), problem.weight = read("weight", weight, {n}), problem.bias = read("bias", bias, {});
  }
};

struct ExpectedCall : Call {
  Expected problem;

  ExpectedCall(const Tensor& q, const Tensor& pi, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& uncertainty)
      : Call({{"q", q}, {"pi", pi}, {"weight", weight}, {"bias", bias}, {"uncertainty", uncertainty}}, 2) {
    const int64_t n = q.sizes()[q.dim() - 2], A = q.sizes().back();
    problem.rows = rows, problem.agents = n, problem.actions = A;
    problem.q = read("q", q, {n, A}), problem.pi = read("pi", pi, {n, A});
    problem.weight = read("weight", weight, {n}), problem.bias = read("bias", bias, {});
    problem.uncertainty = read("uncertainty", uncertainty, {n, A});
  }
};

struct MonotonicCall : Call {
  Monotonic problem;

  // Of several values where w2 has an axis more than q.
  MonotonicCall(const Tensor& q, const Tensor& w1, const Tensor& b1, const Tensor& w2, const OptionalTensor& v)
      : Call({{"q", q}, {"w1", w1}, {"b1", b1}, {"w2", w2}, {"v", v}}, 1) {
    if (b1.dim() == 0) fail("`b1` must have shape [..., E], got []");
    const int64_t n = q.sizes().back(), E = b1.sizes().back();
    problem.rows = rows, problem.agents = n, problem.embed = E;
    problem.q = read("q", q, {n}), problem.b1 = read("b1", b1, {E}), problem.w1 = read("w1", w1, {n, E});
    if (w2.dim() == q.dim() + 1) {
      const int64_t m = w2.sizes().back();
      outputs_ = problem.outputs = m;
      problem.w2 = read("w2", w2, {E, m}), problem.v = read("v", v, {m});
    } else {
      problem.w2 = read("w2", w2, {E}), problem.v = read("v", v, {});
    }
  }
};

}  // namespace emix::mixing
