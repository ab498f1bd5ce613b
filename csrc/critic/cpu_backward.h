// A block back through one member: what it adds to the gradients of the weights, and the gradients of its inputs.
#pragma once
#include "critic/cpu_block.h"

namespace emix::critic {

// Where one member's sums lie in one array, as its weights do but padded; without data, how many elements that takes.
template <class F>
struct Sums {
  F *state, *obs, *id;   // [S, H], [O, H], [n, H]: of W_in
  F *hidden, *b_hidden;  // [H, H], [H]
  F *head, *b_head;      // [H, A + 1], [A + 1], or where one action is wanted, of ActionWeights [A, H], [A]
  int64_t elements;

  EMIX_HD Sums(const Critic& p, F* data) {
    const Sizes size(p);
    elements = 0;
    const auto take = [&](int64_t rows, int64_t columns) __attribute__((always_inline)) {
      F* begin = data ? data + elements : nullptr;
      elements += padded(rows, kPadRows) * columns;
      return begin;
    };
    state = take(p.states, size.hidden), obs = take(p.features, size.hidden), id = take(p.agents, size.hidden);
    hidden = take(p.hidden, size.hidden), b_hidden = take(1, size.hidden);
    head = p.action ? take(p.actions, size.hidden) : take(p.hidden, size.outputs), b_head = take(1, size.outputs);
  }

  void write(const Critic& p, int64_t member, const Gradients& g) const {
    const Sizes size(p);
    const int64_t H = p.hidden, Hp = size.hidden, S = p.states, O = p.features, outputs = p.outputs();
    F* w_encode = static_cast<F*>(g.w_encode) + member * p.inputs() * H;
    copy(state, S, H, Hp, w_encode, H), copy(obs, O, H, Hp, w_encode + S * H, H),
        copy(id, p.agents, H, Hp, w_encode + (S + O) * H, H);
    F* b_encode = static_cast<F*>(g.b_encode) + member * H;
    std::fill(b_encode, b_encode + H, F(0));
    for (int64_t i = 0; i < p.agents; ++i)
      for (int64_t j = 0; j < H; ++j) b_encode[j] += id[i * Hp + j];
    copy(hidden, H, H, Hp, static_cast<F*>(g.w_hidden) + member * H * H, H);
    copy(b_hidden, 1, H, Hp, static_cast<F*>(g.b_hidden) + member * H, H);
    F *w_head = static_cast<F*>(g.w_head) + member * H * outputs,
      *b_head_grad = static_cast<F*>(g.b_head) + member * outputs;
    if (p.action) return write_action_weights(p, w_head, b_head_grad);
    copy(head, H, outputs, size.outputs, w_head, outputs);
    copy(b_head, 1, outputs, size.outputs, b_head_grad, outputs);
  }

 private:
  // The gradient of w_a + w_v is that of w_a, and part of that of w_v.
  void write_action_weights(const Critic& p, F* w_head, F* b_head_grad) const {
    const int64_t Hp = padded(p.hidden, kColumns), A = p.actions;
    for (int64_t j = 0; j < p.hidden; ++j, w_head += p.outputs()) {
      w_head[A] = 0;
      for (int64_t a = 0; a < A; ++a) w_head[A] += w_head[a] = head[a * Hp + j];
    }
    b_head_grad[A] = 0;
    for (int64_t a = 0; a < A; ++a) b_head_grad[A] += b_head_grad[a] = b_head[a];
  }
};

// Weights of one member, transposed: what gradients are multiplied with.
template <class F>
struct Transposed {
  F *hidden = nullptr, *head = nullptr;  // [H, H], [A + 1, H]
  F *state = nullptr, *obs = nullptr;    // [H, S], [H, O]; nullptr where their gradient is not wanted

  EMIX_HD void allocate(Memory<F>& memory, const Critic& p, const Gradients& g) {
    const Sizes size(p);
    hidden = memory.take(p.hidden * size.hidden), head = memory.take(p.outputs() * size.hidden);
    if (g.state_parts) state = memory.take(p.hidden * size.states);
    if (g.obs_parts) obs = memory.take(p.hidden * size.features);
  }

