"""Every op in a few lines of plain PyTorch: the specification that the tests compare the fused ops with.

Differentiable by autograd, slow.
"""

from emix.ops.reference.critic import ensemble_critic
from emix.ops.reference.diversity import bhattacharyya
from emix.ops.reference.ensemble import ensemble_moments, explore_actions, explore_logits, uncertainty_weight
from emix.ops.reference.gaussian import gaussian_sample, gaussian_terms, tanh_gaussian_sample
from emix.ops.reference.hypernetwork import monotonic_weights
from emix.ops.reference.marginal import marginal_value, sampled_marginal_value
from emix.ops.reference.mixing import expected_linear_mix, linear_mix, monotonic_mix, monotonic_mix_grad
from emix.ops.reference.policy import masked_policy, policy_terms
from emix.ops.reference.recurrent import agent_sequence, gru_sequence
from emix.ops.reference.returns import (
    gae,
    lambda_returns,
    n_step_returns,
    q_lambda_returns,
    retrace_returns,
    trace_returns,
    tree_backup_returns,
)
from emix.ops.reference.rmsprop import rmsprop_step
from emix.ops.reference.sampling import sample_actions
from emix.ops.reference.targets import td_lambda_target, tree_backup_target

__all__ = [
    "agent_sequence",
    "bhattacharyya",
    "ensemble_critic",
    "ensemble_moments",
    "expected_linear_mix",
    "explore_actions",
    "explore_logits",
    "gae",
    "gaussian_sample",
    "gaussian_terms",
    "gru_sequence",
    "lambda_returns",
    "linear_mix",
    "marginal_value",
    "masked_policy",
    "monotonic_mix",
    "monotonic_mix_grad",
    "monotonic_weights",
    "n_step_returns",
    "policy_terms",
    "q_lambda_returns",
    "retrace_returns",
    "rmsprop_step",
    "sample_actions",
    "sampled_marginal_value",
    "tanh_gaussian_sample",
    "td_lambda_target",
    "trace_returns",
    "tree_backup_returns",
    "tree_backup_target",
    "uncertainty_weight",
]
