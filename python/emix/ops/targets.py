r"""The whole target of a critic with a linear mixer, from the agents' values to y: two launches.

    mean_i(a), weight_i(a)      over the members: ``ensemble_moments``, ``uncertainty_weight`` (1 without a scale)
    q_t = sum_i m_i mean_i(a_i) + bias                                    ``linear_mix`` of the actions taken
    v_t = sum_i m_i sum_a pi_i(a) weight_i(a) mean_i(a) + bias            ``expected_linear_mix``: tree backup
    v_t = sum_i m_i weight_i(a_i) mean_i(a_i) + bias                      TD(lambda)
    y   = ``tree_backup_returns`` with pi_t = prod_i pi_i(a_i), or with trace lam

The first launch reads the members once and leaves three numbers an entry; the second is the recursion.

What they share:

Shapes: ``q`` [N, B, T+1, n, A] holds 1 to 64 members' values, or [B, T+1, n, A] those of a single critic; ``pi`` [B,
T+1, n, A] the policies' probabilities, 0 for what is not available (whatever q is there, NaN included); ``actions``
[B, T+1, n] any integer dtype; ``weight`` [B, T+1, n] and ``bias`` [B, T+1] the mixer's, as in ``linear_mix``: weights
>= 0, divided by their sum here; ``reward``, ``terminated``, ``truncated``, ``valid`` [B, T]. The result is [B, T].
Any strides; q and pi are copied where an agent's values are not contiguous. B, T and n may be 0.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).

Ends: as in ``emix.ops.returns``. Entries that no valid step needs are not even read, so padding costs no time. An
action outside 0 .. A-1 makes the targets that depend on it NaN.

Gradient: none, they are targets.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops._errors import explained
from emix.ops.returns import _limit

_joint_values = torch.ops.emix.joint_values.default
_trace_returns = torch.ops.emix.trace_returns.default

_NO_NAMES: dict[str, str] = {}
_RECURSION = {"q": "the [B, T+1] axes of q"}


def tree_backup_target(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    pi: Tensor,
    actions: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gamma: float,
    lam: float,
    horizon: int | None = None,
    uncertainty_scale: float | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Compute the off-policy target of DOP and Ensemble-MIX from the target critic's values.

    ``uncertainty_scale`` is Ensemble-MIX's C_1 (0.01); without it all next values count alike. DOP's ``horizon`` is
    5. Definitions, shapes, ends and errors: see ``emix.ops.targets``. Source: DOP (Wang et al. 2021), eq. 7;
    Ensemble-MIX, eq. 2 and 10.

    >>> q = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])
    >>> half = torch.full((1, 2, 1, 2), 0.5)
    >>> actions, weight = torch.zeros(1, 2, 1, dtype=torch.int64), torch.ones(1, 2, 1)
    >>> tree_backup_target(torch.ones(1, 1), torch.zeros(1, 1), q, half, actions, weight, gamma=1.0, lam=0.9)
    tensor([[4.]])
    """
    try:
        joint_q, v, trace = _joint_values(q, pi, actions, weight, bias, valid, uncertainty_scale)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None
    limit = _limit("horizon", horizon)
    try:
        return _trace_returns(reward, terminated, joint_q, v, gamma, lam, trace, truncated, valid, limit)
    except RuntimeError as error:
        raise explained(error, _RECURSION) from None


def td_lambda_target(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    actions: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gamma: float,
    lam: float,
    uncertainty_scale: float | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Compute the on-policy target of DOP and Ensemble-MIX: no pi, values of the actions taken only.

    Arguments as in ``tree_backup_target``. Definitions, shapes, ends and errors: see ``emix.ops.targets``. Source:
    DOP, section 4.1; Ensemble-MIX, eq. 3 and 10, whose weight counts in this target, too.

    >>> q = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])
    >>> actions, weight = torch.zeros(1, 2, 1, dtype=torch.int64), torch.ones(1, 2, 1)
    >>> td_lambda_target(torch.ones(1, 1), torch.zeros(1, 1), q, actions, weight, gamma=1.0, lam=0.8)
    tensor([[3.]])
    """
    try:
        joint_q, v, _ = _joint_values(q, None, actions, weight, bias, valid, uncertainty_scale)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None
    try:
        return _trace_returns(reward, terminated, joint_q, v, gamma, lam, None, truncated, valid)
    except RuntimeError as error:
        raise explained(error, _RECURSION) from None


@torch.library.register_fake("emix::joint_values")
def _(q, pi, actions, weight, bias=None, valid=None, uncertainty_scale=None):  # type: ignore[no-untyped-def]
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in (q, pi, weight, bias))
    dtype = torch.float64 if wide else torch.float32
    shape = actions.shape[:2]
    return (
        q.new_empty(shape, dtype=dtype),
        q.new_empty(shape, dtype=dtype),
        q.new_empty((0,) if pi is None else shape, dtype=dtype),
    )


# Without an entry for autograd torch would warn of a missing derivative; there is none to have.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
_autograd.impl("joint_values", torch.library.fallthrough_kernel)