  EMIX_HD void fill(const Critic& p, const Weights<F>& w, int64_t member) const {
    const Sizes size(p);
    const int64_t H = p.hidden, Hp = size.hidden;
    const F* w_encode = w.in.row(member * p.inputs());
    transpose(w.hidden.row(member * H), H, H, w.hidden.stride, hidden, Hp);
    transpose(w.head.row(member * H), H, p.outputs(), size.outputs, head, Hp);
    if (state) transpose(w_encode, p.states, H, w.in.stride, state, size.states);
    if (obs) transpose(w_encode + p.states * w.in.stride, p.features, H, w.in.stride, obs, size.features);
  }
};

template <int kBytes, class F>
class BackwardWalk {
 public:
  EMIX_HD BackwardWalk(const Critic& critic, const Weights<F>& weights, const Gradients& gradients)
      : p(critic), w(weights), g(gradients), size(critic), in(critic, weights, true), sums(critic, nullptr) {
    const int64_t most_steps = padded(block_steps(p), kPadRows),
                  most_rows = padded(block_steps(p) * p.agents, kPadRows);
    memory.allocate([&] {
      in.allocate(memory);
      transposed.allocate(memory, p, g);
      y = memory.take(most_rows * size.hidden),
      zeros = memory.take(std::max({size.hidden, size.states, size.features}));
      head_grad = memory.take(most_rows * size.outputs), y_grad = memory.take(most_rows * size.hidden);
      x_grad = memory.take(most_rows * size.hidden), step_grad = memory.take(most_steps * size.hidden);
      if (g.state_parts) state_grad = memory.take(most_steps * size.states);
      if (g.obs_parts) obs_grad = memory.take(most_rows * size.features);
    });
  }

  // From here on blocks go through this member, and into these sums.
  EMIX_HD void begin(int64_t of_member, F* data) {
    member = of_member;
    sums = Sums<F>(p, data);
    std::fill(data, data + sums.elements, F(0));
    transposed.fill(p, w, member);
  }

  EMIX_HD void run(const Block& block) {
    p.keeps_first_layer() ? in.load(block) : in.run(block, member);
    load();
    const int64_t Hp = size.hidden, rows = in.tiled_rows();
    p.action ? back_from_action() : back_from_all();
    where_positive(y, y_grad, in.rows * Hp);
    product<kBytes, F>({y_grad, Hp, 1}, {transposed.hidden, Hp}, {zeros, 0}, {x_grad, Hp}, rows, p.hidden, Hp);
    where_positive(in.x, x_grad, in.rows * Hp);
    sum_over_agents();
    add_product(in.state, size.states, p.states, step_grad, Hp, in.steps, sums.state);
    add_product(in.obs.data, in.obs.row, p.features, x_grad, Hp, in.rows, sums.obs);
    add_product(in.x, Hp, p.hidden, y_grad, Hp, in.rows, sums.hidden);
    add_rows(y_grad, Hp, sums.b_hidden);
    if (g.state_parts) input_gradient(step_grad, transposed.state, size.states, in.tiled_steps(), state_grad);
    if (g.obs_parts) input_gradient(x_grad, transposed.obs, size.features, in.tiled_rows(), obs_grad);
    store();
  }

 private:
  const Critic& p;
  const Weights<F>& w;
  const Gradients& g;
  const Sizes size;
  Memory<F> memory;
  FirstLayer<kBytes, F> in;
  Transposed<F> transposed;
  Sums<F> sums;
  int64_t member = 0;
  F *y = nullptr, *zeros = nullptr;
  // Gradients of the sums that go into the head, y and x [rows, ...]; of x's, over a step's agents [steps, H]
  F *head_grad = nullptr, *y_grad = nullptr, *x_grad = nullptr, *step_grad = nullptr;
  F *state_grad = nullptr, *obs_grad = nullptr;

  EMIX_HD void load() {
    const int64_t H = p.hidden, at = member * p.rows() + in.first * p.agents;
    const F* saved = static_cast<const F*>(g.saved) + at * p.saved();
    copy(saved, in.rows, H, p.saved(), y, size.hidden);
    if (p.keeps_first_layer()) copy(saved + H, in.rows, H, p.saved(), in.x, size.hidden);
  }

