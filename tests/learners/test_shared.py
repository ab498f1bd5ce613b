"""What learners share: a step down a loss is torch's clipping and torch's optimiser."""

import copy

import pytest
import torch
from torch import nn

from emix.learners import shared

OPTIMIZERS = {
    "rmsprop": lambda net: torch.optim.RMSprop(net.parameters(), lr=1e-2, alpha=0.99, eps=1e-5),
    "adam": lambda net: torch.optim.Adam(net.parameters(), lr=1e-2),
}


@pytest.mark.parametrize(("name", "clip"), [("rmsprop", 200.0), ("adam", 430.0)])
def test_descend_is_torchs_clipping_and_step(device, name, clip):
    torch.manual_seed(0)
    ours = nn.ModuleDict({"used": nn.Linear(5, 30), "unused": nn.Linear(2, 2)}).to(device)
    theirs = copy.deepcopy(ours)
    our_optimizer, their_optimizer = OPTIMIZERS[name](ours), OPTIMIZERS[name](theirs)
    norms = []
    for step in range(10):
        x = torch.randn(64, 5, device=device)
        if step == 5:  # torch's optimiser goes on from the state that ours leaves, and ours from torch's
            a, b = copy.deepcopy(our_optimizer.state_dict()), copy.deepcopy(their_optimizer.state_dict())
            our_optimizer.load_state_dict(b)
            their_optimizer.load_state_dict(a)
        norms.append(shared.descend(our_optimizer, ours, ours["used"](x).square().sum(), clip))
        their_optimizer.zero_grad()
        theirs["used"](x).square().sum().backward()
        torch.testing.assert_close(nn.utils.clip_grad_norm_(theirs.parameters(), clip), norms[-1])
        their_optimizer.step()
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
        torch.testing.assert_close(*([p.grad for p in net["used"].parameters()] for net in (ours, theirs)))
    assert min(norms) < clip < max(norms)
