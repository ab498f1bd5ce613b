"""What learners share: picking is torch's gather."""

import pytest
import torch

from emix.learners import shared


@pytest.mark.parametrize("in_order", [True, False])
def test_pick_is_gather(device, monkeypatch, in_order):
    """On a GPU it has a gradient of its own, which the CPU can compute, too."""
    monkeypatch.setattr(shared, "_scatters_in_order", lambda device: in_order)
    torch.manual_seed(0)
    q = torch.randn(4, 5, 3, 7, device=device, requires_grad=True)
    actions = torch.randint(7, (5, 3), device=device).expand(4, 5, 3)
    expected = q.gather(-1, actions[..., None])[..., 0]
    found, upstream = shared.pick(q, actions), torch.randn_like(expected)
    assert torch.equal(found, expected)
    grads = [torch.autograd.grad(each, q, upstream)[0] for each in (found, expected)]
    assert torch.equal(*grads)
