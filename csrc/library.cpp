// Every op's schema: the table of contents of the compiled side. <word>/cpu.cpp and <word>/cuda.cu register the
// kernels.
#include "torch.h"

STABLE_TORCH_LIBRARY(emix, m) {
  // returns: X_t = delta_t + gamma lam c_{t+1} X_{t+1}; gives q + X, or X itself (advantage). horizon 0: no limit.
  // clip: c = min(1, trace).
  m.def(
      "trace_returns(Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float lam, Tensor? trace=None, "
      "Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool advantage=False) -> Tensor");
  // Gradients with respect to reward [B, T, ...] and q, v, trace [B, T+1, ...], all in the broadcast shape.
  m.def(
      "trace_returns_backward(Tensor grad, Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float "
      "lam, "
      "Tensor? trace=None, Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool "
      "advantage=False) -> (Tensor, Tensor, Tensor, Tensor)");
  // What these recursions read of an ensemble's values, through the linear mixer: q [B, T+1, n, A] or [N, B, T+1, n, A]
  // -> Q_tot of the actions taken, its next value (expected under pi, else of the actions taken) and the probability of
  // these actions, each [B, T+1]. Entries that no valid step needs are 0.
  m.def(
      "joint_values(Tensor q, Tensor? pi, Tensor actions, Tensor weight, Tensor? bias=None, Tensor? valid=None, float? "
      "uncertainty_scale=None) -> (Tensor, Tensor, Tensor)");

  // ensemble: q [N, ...] -> mean, variance, kurtosis [...]; of the gradients at these, any may be absent.
  m.def("ensemble_moments(Tensor q) -> (Tensor, Tensor, Tensor)");
  m.def(
      "ensemble_moments_backward(Tensor q, Tensor? mean_grad, Tensor? variance_grad, Tensor? kurtosis_grad) -> Tensor");
  m.def("uncertainty_weight(Tensor q, float scale) -> Tensor");
  // logits [..., A], q [N, ..., A], avail [..., A]
  m.def("explore_logits(Tensor logits, Tensor q, Tensor? avail, float bonus) -> Tensor");
  // The action drawn [...], its probability, whether the gate was open. seed [1]. Here and below floor_tensor, where
  // there is one, stands for floor: 0-dim, read when the op runs.
  m.def(
      "explore_actions(Tensor logits, Tensor q, Tensor? avail, Tensor seed, float bonus, float floor, Tensor? "
      "floor_tensor=None) -> (Tensor, Tensor, Tensor)");

  // diversity: q [N, ..., A], avail [..., A] -> [...]
  m.def("bhattacharyya(Tensor q, Tensor? avail) -> Tensor");
  m.def("bhattacharyya_backward(Tensor grad, Tensor q, Tensor? avail, bool detach_mean) -> Tensor");

  // mixing: m_i = weight_i / (sum weight + 1e-10); sum_i m_i q_i + bias, sum_i m_i sum_a pi uncertainty q + bias, and
  // QMIX's ELU(q |w1| + b1) |w2| + v with its derivative by q. Gradients that are not wanted have no elements.
  m.def("linear_mix(Tensor q, Tensor weight, Tensor? bias=None) -> Tensor");
  m.def("linear_mix_backward(Tensor grad, Tensor q, Tensor weight) -> (Tensor, Tensor)");
  m.def(
      "expected_linear_mix(Tensor q, Tensor pi, Tensor weight, Tensor? bias=None, Tensor? uncertainty=None) -> Tensor");
  m.def(
      "expected_linear_mix_backward(Tensor grad, Tensor q, Tensor pi, Tensor weight, Tensor? uncertainty, bool "
      "q_wanted, bool pi_wanted, bool weight_wanted, bool uncertainty_wanted) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("monotonic_mix(Tensor q, Tensor w1, Tensor b1, Tensor w2, Tensor v) -> Tensor");
  m.def(
      "monotonic_mix_backward(Tensor grad, Tensor q, Tensor w1, Tensor b1, Tensor w2, bool weights_wanted) -> (Tensor, "
      "Tensor, Tensor, Tensor)");
  m.def("monotonic_mix_grad(Tensor q, Tensor w1, Tensor b1, Tensor w2) -> Tensor");

  // sampling: draws from the softmax of logits [..., A], Philox keyed by seed [1]. samples 0: one, as int64 [...], else
  // uint8 [samples, ...].
  m.def(
      "sample_actions(Tensor logits, Tensor? avail, Tensor seed, float floor=0., int samples=0, Tensor? "
      "floor_tensor=None) -> Tensor");

  // policy: logits [..., A] to probabilities, and log_prob, entropy, expected_value [...] of action [...]. What is not
  // wanted has no elements.
  m.def("masked_policy(Tensor logits, Tensor? avail=None, float floor=0., Tensor? floor_tensor=None) -> Tensor");
  m.def(
      "masked_policy_backward(Tensor grad, Tensor logits, Tensor? avail, float floor, Tensor? floor_tensor=None) -> "
      "Tensor");
  m.def(
      "policy_terms(Tensor logits, Tensor action, Tensor? avail=None, Tensor? value=None, float floor=0., Tensor? "
      "floor_tensor=None) -> (Tensor, Tensor, Tensor)");
  m.def(
      "policy_terms_backward(Tensor? log_prob_grad, Tensor? entropy_grad, Tensor? value_grad, Tensor logits, Tensor "
      "action, Tensor? avail, Tensor? value, float floor, bool value_wanted, Tensor? floor_tensor=None) -> (Tensor, "
      "Tensor)");

  // recurrent: a GRU over x [R, T, I] -> [R, T, H]; and the agent, linear + ReLU, GRU, linear, over obs [B, T, n, O] ->
  // q [B, T, n, A] and the last state [B, n, H]. Each also gives what its backward pass reads (save), else no elements.
  // precision of matrix products on CUDA: 0 float32, 1 tf32, 2 bf16.
  m.def(
      "gru_sequence(Tensor x, Tensor? h0, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, bool save=False, int "
      "precision=0) -> (Tensor, Tensor)");
  m.def(
      "gru_sequence_backward(Tensor grad, Tensor x, Tensor? h0, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, "
      "Tensor out, Tensor saved, bool x_wanted, int precision=0) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "agent_sequence(Tensor obs, Tensor? last_action, Tensor? h0, Tensor w_in, Tensor b_in, Tensor w_ih, Tensor w_hh, "
      "Tensor b_ih, Tensor b_hh, Tensor w_out, Tensor b_out, bool save=False, int precision=0) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "agent_sequence_backward(Tensor? q_grad, Tensor? hidden_grad, Tensor obs, Tensor? last_action, Tensor? h0, "
      "Tensor w_in, Tensor b_in, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, Tensor w_out, Tensor b_out, "
      "Tensor saved, bool obs_wanted, int precision=0) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor)");

  // critic: N members over state [..., S] and obs [..., n, O] -> q [N, ..., n, A], and what the backward pass reads
  // (save). On the CPU alone.
  m.def(
      "ensemble_critic(Tensor state, Tensor obs, Tensor w_in, Tensor b_in, Tensor w_hidden, Tensor b_hidden, Tensor "
      "w_head, Tensor b_head, bool save=False) -> (Tensor, Tensor)");
  m.def(
      "ensemble_critic_backward(Tensor grad, Tensor state, Tensor obs, Tensor w_in, Tensor b_in, Tensor w_hidden, "
      "Tensor b_hidden, Tensor w_head, Tensor b_head, Tensor saved, bool state_wanted, bool obs_wanted) -> (Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // rmsprop: a step of torch's optimiser after the gradients were scaled down to max_norm; gives the norm that they
  // had. On the CPU alone.
  m.def(
      "rmsprop_step(Tensor(a!)[] parameters, Tensor(b!)[] grads, Tensor(c!)[] square_avgs, float lr, float alpha, "
      "float eps, float max_norm) -> Tensor");

  // battle: the state of B battles, which is changed in place, and the map (battle/fields.h) -> obs, state, avail,
  // reward, terminated, truncated, battle_won, dead_allies, dead_enemies. layout: allies, enemies, type bits, whether
  // allies and enemies have shields, features.
  m.def(
      "battle_step(Tensor(a!) units, Tensor(b!) minds, Tensor(c!) clock, Tensor actions, Tensor stats, Tensor traits, "
      "Tensor rules, Tensor terrain, Tensor waypoints, int[] layout) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "battle_reset(Tensor(a!) units, Tensor(b!) minds, Tensor(c!) clock, Tensor where, Tensor stats, Tensor traits, "
      "Tensor rules, Tensor terrain, Tensor waypoints, int[] layout, int seed, int first, bool closed) -> (Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
