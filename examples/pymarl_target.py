"""The target of a PyMARL-style learner: TD(lambda) from its episode batch, in one launch.

PyMARL keeps reward and terminated as [B, T, 1], and ``filled`` counts the observation after the last step, too. What
is below stands in for the body of a learner's ``train``: the loop over time that such code bases have, and the call
that replaces it.
"""

import time

import torch
from torch import Tensor

from emix import ops

B, T, GAMMA, LAM = 32, 120, 0.99, 0.8


def target_by_a_loop(reward: Tensor, terminated: Tensor, mask: Tensor, target_q_tot: Tensor) -> Tensor:
    """What the loop over time computes: [B, T, 1]."""
    returns = torch.zeros_like(target_q_tot)  # [B, T+1, 1]
    returns[:, -1] = target_q_tot[:, -1] * (1 - terminated.sum(dim=1))
    for t in reversed(range(reward.shape[1])):
        bootstrap = (1 - LAM) * GAMMA * target_q_tot[:, t + 1] * (1 - terminated[:, t])
        returns[:, t] = LAM * GAMMA * returns[:, t + 1] + mask[:, t] * (reward[:, t] + bootstrap)
    return returns[:, :-1]


def target_by_emix(reward: Tensor, terminated: Tensor, mask: Tensor, target_q_tot: Tensor) -> Tensor:
    """The same in one launch: the trailing axis of size 1 and the float masks are taken as they are."""
    return ops.lambda_returns(reward, terminated, target_q_tot, gamma=GAMMA, lam=LAM, valid=mask)


def main() -> None:
    """Compare both on one batch."""
    torch.manual_seed(0)
    length = torch.randint(T // 2, T + 1, (B,))
    step = torch.arange(T)
    mask = (step < length[:, None]).float().unsqueeze(-1)  # [B, T, 1]
    terminated = (step == length[:, None] - 1).float().unsqueeze(-1)  # [B, T, 1]
    reward = torch.randn(B, T, 1) * mask
    target_q_tot = torch.randn(B, T + 1, 1)  # the target mixer's value of the actions taken

    batch = (reward, terminated, mask, target_q_tot)
    torch.testing.assert_close(target_by_emix(*batch), target_by_a_loop(*batch))
    for function in (target_by_a_loop, target_by_emix):
        begin = time.perf_counter()
        for _ in range(100):
            function(*batch)
        print(f"{function.__name__:18} {(time.perf_counter() - begin) * 1e4:8.1f} us")


if __name__ == "__main__":
    main()
