"""A GRU whose sequences ``ops.gru_sequence`` runs."""

import math

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision
from emix.errors import UsageError
from emix.ops._fake import MAX_HIDDEN


class GRU(nn.Module):
    """``torch.nn.GRU`` of one layer, batch first: its weights, their names in a state dict and how they start.

    Unlike torch's, ``torch.compile(fullgraph=True)`` takes it.

    Args:
        input_size: I.
        hidden_size: H, 1 to 256.
        precision: of matrix products on CUDA: see ``emix.ops.recurrent``.

    Raises:
        UsageError: ``ops.gru_sequence`` has no such H.
    """

    def __init__(self, input_size: int, hidden_size: int, *, precision: Precision = "float32") -> None:
        if not 1 <= hidden_size <= MAX_HIDDEN:
            raise UsageError(f"a GRU expects 1 to {MAX_HIDDEN} units, which hidden_dim says, got {hidden_size}")
        super().__init__()
        self.precision = precision
        rows = 3 * hidden_size  # r, z and n
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows))
        self.bias_hh_l0 = nn.Parameter(torch.empty(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``torch.nn.GRU`` does."""
        bound = 1 / math.sqrt(self.weight_hh_l0.shape[1])
        for weight in self.weights:
            nn.init.uniform_(weight, -bound, bound)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w_ih, w_hh, b_ih and b_hh."""
        return self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0

    def forward(self, x: Tensor, h0: Tensor | None = None) -> Tensor:
        """Run R sequences x ``[R, T, I]`` from the states h0 ``[R, H]`` (None: zeros) -> the states ``[R, T, H]``."""
        return ops.gru_sequence(x, h0, *self.weights, precision=self.precision)
