"""Fused ops for multi-agent reinforcement learning, on CPU and CUDA.

Axes: B episodes, T steps, n agents, A actions, N ensemble members; ``...`` any shape. ``ops.reference`` has each op in
plain PyTorch.
"""

from emix import _library

_library.load()

from emix.ops import reference  # noqa: E402
from emix.ops.critic import ensemble_critic  # noqa: E402
from emix.ops.diversity import bhattacharyya  # noqa: E402
from emix.ops.ensemble import (  # noqa: E402
    ExploreActions,
    Moments,
    ensemble_moments,
    explore_actions,
    explore_logits,
    uncertainty_weight,
)
from emix.ops.gaussian import (  # noqa: E402
    GaussianSample,
    GaussianTerms,
    gaussian_sample,
    gaussian_terms,
    tanh_gaussian_sample,
)
from emix.ops.hypernetwork import MonotonicWeights, monotonic_weights  # noqa: E402
from emix.ops.marginal import SampledValue, marginal_value, sampled_marginal_value  # noqa: E402
from emix.ops.mixing import expected_linear_mix, linear_mix, monotonic_mix, monotonic_mix_grad  # noqa: E402
from emix.ops.policy import PolicyTerms, masked_policy, policy_terms  # noqa: E402
from emix.ops.recurrent import agent_sequence, gru_sequence  # noqa: E402
from emix.ops.returns import (  # noqa: E402
    gae,
    lambda_returns,
    n_step_returns,
    q_lambda_returns,
    retrace_returns,
    trace_returns,
    tree_backup_returns,
)
from emix.ops.rmsprop import rmsprop_step  # noqa: E402
from emix.ops.sampling import sample_actions  # noqa: E402
from emix.ops.targets import td_lambda_target, tree_backup_target  # noqa: E402

__all__ = [
    "ExploreActions",
    "GaussianSample",
    "GaussianTerms",
    "Moments",
    "MonotonicWeights",
    "PolicyTerms",
    "SampledValue",
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
    "reference",
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