  // From q to y_grad and the sums of the head.
  EMIX_HD void back_from_all() {
    const int64_t Hp = size.hidden, Ap = size.outputs, A = p.actions;
    const F* q_grad = static_cast<const F*>(g.q) + (member * p.rows() + in.first * p.agents) * A;
    for (int64_t r = 0; r < in.rows; ++r) {
      F* row = head_grad + r * Ap;
      F v_grad = 0;
      for (int64_t a = 0; a < A; ++a) v_grad += row[a] = q_grad[r * A + a];
      row[A] = v_grad;
    }
    product<kBytes, F>({head_grad, Ap, 1}, {transposed.head, Hp}, {zeros, 0}, {y_grad, Hp}, in.tiled_rows(),
                       p.outputs(), Hp);
    add_product(y, Hp, p.hidden, head_grad, Ap, in.rows, sums.head);
    add_rows(head_grad, Ap, sums.b_head);
  }

  EMIX_HD void back_from_action() {
    const int64_t Hp = size.hidden, first = in.first * p.agents;
    const F* q_grad = static_cast<const F*>(g.q) + member * p.rows() + first;
    for (int64_t r = 0; r < in.rows; ++r) {
      const int64_t a = p.action[first + r];
      if (a < 0 || a >= p.actions) {
        std::fill(y_grad + r * Hp, y_grad + (r + 1) * Hp, F(0));
        continue;
      }
      sums.b_head[a] += q_grad[r];
      back_through(q_grad[r], w.action.row(member, a), y + r * Hp, y_grad + r * Hp, sums.head + a * Hp);
    }
  }

  EMIX_HD void back_through(F grad, const F* __restrict weight, const F* __restrict of_y, F* __restrict to,
                            F* __restrict sum) const {
    for (int64_t j = 0; j < size.hidden; ++j) to[j] = grad * weight[j], sum[j] += grad * of_y[j];
  }

  static EMIX_HD void where_positive(const F* __restrict x, F* __restrict grad, int64_t count) {
    for (int64_t k = 0; k < count; ++k) grad[k] = x[k] > 0 ? grad[k] : 0;
  }

  EMIX_HD void sum_over_agents() {
    const int64_t Hp = size.hidden;
    for (int64_t s = 0; s < in.steps; ++s) {
      F* total = step_grad + s * Hp;
      for (int64_t j = 0; j < Hp; ++j) total[j] = 0;
      for (int64_t i = 0; i < p.agents; ++i) {
        const F* row = x_grad + (s * p.agents + i) * Hp;
        F* id = sums.id + i * Hp;
        for (int64_t j = 0; j < Hp; ++j) total[j] += row[j], id[j] += row[j];
      }
    }
  }

  // sum [width, columns] += left' grad over the rows.
  EMIX_HD void add_product(const F* left, int64_t left_stride, int64_t width, const F* grad, int64_t columns,
                           int64_t rows, F* sum) const {
    product<kBytes, F>({left, 1, left_stride}, {grad, columns}, {sum, columns}, {sum, columns}, padded(width, kPadRows),
                       rows, columns);
  }

  EMIX_HD void add_rows(const F* rows, int64_t columns, F* sum) const {
    for (int64_t r = 0; r < in.rows; ++r)
      for (int64_t j = 0; j < columns; ++j) sum[j] += rows[r * columns + j];
  }

  EMIX_HD void input_gradient(const F* grad, const F* weight, int64_t columns, int64_t rows, F* result) const {
    product<kBytes, F>({grad, size.hidden, 1}, {weight, columns}, {zeros, 0}, {result, columns}, rows, p.hidden,
                       columns);
  }

  EMIX_HD void store() const {
    const int64_t S = p.states, O = p.features, at = member * p.steps + in.first;
    if (g.state_parts) copy(state_grad, in.steps, S, size.states, static_cast<F*>(g.state_parts) + at * S, S);
    if (g.obs_parts) copy(obs_grad, in.rows, O, size.features, static_cast<F*>(g.obs_parts) + at * p.agents * O, O);
  }
};

}  // namespace emix::critic
