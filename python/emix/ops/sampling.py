r"""Sampling: one or K draws of every agent's action, one launch.

    floor = 0:  w_a = avail_a exp(z_a - max_{b available} z_b)
    floor > 0:  w_a = avail_a ((1 - floor) p_a + floor / A),  p = softmax(z) over all A actions      (COMA, DOP)
    action = the first a with u < sum_{b <= a} w_b / sum_b w_b

u in [0, 1) has 31 bits from Philox4x32-10 at (seed, row, draw), where a row is one agent's place in the flattened
leading axes of ``logits``. So a draw depends on the seed, the row's index and its own number alone: draw k of K is the
same whatever K is, and ``samples=None`` gives draw 0. CPU and GPU draw the same, bit for bit.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops._errors import explained
from emix.ops._floor import number_and_tensor

_sample = torch.ops.emix.sample_actions.default

_NO_NAMES: dict[str, str] = {}
_SEEDS = 2**63 - 1


def sample_actions(
    logits: Tensor,
    avail: Tensor | None = None,
    *,
    samples: int | None = None,
    floor: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw actions from the policy of ``logits``, by inversion of its cumulative distribution.

    logits: [..., A], float16 to float64, computed in float32, 1 to 128 actions; a NaN is taken as -inf. avail: [...,
    A], bool or 0/1. floor: a number in [0, 1], or a 0-dim tensor as for ``policy_terms``. Returns int64 [...], or with
    ``samples=K`` uint8 [K, ...]: K independent draws a row. An action of probability 0 is never drawn; where no action
    has any (all masked: padding) the draw is 0. No gradient.

    The seed is one int64 tensor that torch draws on the device of ``logits``, from ``generator`` or torch's default
    one: no host synchronisation, and every replay of a CUDA graph draws anew. torch.compile has no
    generators in its graphs: there one breaks the graph (an error under ``fullgraph=True``), torch's default one does
    not. Source: algorithm 1 of PERLA (the K draws); Salmon et al. 2011 (Philox).

    >>> logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 0.0]])
    >>> sample_actions(logits, torch.tensor([[1, 0, 0], [0, 0, 1]]))
    tensor([0, 2])
    >>> sample_actions(logits, samples=100).shape
    torch.Size([100, 2])
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    try:
        seed = torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
        number, tensor = number_and_tensor(floor)
        return _sample(logits, avail, seed, number, samples or 0, tensor)
    except (RuntimeError, AttributeError, TypeError) as error:
        _check(logits, samples, generator)
        raise explained(error, _NO_NAMES) from None


def _check(logits: object, samples: object, generator: object) -> None:
    """Raise for what fails before the op looks at it."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"logits must be a tensor, got {'None' if logits is None else type(logits).__name__}")
    if not isinstance(samples, int | None):
        raise ValueError(f"samples must be an integer, got {samples}")
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != logits.device.type:
        raise ValueError(f"generator must be on {logits.device.type} like logits, got {generator.device}")


@torch.library.register_fake("emix::sample_actions")
def _(logits, avail, seed, floor=0.0, samples=0, floor_tensor=None):  # type: ignore[no-untyped-def]
    if samples > 0:
        return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.uint8)
    return logits.new_empty(logits.shape[:-1], dtype=torch.int64)


_autograd = torch.library.Library("emix", "IMPL", "Autograd")
_autograd.impl("sample_actions", torch.library.fallthrough_kernel)
