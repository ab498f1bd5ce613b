"""Playing: one whole episode in every environment."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from emix.envs.core import Env, Step
from emix.learners.episodes import Episodes
from emix.training.stopwatch import Stopwatch


class Policy(Protocol):
    """The half of a learner that acts."""

    def initial_memory(self, num_envs: int) -> Any:
        """What is carried from step to step, at the start of E episodes."""

    def act(self, step: Step, memory: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Actions [E, n] int64 and the next memory; without ``explore`` training's random numbers are left alone.

        A memory may have a field ``probability`` [E, n]: what the policy gave the actions, for off-policy corrections.
        """


class Rollout(NamedTuple):
    """One episode of each of E environments, and what is reported about them (on the CPU)."""

    episodes: Episodes
    lengths: Tensor  # [E] int64, environment steps
    returns: Tensor  # [E] float64, undiscounted
    info: dict[str, Tensor]  # [E] float64 each, at the episode's last step: battle_won and the like


@torch.no_grad()
def collect(env: Env, policy: Policy, *, explore: bool, stopwatch: Stopwatch | None = None) -> Rollout:
    """Reset every environment and play until all have finished, as PyMARL's parallel runner.

    The action is also picked at the last observation, which a truncated episode bootstraps from. The host asks whether
    all have finished, and so waits for the device, every eighth step on a GPU, and once at the end: steps beyond the
    end of all episodes cost less than the waiting.

    Args:
        env: E environments.
        policy: a learner.
        explore: take the behaviour policy, else the greedy one.
        stopwatch: gets the phases ``env`` and ``inference``.

    Raises:
        RuntimeError: an environment did not finish within its ``spec.episode_limit``.
    """
    watch = stopwatch or Stopwatch()
    limit, ask_every = env.spec.episode_limit, 1 if env.device.type == "cpu" else 8
    memory = policy.initial_memory(env.num_envs)
    with watch("env"):
        steps = [env.reset()]
    actions: list[Tensor] = []
    probabilities: list[Tensor] = []
    while True:
        with watch("inference"):
            action, memory = policy.act(steps[-1], memory, explore=explore)
            actions.append(action)  # [E, n]
            probability = getattr(memory, "probability", None)
            probabilities.append(torch.zeros_like(action, dtype=torch.float32) if probability is None else probability)
        played = len(actions) - 1
        if played > 0 and (played % ask_every == 0 or played == limit) and bool(steps[-1].done.all()):
            break
        if played == limit:
            raise RuntimeError(f"{env.spec.name}: an episode did not end within its limit of {limit} steps")
        with watch("env"):
            steps.append(env.step(action))
    with watch("env"):
        return _as_rollout(steps, actions, probabilities)


def _as_rollout(steps: list[Step], actions: list[Tensor], probabilities: list[Tensor]) -> Rollout:
    """Stack T+1 steps of E environments and clear what lies beyond each episode's end."""
    terminated = torch.stack([step.terminated for step in steps], dim=1)  # [E, T+1], True from the end on
    truncated = torch.stack([step.truncated for step in steps], dim=1)  # [E, T+1]
    valid = ~(terminated | truncated)[:, :-1]  # [E, T]: step t was played if the episode had not ended before it
    beyond = torch.nn.functional.pad(~valid, (1, 0))  # [E, T+1]: entry L_b, the last observation, is kept
    last = valid.sum(dim=1, keepdim=True) - 1  # [E, 1]
    episodes = Episodes(
        obs=torch.stack([step.obs for step in steps], dim=1).masked_fill_(beyond[..., None, None], 0),
        state=torch.stack([step.state for step in steps], dim=1).masked_fill_(beyond[..., None], 0),
        avail=torch.stack([step.avail for step in steps], dim=1).masked_fill_(beyond[..., None, None], False),
        actions=torch.stack(actions, dim=1).masked_fill_(beyond[..., None], 0),
        reward=torch.stack([step.reward for step in steps[1:]], dim=1).masked_fill_(~valid, 0),
        terminated=terminated[:, 1:] & valid,
        truncated=truncated[:, 1:] & valid,
        valid=valid,
        probability=torch.stack(probabilities, dim=1).masked_fill_(beyond[..., None], 0),
        batch_size=valid.shape[:1],
    )
    names = list(steps[1].info)
    values = [
        torch.stack([step.info[name] for step in steps[1:]], dim=1).gather(1, last)[:, 0] for name in names
    ]  # [E] each
    numbers = (
        torch.stack([last[:, 0] + 1, episodes.reward.double().sum(dim=1), *values], dim=0).double().cpu()
    )  # [2 + infos, E]
    lengths, returns, *infos = numbers.unbind()
    return Rollout(episodes, lengths.long(), returns, dict(zip(names, infos, strict=True)))
