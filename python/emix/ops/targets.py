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
"""

from __future__ import annotations

from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import check_members, check_shape, check_types, empty_if, register_fake, require, wide
from emix.ops._recursion import expect_tensor, limit, recursion

_joint_values = compiled("joint_values")


@public()
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

    ``y = tree_backup_returns`` of ``q_t = sum_i m_i mean_i(a_i) + bias``, ``v_t = sum_i m_i sum_a pi_i(a) weight_i(a)
    mean_i(a) + bias`` and ``pi_t = prod_i pi_i(a_i)``: ``mean_i`` over the members, ``weight_i`` their
    ``uncertainty_weight``, ``m`` as in ``linear_mix``. No gradient. Source: DOP (Wang et al. 2021), eq. 7;
    Ensemble-MIX, eq. 2 and 10.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks and the actions.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: the target critic's values ``[N, B, T+1, n, A]`` of 1 to 64 members, or ``[B, T+1, n, A]`` of one critic;
            entry t+1 belongs to the step after t. Entries that no valid step needs are not read.
        pi: the policies' probabilities ``[B, T+1, n, A]``, 0 for what is not available, whatever q is there.
        actions: those taken ``[B, T+1, n]``, any integer dtype. One outside 0 .. A-1 makes the targets that depend on
            it NaN.
        weight: the mixer's weights ``[B, T+1, n]``, >= 0 (not checked), divided by their sum here.
        bias: the mixer's bias ``[B, T+1]``; None: 0.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        horizon: the number of terms of the sum, at least 1 (DOP: 5); None: up to the episode's end.
        uncertainty_scale: Ensemble-MIX's C_1 (0.01) of ``uncertainty_weight``; None: all next values count alike.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.

    Returns:
        y ``[B, T]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])
    >>> half = torch.full((1, 2, 1, 2), 0.5)
    >>> actions, weight = torch.zeros(1, 2, 1, dtype=torch.int64), torch.ones(1, 2, 1)
    >>> tree_backup_target(torch.ones(1, 1), torch.zeros(1, 1), q, half, actions, weight, gamma=1.0, lam=0.9)
    tensor([[4.]])
    """
    expect_tensor("pi", pi)
    joint_q, v, trace = _joint_values(q, pi, actions, weight, bias, valid, uncertainty_scale)
    _check_steps(reward, joint_q)
    return recursion(reward, terminated, joint_q, v, gamma, lam, trace, truncated, valid, limit("horizon", horizon))


@public()
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

    ``y = q_lambda_returns`` of ``q_t = sum_i m_i mean_i(a_i) + bias`` and ``v_t = sum_i m_i weight_i(a_i) mean_i(a_i) +
    bias``: ``mean_i`` over the members, ``weight_i`` their ``uncertainty_weight``, ``m`` as in ``linear_mix``. No
    gradient. Source: DOP, section 4.1; Ensemble-MIX, eq. 3 and 10, whose weight counts in this target, too.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks and the actions.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: the target critic's values ``[N, B, T+1, n, A]`` of 1 to 64 members, or ``[B, T+1, n, A]`` of one critic;
            entry t+1 belongs to the step after t. Entries that no valid step needs are not read.
        actions: those taken ``[B, T+1, n]``, any integer dtype. One outside 0 .. A-1 makes the targets that depend on
            it NaN.
        weight: the mixer's weights ``[B, T+1, n]``, >= 0 (not checked), divided by their sum here.
        bias: the mixer's bias ``[B, T+1]``; None: 0.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        uncertainty_scale: Ensemble-MIX's C_1 (0.01) of ``uncertainty_weight``; None: all next values count alike.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.

    Returns:
        y ``[B, T]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])
    >>> actions, weight = torch.zeros(1, 2, 1, dtype=torch.int64), torch.ones(1, 2, 1)
    >>> td_lambda_target(torch.ones(1, 1), torch.zeros(1, 1), q, actions, weight, gamma=1.0, lam=0.8)
    tensor([[3.]])
    """
    joint_q, v, _ = _joint_values(q, None, actions, weight, bias, valid, uncertainty_scale)
    _check_steps(reward, joint_q)
    return recursion(reward, terminated, joint_q, v, gamma, lam, None, truncated, valid)


def _check_steps(reward: Tensor, joint_q: Tensor) -> None:
    """Say in the caller's words what the recursion would say of ``joint_q``."""
    episodes, entries = joint_q.shape
    if reward.shape[:2] != (episodes, entries - 1):
        expected = [episodes, entries - 1]
        raise ValueError(
            f"reward must have shape {expected} because q has {episodes} episodes of {entries} entries, one more than "
            f"there are steps, got {list(reward.shape)}"
        )


@register_fake("joint_values")
def _(q, pi, actions, weight, bias=None, valid=None, uncertainty_scale=None):  # type: ignore[no-untyped-def]
    floats = {"q": q, "pi": pi, "weight": weight, "bias": bias}
    check_types(floats, masks={"valid": valid}, integers={"actions": actions})
    require(q.dim() in (4, 5), "`q` must have shape [B, T + 1, n, A] or [N, B, T + 1, n, A], got {}", list(q.shape))
    if q.dim() == 5:
        check_members("q", q)
    elif uncertainty_scale is not None:
        require(False, "`uncertainty_scale` must be None where `q` has no members, got {}", uncertainty_scale)
    episodes, entries, _, kinds = values = q.shape[-4:]
    require(entries >= 1, "`q` must have the entry after the last step, got {}", list(q.shape))
    require(kinds >= 1, "`q` must have an action at least, got {}", list(q.shape))
    check_shape("pi", pi, values)
    check_shape("actions", actions, values[:3])
    check_shape("weight", weight, values[:3])
    check_shape("bias", bias, values[:2])
    check_shape("valid", valid, (episodes, entries - 1))
    dtype, shape = wide(q, pi, weight, bias), values[:2]
    return tuple(empty_if(wanted, q, shape, dtype) for wanted in (True, True, pi is not None))
