"""Playing: one whole episode in every environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from emix.envs.core import Env, Step
from emix.learners.episodes import Episodes
from emix.training.stopwatch import Stopwatch

Entry = Mapping[str, Tensor]  # Episodes' fields at one time, [E, ...] each, and ``info.<name>``, [E] each


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
    play = Play(env, policy, explore=explore, watch=watch)
    entries = [play.begin()]

    def go_on(steps: int) -> Tensor:
        entries.extend(play.go_on(steps))
        return all_done(entries[-1])

    play_out(env, go_on)
    with watch("env"):
        return as_rollout(stacked(entries))


class Play:
    """Episodes that are under way."""

    action: Tensor  # [E, n], to be taken next
    memory: Any  # the policy's

    def __init__(self, env: Env, policy: Policy, *, explore: bool, watch: Stopwatch) -> None:
        self.env, self.policy, self.explore, self.watch = env, policy, explore, watch

    def begin(self) -> Entry:
        """Reset every environment, and act."""
        self.memory = self.policy.initial_memory(self.env.num_envs)
        with self.watch("env"):
            step = self.env.reset()
        return self._act(step)

    def go_on(self, steps: int) -> list[Entry]:
        """Step and act so many times."""
        entries = []
        for _ in range(steps):
            with self.watch("env"):
                step = self.env.step(self.action)
            entries.append(self._act(step))
        return entries

    def _act(self, step: Step) -> Entry:
        with self.watch("inference"):
            self.action, self.memory = self.policy.act(step, self.memory, explore=self.explore)
            probability = getattr(self.memory, "probability", None)
            if probability is None:
                probability = torch.zeros_like(self.action, dtype=torch.float32)
        return {
            "obs": step.obs,
            "state": step.state,
            "avail": step.avail,
            "reward": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "actions": self.action,
            "probability": probability,
            **{f"info.{name}": value for name, value in step.info.items()},
        }


def play_out(env: Env, go_on: Callable[[int], Tensor]) -> None:
    """Call ``go_on(steps)``, which says in a 0-dim tensor whether all episodes have ended, until they have."""
    limit, played, ended = env.spec.episode_limit, 0, False
    while not ended:
        if played == limit:
            raise RuntimeError(f"{env.spec.name}: an episode did not end within its limit of {limit} steps")
        steps = min(ask_every(env.device), limit - played)
        ended = bool(go_on(steps))
        played += steps


def ask_every(device: torch.device) -> int:
    """Steps between two questions whether all episodes have ended."""
    return 1 if device.type == "cpu" else 8


def all_done(entry: Entry) -> Tensor:
    """Whether every episode has ended: bool []."""
    return (entry["terminated"] | entry["truncated"]).all()


def stacked(entries: Sequence[Entry]) -> dict[str, Tensor]:
    """K entries in one, [E, K, ...] each; a reset need not have the ``info`` of a step."""
    return {name: torch.stack([entry[name] for entry in entries if name in entry], dim=1) for name in entries[-1]}


def as_rollout(entries: Mapping[str, Tensor]) -> Rollout:
    """Clear what lies beyond each episode's end, in place, in T+1 entries of E environments ``[E, T+1, ...]``."""
    terminated, truncated = entries["terminated"], entries["truncated"]  # [E, T+1], True from the end on
    valid = ~(terminated | truncated)[:, :-1]  # [E, T]: step t was played if the episode had not ended before it
    beyond = torch.nn.functional.pad(~valid, (1, 0))  # [E, T+1]: entry L_b, the last observation, is kept
    last = valid.sum(dim=1, keepdim=True) - 1  # [E, 1]
    episodes = Episodes(
        obs=entries["obs"].masked_fill_(beyond[..., None, None], 0),
        state=entries["state"].masked_fill_(beyond[..., None], 0),
        avail=entries["avail"].masked_fill_(beyond[..., None, None], False),
        actions=entries["actions"].masked_fill_(beyond[..., None], 0),
        reward=entries["reward"][:, 1:].masked_fill(~valid, 0),
        terminated=terminated[:, 1:] & valid,
        truncated=truncated[:, 1:] & valid,
        valid=valid,
        probability=entries["probability"].masked_fill_(beyond[..., None], 0),
        batch_size=valid.shape[:1],
    )
    info = {
        name.removeprefix("info."): values[:, -valid.shape[1] :].gather(1, last)[:, 0]  # of the steps, not the reset
        for name, values in entries.items()
        if name.startswith("info.")
    }  # [E] each
    numbers = (
        torch.stack([last[:, 0] + 1, episodes.reward.double().sum(dim=1), *info.values()], dim=0).double().cpu()
    )  # [2 + infos, E]
    lengths, returns, *infos = numbers.unbind()
    return Rollout(episodes, lengths.long(), returns, dict(zip(info, infos, strict=True)))
