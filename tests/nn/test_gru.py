"""The GRU module beside torch's."""

import pytest
import torch
from torch import Tensor

from emix.nn.agent import RecurrentAgent
from emix.nn.gru import GRU


def test_is_torchs() -> None:
    """The same weights from the same generator, under the same names, and the same states."""
    torch.manual_seed(0)
    ours = GRU(3, 5)
    torch.manual_seed(0)
    theirs = torch.nn.GRU(3, 5, batch_first=True)
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    x, h0 = torch.randn(2, 4, 3), torch.randn(2, 5)
    torch.testing.assert_close(ours(x, h0), theirs(x, h0[None])[0])
    torch.testing.assert_close(ours(x), theirs(x)[0])


@pytest.mark.parametrize("name", ["gru", "agent"])
def test_compiles_in_one_graph(name: str) -> None:
    torch.manual_seed(0)
    x, last = torch.randn(2, 4, 3, 5), torch.randint(6, (2, 4, 3))
    module = GRU(5, 8) if name == "gru" else RecurrentAgent(5, 6, 3, 8)

    def loss(x: Tensor) -> Tensor:
        return module(x[:, :, 0]).square().sum() if name == "gru" else module(x, last)[0].square().sum()

    torch.compiler.reset()
    weights = tuple(module.parameters())
    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), weights)
    assert all(torch.equal(a, b) for a, b in zip(ours, torch.autograd.grad(loss(x), weights), strict=True))
