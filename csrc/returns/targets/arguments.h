// From tensors to a Joint, with the checks that both devices share.
#pragma once
#include <limits>
#include <tuple>

#include "mixing/arguments.h"
#include "returns/targets/targets.h"

namespace emix::returns {

class JointCall {
 public:
  Joint problem;
  ScalarType input = ScalarType::Float, output = ScalarType::Float;  // of q, pi, weight and bias; of the results

  JointCall(const Tensor& q, const OptionalTensor& pi, const Tensor& actions, const Tensor& weight,
            const OptionalTensor& bias, const OptionalTensor& valid, std::optional<double> uncertainty_scale) {
    check_values(q, uncertainty_scale);
    const auto sizes = q.sizes();
    const std::vector<int64_t> values(sizes.begin() + axes_, sizes.end());  // [B, T + 1, n, A]
    const std::vector<int64_t> agents(values.begin(), values.end() - 1), entries(agents.begin(), agents.end() - 1);
    problem.rows = values[0] * values[1], problem.entries = Divider<int64_t>(values[1]);
    problem.agents = values[2], problem.actions = values[3];
    problem.members = axes_ ? static_cast<int>(sizes[0]) : 1;
    problem.uncertain = uncertainty_scale.has_value(), problem.scale = uncertainty_scale.value_or(0);

    check_input("pi", pi, values, q);
    check_input("weight", weight, agents, q);
    check_input("bias", bias, entries, q);
    find_types({&q, pi ? &*pi : nullptr, &weight, bias ? &*bias : nullptr});
    const Tensor& kept = read(q, axes_ + 2, problem.q, axes_);
    problem.member_stride = axes_ ? kept.strides()[0] : 0;
    if (pi) read(*pi, 2, problem.pi);
    read(weight, 2, problem.weight);
    if (bias) read(*bias, 2, problem.bias);
    read_actions(actions, agents, q);
    if (valid) read_valid(*valid, {values[0], values[1] - 1}, q);
  }

  // Fresh q, v and trace [B, T + 1]; without pi the trace has no elements.
  std::tuple<Tensor, Tensor, Tensor> outputs(const Tensor& like) const {
    const std::vector<int64_t> shape{problem.entries.quotient(problem.rows), problem.entries.divisor()};
    return {empty(shape, output, like), empty(shape, output, like),
            empty(problem.pi.data ? shape : std::vector<int64_t>{0}, output, like)};
  }

  template <class F>
  JointOutputs<F> pointers(const std::tuple<Tensor, Tensor, Tensor>& outputs) const {
    const auto& [q, v, trace] = outputs;
    return {static_cast<F*>(q.mutable_data_ptr()), static_cast<F*>(v.mutable_data_ptr()),
            problem.pi.data ? static_cast<F*>(trace.mutable_data_ptr()) : nullptr};
  }

 private:
  void check_values(const Tensor& q, std::optional<double> uncertainty_scale) {
    if (!q.defined()) fail("`q` must be a tensor, got None");
    const auto sizes = q.sizes();
    axes_ = sizes.size() == 5 ? 1 : 0;
    if (sizes.size() != 4 && sizes.size() != 5)
      fail("`q` must have shape [B, T + 1, n, A] or [N, B, T + 1, n, A], got ", shape_text(sizes.data(), sizes.size()));
    if (axes_ && (sizes[0] < 1 || sizes[0] > ensemble::kMaxMembers))
      fail("`q` must have 1 to ", ensemble::kMaxMembers, " members on its first axis, got shape ",
           shape_text(sizes.data(), sizes.size()));
    if (sizes[axes_ + 1] < 1)
      fail("`q` must have the entry after the last step, got shape ", shape_text(sizes.data(), sizes.size()));
    if (sizes[axes_ + 3] < 1 || sizes[axes_ + 2] * sizes[axes_ + 3] > std::numeric_limits<int32_t>::max())
      fail("`q` must have an action at least on its last axis, and fewer than 2^31 on the last two, got shape ",
           shape_text(sizes.data(), sizes.size()));
    check_floating("q", q);
    if (uncertainty_scale && !axes_)
      fail("`uncertainty_scale` must be None where `q` has no members, got ", *uncertainty_scale);
  }

  static void check_input(const char* name, const OptionalTensor& tensor, const std::vector<int64_t>& shape,
                          const Tensor& q) {
    if (!tensor) return;
    if (!tensor->defined()) fail("`", name, "` must be a tensor, got None");
    const auto sizes = q.sizes();
    check_shape(name, *tensor, shape, " because `q` has shape ", shape_text(sizes.data(), sizes.size()));
    check_floating(name, *tensor);
    check_device(name, *tensor, "q", q);
  }

  void find_types(std::initializer_list<const Tensor*> tensors) {
    bool mixed = false;
    input = (*tensors.begin())->scalar_type();
    for (const Tensor* tensor : tensors) {
      if (!tensor) continue;
      mixed |= tensor->scalar_type() != input;
      if (tensor->scalar_type() == ScalarType::Double) output = ScalarType::Double;
    }
    if (mixed) input = output;
  }

  // The tensor or the copy of it that was needed.
  const Tensor& read(const Tensor& tensor, size_t leading, mixing::RowView& view, size_t first = 0) {
    const bool same = tensor.scalar_type() == input;
    kept_.push_back(same ? tensor : torch::stable::to(tensor, input));
    if (!mixing::view_rows(kept_.back(), leading, view, first)) {
      kept_.back() = torch::stable::contiguous(kept_.back());
      mixing::view_rows(kept_.back(), leading, view, first);
    }
    return kept_.back();
  }

  void read_actions(const Tensor& actions, const std::vector<int64_t>& shape, const Tensor& q) {
    if (!actions.defined()) fail("`actions` must be a tensor, got None");
    const auto sizes = q.sizes();
    check_shape("actions", actions, shape, " because `q` has shape ", shape_text(sizes.data(), sizes.size()));
    check_real("actions", actions);
    if (is_floating(actions.scalar_type()) || actions.scalar_type() == ScalarType::Bool)
      fail("`actions` must be an integer tensor, such as int64");
    check_device("actions", actions, "q", q);
    problem.taken_itemsize = static_cast<int>(actions.element_size());
    kept_.push_back(actions);
    if (mixing::view_rows(actions, 2, problem.taken)) return;
    kept_.back() = torch::stable::contiguous(actions);
    mixing::view_rows(kept_.back(), 2, problem.taken);
  }

  void read_valid(const Tensor& valid, const std::vector<int64_t>& shape, const Tensor& q) {
    check_shape("valid", valid, shape, ", which `q` has an entry more than");
    check_real("valid", valid);
    check_device("valid", valid, "q", q);
    problem.valid = valid.const_data_ptr();
    if (!problem.valid) problem.valid = &problem;  // an empty tensor is there all the same; nothing of it is read
    problem.valid_itemsize = static_cast<int>(valid.element_size());
    problem.valid_episode = valid.strides()[0], problem.valid_step = valid.strides()[1];
  }

  size_t axes_ = 0;           // of the members
  std::vector<Tensor> kept_;  // keeps the data of the views alive
};

}  // namespace emix::returns
