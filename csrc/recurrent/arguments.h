// From tensors to a Sequence, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "recurrent/recurrent.h"

namespace emix::recurrent {

// The weights of the GRU itself.
struct GruWeights {
  const Tensor &w_ih, &w_hh, &b_ih, &b_hh;
};

// And of the layers before and after.
struct LayerWeights {
  const Tensor &w_encode, &b_encode, &w_head, &b_head;
};

inline int64_t hidden_of(const Tensor& w_hh) {
  const auto sizes = w_hh.sizes();
  if (sizes.size() != 2 || sizes[1] < 1 || sizes[1] > kMaxHidden || sizes[0] != 3 * sizes[1])
    fail("`w_hh` must have shape [3 H, H] with H from 1 to ", kMaxHidden, ", got ", shape_of(sizes));
  return sizes[1];
}

class Call {
 public:
  Arguments arguments;
  Sequence p;

  // A plain GRU: x [R, T, I], h0 [R, H].
  Call(const Tensor& x, const OptionalTensor& h0, const GruWeights& gru, int64_t precision)
      : arguments{{"x", x}, {"h0", h0}, {"w_ih", gru.w_ih}, {"w_hh", gru.w_hh}, {"b_ih", gru.b_ih}, {"b_hh", gru.b_hh}},
        name_("x") {
    const auto sizes = x.sizes();
    if (sizes.size() != 3) fail("`x` must have shape [R, T, I], got ", shape_of(sizes));
    p.batch = sizes[0], p.time = sizes[1], p.inputs = sizes[2];
    read_gru(gru, precision);
    p.x = arguments.dense_view<4>(arguments.floating("x", x, sizes), 2);
    p.h0 = read("h0", h0, {p.batch, p.hidden});
  }

  // The agent: obs [B, T, n, O], last_action [B, T, n], h0 [B, n, H].
  Call(const Tensor& obs, const OptionalTensor& last_action, const OptionalTensor& h0, const GruWeights& gru,
       const LayerWeights& layers, int64_t precision)
      : arguments{{"obs", obs},
                  {"h0", h0},
                  {"w_ih", gru.w_ih},
                  {"w_hh", gru.w_hh},
                  {"b_ih", gru.b_ih},
                  {"b_hh", gru.b_hh},
                  {"w_encode", layers.w_encode},
                  {"b_encode", layers.b_encode},
                  {"w_head", layers.w_head},
                  {"b_head", layers.b_head}},
        name_("obs") {
    const auto sizes = obs.sizes();
    if (sizes.size() != 4) fail("`obs` must have shape [B, T, n, O], got ", shape_of(sizes));
    p.batch = sizes[0], p.time = sizes[1], p.agents = sizes[2], p.inputs = sizes[3];
    p.is_agent = true;
    read_gru(gru, precision);
    p.x = arguments.dense_view<4>(arguments.floating("obs", obs, sizes));
    if (layers.w_head.dim() != 2) fail("`w_head` must have shape [A, H], got ", shape_of(layers.w_head.sizes()));
    p.actions = layers.w_head.sizes()[0];
    p.action_columns = last_action ? p.actions : 0;
    p.id_columns = columns_left(layers.w_encode, last_action.has_value());
    p.w_encode = read("w_encode", layers.w_encode, {p.hidden, p.in_columns()});
    p.b_encode = read("b_encode", layers.b_encode, {p.hidden});
    p.w_head = read("w_head", layers.w_head, {p.actions, p.hidden});
    p.b_head = read("b_head", layers.b_head, {p.actions});
    p.h0 = read("h0", h0, {p.batch, p.agents, p.hidden});
    const std::vector<int64_t> rows{p.batch, p.time, p.agents};
    p.last_action = arguments.contiguous_integers(
        arguments.indices("last_action", last_action, rows, " because `obs` has shape ", shape_of(sizes)));
  }

  // What the backward pass gets beside the inputs: gradients and what the forward pass has saved.
  const void* read_back(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape) {
    return arguments.contiguous(arguments.upstream(name, tensor, shape, " like the forward pass's"));
  }

  std::vector<int64_t> out_shape() const {
    return p.is_agent ? std::vector<int64_t>{p.batch, p.time, p.agents, p.actions}
                      : std::vector<int64_t>{p.batch, p.time, p.hidden};
  }
  std::vector<int64_t> hidden_shape() const {
    return p.is_agent ? std::vector<int64_t>{p.batch, p.agents, p.hidden} : std::vector<int64_t>{p.batch, p.hidden};
  }

 private:
  const char* name_;  // of x

  const void* read(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape) {
    return arguments.contiguous(arguments.floating(name, tensor, shape, " because `", name_, "` has shape ",
                                                   shape_of(arguments.first().sizes()), " and `w_hh` [", 3 * p.hidden,
                                                   ", ", p.hidden, "]"));
  }

  void read_gru(const GruWeights& gru, int64_t precision) {
    arguments.widen();
    if (precision < 0 || precision > 2) fail("`precision` must be 0 (float32), 1 (tf32) or 2 (bf16), got ", precision);
    p.precision = static_cast<Precision>(precision);
    if (p.precision != Precision::kFloat32 && arguments.wide == ScalarType::Double)
      fail("`precision` must be float32 where an input is float64 (computed in float64), got ",
           p.precision == Precision::kTf32 ? "tf32" : "bf16");
    const int64_t H = p.hidden = hidden_of(gru.w_hh);
    p.w_ih = read("w_ih", gru.w_ih, {3 * H, p.encoded()});
    p.w_hh = read("w_hh", gru.w_hh, {3 * H, H});
    p.b_ih = read("b_ih", gru.b_ih, {3 * H});
    p.b_hh = read("b_hh", gru.b_hh, {3 * H});
  }

  // Those of the agents' ids: n, or none.
  int64_t columns_left(const Tensor& w_encode, bool has_actions) const {
    const auto sizes = w_encode.sizes();
    const int64_t used = p.inputs + p.action_columns, columns = sizes.size() == 2 ? sizes[1] : -1;
    if (columns != used && columns != used + p.agents)
      fail("`w_encode` must have shape [H, O", has_actions ? " + A" : "", " + n] or [H, O", has_actions ? " + A" : "",
           "] with O = ", p.inputs, ", A = ", p.actions, ", n = ", p.agents, ", got ", shape_of(sizes));
    return columns - used;
  }
};

}  // namespace emix::recurrent
