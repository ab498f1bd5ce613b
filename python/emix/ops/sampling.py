r"""Sampling: one or K draws of every agent's action, one launch.

    floor = 0:  w_a = avail_a exp(z_a - max_{b available} z_b)
    floor > 0:  w_a = avail_a ((1 - floor) p_a + floor / A),  p = softmax(z) over all A actions      (COMA, DOP)
    action = the first a with u < sum_{b <= a} w_b / sum_b w_b

u in [0, 1) has 31 bits from Philox4x32-10 at (seed, row, draw), where a row is one agent's place in the flattened
leading axes of ``logits``. So a draw depends on the seed, the row's index and its own number alone: draw k of K is the
same whatever K is, and ``samples=None`` gives draw 0. CPU and GPU draw the same, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_actions, check_floor, check_shape, check_types, register_fake, require
from emix.ops._floor import number_and_tensor
from emix.ops._seed import new_seed

_sample = compiled("sample_actions")


@public()
def sample_actions(
    logits: Tensor,
    avail: Tensor | None = None,
    *,
    samples: int | None = None,
    floor: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw actions from the policy of ``logits``, by inversion of its cumulative distribution.

    The action is the first a with ``u < sum_{b <= a} pi_b``, u uniform in [0, 1) with 31 bits from Philox4x32-10 at
    (seed, row, draw); pi is ``masked_policy``'s, in float32. An action of probability 0 is never drawn. No gradient.

    The seed is one int64 tensor that torch draws on the device of ``logits``: no host synchronisation, and every replay
    of a CUDA graph draws anew. torch.compile has no generators in its graphs: there one breaks the graph (an error
    under ``fullgraph=True``), torch's default one does not. Source: algorithm 1 of PERLA (the K draws); Salmon et al.
    2011 (Philox).

    Args:
        logits: ``[..., A]``, 1 to 128 actions; float16, bfloat16, float32 or float64. A NaN is taken as -inf.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions. Where there is none, or no action
            has any probability (padding), the draw is 0.
        samples: K, the independent draws of a row; None: one. Draw k is the same whatever K is.
        floor: a number in [0, 1], or a 0-dim floating tensor on the device of ``logits``, which is read when the op
            runs (so that a CUDA graph's replay sees what it is by then) and not checked.
        generator: what the seed is drawn from, on the device of ``logits``; None: torch's default one.

    Returns:
        int64 ``[...]``; with ``samples=K`` uint8 ``[K, ...]``.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 0.0]])
    >>> sample_actions(logits, torch.tensor([[1, 0, 0], [0, 0, 1]]))
    tensor([0, 2])
    >>> sample_actions(logits, samples=100).shape
    torch.Size([100, 2])
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    seed = new_seed(logits, generator)
    number, tensor = number_and_tensor(floor)
    return _sample(logits, avail, seed, number, samples or 0, tensor)


@register_fake("sample_actions")
def _(logits, avail, seed, floor=0.0, samples=0, floor_tensor=None):  # type: ignore[no-untyped-def]
    check_types({"logits": logits}, masks={"avail": avail}, integers={"seed": seed})
    check_actions("logits", logits)
    require(logits.dim() < MAX_AXES, "`logits` may have {} axes at most, got {}", MAX_AXES - 1, logits.dim())
    check_shape("avail", avail, logits.shape)
    check_floor(floor, floor_tensor, logits)
    if samples > 0:
        return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.uint8)
    return logits.new_empty(logits.shape[:-1], dtype=torch.int64)
