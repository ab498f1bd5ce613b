"""An ensemble of discrete SAC critics: a pessimistic target and a diversity regulariser from fused ops.

N critics are one batched product; the target is the members' mean less one standard deviation, weighted by how
heavy-tailed they are; the regulariser pushes the members' action distributions apart. Train it for a few steps on
random transitions and watch the members' distance.
"""

import torch
from torch import Tensor, nn

from emix import ops

MEMBERS, BATCH, OBS, ACTIONS, HIDDEN = 10, 256, 16, 6, 64
GAMMA, ALPHA, DIVERSITY = 0.99, 0.05, 1e-3


class Ensemble(nn.Module):
    """N two-layer networks as batched products: obs [R, O] -> q [N, R, A]."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(MEMBERS, OBS, HIDDEN) / OBS**0.5)
        self.w2 = nn.Parameter(torch.randn(MEMBERS, HIDDEN, ACTIONS) / HIDDEN**0.5)

    def forward(self, obs: Tensor) -> Tensor:
        """[R, O] -> [N, R, A]."""
        return torch.relu(obs @ self.w1) @ self.w2


def target(critic: Ensemble, reward: Tensor, terminated: Tensor, next_obs: Tensor, next_logits: Tensor) -> Tensor:
    """y = r + gamma (1 - terminated) E_pi[w (mean - std) - alpha log pi]: [R], no gradient."""
    with torch.no_grad():
        q = critic(next_obs)  # [N, R, A]
        moments = ops.ensemble_moments(q)
        pessimistic = ops.uncertainty_weight(q) * (moments.mean - moments.variance.sqrt())  # [R, A]
        pi = ops.masked_policy(next_logits)  # [R, A]
        value = (pi * (pessimistic - ALPHA * pi.clamp(min=1e-8).log())).sum(-1)  # [R]
        return reward + GAMMA * torch.where(terminated, 0.0, value)


def main() -> None:
    """Train on one batch of random transitions."""
    torch.manual_seed(0)
    critic, behind = Ensemble(), Ensemble()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    obs, next_obs = torch.randn(2, BATCH, OBS)
    action = torch.randint(ACTIONS, (BATCH,))
    reward, terminated = torch.randn(BATCH), torch.rand(BATCH) < 0.1
    y = target(behind, reward, terminated, next_obs, torch.randn(BATCH, ACTIONS))  # [R]

    for step in range(101):
        q = critic(obs)  # [N, R, A]
        taken = q.gather(-1, action.expand(MEMBERS, BATCH).unsqueeze(-1)).squeeze(-1)  # [N, R]
        distance = ops.bhattacharyya(q).mean()  # of the members to their mean
        loss = (taken - y).square().mean() - DIVERSITY * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3}: loss {loss.item():.4f}, distance of the members {distance.item():.4f}")


if __name__ == "__main__":
    main()
