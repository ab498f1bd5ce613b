"""The minibatch loss of a multi-agent PPO: advantages, log-probabilities and entropy with unavailable actions, from
fused ops.

``loss_by_torch`` is what most code bases have (mask the logits, build a Categorical); ``loss_by_emix`` takes two
launches forward. Both give the same loss and the same gradient.
"""

import torch
from torch import Tensor

from emix import ops

B, T, N_AGENTS, N_ACTIONS = 10, 60, 3, 9
CLIP, ENTROPY_COEF = 0.2, 0.01


def loss_by_torch(logits: Tensor, avail: Tensor, action: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    """PPO's clipped loss by torch.distributions."""
    policy = torch.distributions.Categorical(logits=logits.masked_fill(~avail, -1e10))
    return clipped_loss(policy.log_prob(action), policy.entropy(), old_log_prob, advantage)


def loss_by_emix(logits: Tensor, avail: Tensor, action: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    """The same with log-probability and entropy from one pass over the logits."""
    terms = ops.policy_terms(logits, action, avail)
    return clipped_loss(terms.log_prob, terms.entropy, old_log_prob, advantage)


def clipped_loss(log_prob: Tensor, entropy: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    """``-mean(min(r A, clip(r) A) + c H)`` with ``r = exp(log_prob - old_log_prob)``."""
    ratio = (log_prob - old_log_prob).exp()  # [B, T, n]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    return -(surrogate + ENTROPY_COEF * entropy).mean()


def main() -> None:
    """Compare loss and gradient on one minibatch."""
    torch.manual_seed(0)
    reward = torch.randn(B, T)
    terminated = torch.zeros(B, T, dtype=torch.bool)
    terminated[:, -1] = True
    value = torch.randn(B, T + 1, N_AGENTS)  # an agent's own critic; the team's reward is broadcast
    advantage = ops.gae(reward, terminated, value, gamma=0.99, lam=0.95)  # [B, T, n]

    avail = torch.rand(B, T, N_AGENTS, N_ACTIONS) < 0.7
    avail[..., 0] = True
    logits = torch.randn(B, T, N_AGENTS, N_ACTIONS, requires_grad=True)
    action = ops.sample_actions(logits, avail)  # [B, T, n]
    old_log_prob = ops.policy_terms(logits, action, avail).log_prob.detach() + 0.1 * torch.randn(B, T, N_AGENTS)

    minibatch = (avail, action, old_log_prob, advantage)
    ours, theirs = loss_by_emix(logits, *minibatch), loss_by_torch(logits, *minibatch)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    print(
        f"loss {ours.item():.6f}, the same by both; greatest difference of the gradients "
        f"{(gradients[0] - gradients[1]).abs().max().item():.1e}"
    )


if __name__ == "__main__":
    main()
