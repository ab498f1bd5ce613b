// From tensors to a Hypernetwork, with the checks.
#pragma once
#include "call_arguments.h"
#include "hypernetwork/hypernetwork.h"

namespace emix::hypernetwork {

struct Parameters {
  const Tensor &w_first, &b_first, &w_v, &b_v;
  const OptionalTensor &w_w1, &b_w1, &w_w2, &b_w2;
};

class Call {
 public:
  Arguments arguments;
  Hypernetwork p;
  int64_t agents = 0, embed = 0, values = 0;  // n, E, m

  Call(const Tensor& state, const Parameters& w)
      : arguments{{"state", state}, {"w_first", w.w_first}, {"b_first", w.b_first}, {"w_v", w.w_v},  {"b_v", w.b_v},
                  {"w_w1", w.w_w1}, {"b_w1", w.b_w1},       {"w_w2", w.w_w2},       {"b_w2", w.b_w2}} {
    arguments.widen();
    read_state(state);
    read_sizes(w);
    p.w_first = read("w_first", w.w_first, {p.members, p.columns, p.states});
    p.b_first = read("b_first", w.b_first, {p.members, p.columns});
    read_head(kV, {"w_v", "b_v"}, w.w_v, w.b_v);
    if (!w.w_w1) return;
    read_head(kW1, {"w_w1", "b_w1"}, w.w_w1, w.b_w1);
    read_head(kW2, {"w_w2", "b_w2"}, w.w_w2, w.b_w2);
  }

  // [N, ..., last]; ... are the axes that are R.
  std::vector<int64_t> shape(std::initializer_list<int64_t> last) const {
    std::vector<int64_t> result{p.members};
    result.insert(result.end(), leading_.begin(), leading_.end());
    result.insert(result.end(), last);
    return result;
  }

  std::vector<int64_t> shape_of_head(int head) const {
    if (head == kW1) return shape({agents, embed});
    if (head == kW2) return shape({embed, values});
    return shape({p.heads[head].size});
  }

  std::vector<int64_t> shape_of_weight(int head) const { return {p.members, p.heads[head].width, p.heads[head].size}; }

  std::vector<int64_t> state_shape() const {
    std::vector<int64_t> result = leading_;
    result.push_back(p.states);
    return result;
  }

  // What the backward pass gets beside the inputs: a gradient, or what the forward pass has saved.
  const void* read_back(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape) {
    return arguments.contiguous(arguments.upstream(name, tensor, shape, " like the forward pass's"));
  }

 private:
  std::vector<int64_t> leading_;

  void read_state(const Tensor& state) {
    const auto sizes = state.sizes();
    if (sizes.size() < 1 || sizes.size() > kMaxDims - 2)  // w1 has two axes more
      fail("`state` must have shape [..., S] with up to ", kMaxDims - 2, " axes, got ", shape_of(sizes));
    leading_.assign(sizes.begin(), sizes.end() - 1);
    p.states = sizes.back();
    p.state = arguments.rows(arguments.floating("state", state, sizes), leading_.size());
    for (const int64_t size : leading_) p.rows *= size;
  }

  void read_sizes(const Parameters& w) {
    const auto v = w.w_v.sizes(), first = w.w_first.sizes();
    if (v.size() != 3 || v[0] < 1 || v[1] < 1 || v[2] < 1)
      fail("`w_v` must have shape [N, E, m], all at least 1, got ", shape_of(v));
    if (first.size() != 3) fail("`w_first` must have shape [N, C, S], got ", shape_of(first));
    p.members = v[0], p.columns = first[1], embed = v[1], values = v[2];
    int64_t rest = p.columns - 2 * embed, w2_width = embed * values, w1_width = rest - w2_width;
    int64_t w1_size = w1_width;
    const int given = int(w.w_w1.has_value()) + w.b_w1.has_value() + w.w_w2.has_value() + w.b_w2.has_value();
    if (given == 4) {
      const auto w1 = w.w_w1->sizes(), w2 = w.w_w2->sizes();
      if (w1.size() != 3) fail("`w_w1` must have shape [N, K, n E], got ", shape_of(w1));
      if (w2.size() != 3) fail("`w_w2` must have shape [N, K', E m], got ", shape_of(w2));
      w1_width = w1[1], w2_width = w2[1], w1_size = w1[2];
    } else if (given > 0) {
      fail("`w_w1`, `b_w1`, `w_w2` and `b_w2` must be given together, got ", given, " of them");
    }
    if (w1_size < 0 || w1_size % embed != 0 || w1_width + w2_width != rest)
      fail("`w_first` must have E + E columns and those of w1 and w2, with E = ", embed, " and m = ", values, ", got ",
           shape_of(first));
    agents = w1_size / embed;
    p.heads[kB1] = {0, embed, embed};
    p.heads[kV] = {embed, embed, values};
    p.heads[kW1] = {2 * embed, w1_width, w1_size};
    p.heads[kW2] = {2 * embed + w1_width, w2_width, embed * values};
  }

  void read_head(int head, std::pair<const char*, const char*> names, const OptionalTensor& weight,
                 const OptionalTensor& bias) {
    p.heads[head].weight = read(names.first, weight, shape_of_weight(head));
    p.heads[head].bias = read(names.second, bias, {p.members, p.heads[head].size});
  }

  const void* read(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape) {
    const void* data =
        arguments.contiguous(arguments.floating(name, tensor, shape, " because N = ", p.members, ", S = ", p.states,
                                                ", n = ", agents, ", E = ", embed, " and m = ", values));
    return data ? data : nothing;  // of a tensor without elements
  }
};

}  // namespace emix::hypernetwork
