"""Fused ops for multi-agent reinforcement learning, one launch each, on CPU and CUDA.

Axes: B episodes, T steps, n agents, A actions, N ensemble members; ``...`` any shape. ``ops.reference`` has each op in
plain PyTorch.
"""

from emix import _library

_library.load()

from emix.ops import reference  # noqa: E402
from emix.ops.returns import (  # noqa: E402
    gae,
    lambda_returns,
    n_step_returns,
    q_lambda_returns,
    retrace_returns,
    trace_returns,
    tree_backup_returns,
)

__all__ = [
    "gae",
    "lambda_returns",
    "n_step_returns",
    "q_lambda_returns",
    "reference",
    "retrace_returns",
    "trace_returns",
    "tree_backup_returns",
]
