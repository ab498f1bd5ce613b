"""Playing: one whole episode in every environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from emix.data import EnvSpec, Episodes, Field, Step, fields
from emix.data.episodes import alike
from emix.envs.core import Env
from emix.errors import UsageError
from emix.learners.learner import Acted
from emix.playing.stopwatch import Stopwatch

Entry = Mapping[str, Tensor]  # the fields of ``emix.data.fields`` at one time, [E, ...] each, and ``info.<name>``, [E]


class Policy(Protocol):
    """The half of an actor that acts."""

    @property
    def record(self) -> tuple[Field, ...]:
        """What each step of it adds to an episode."""
        ...

    def initial_memory(self, num_envs: int) -> Any:
        """What is carried from step to step, at the start of an episode in each of E environments."""
        ...

    def act(self, step: Step, memory: Any, *, explore: bool) -> Acted:
        """The actions, the next memory and the record; without ``explore`` training's random numbers are left alone."""
        ...


class Rollout(NamedTuple):
    """One episode of each of E environments, and what is reported about them (on the CPU)."""

    episodes: Episodes
    lengths: Tensor  # [E] int64, environment steps
    returns: Tensor  # [E] float64, undiscounted
    info: dict[str, Tensor]  # [E] float64 each, at the episode's last step: battle_won and the like


@torch.no_grad()
def collect(env: Env, policy: Policy, *, explore: bool, stopwatch: Stopwatch | None = None) -> Rollout:
    """Reset every environment and play until all have finished, as PyMARL's parallel runner.

    An episode whose last ``info["simulator_lost"]`` is not 0 has been cut off by a simulator that was lost: it is
    thrown away, and its environment plays its next one in its place.

    The action is also picked at the last observation, which a truncated episode bootstraps from. The host asks whether
    all have finished, and so waits for the device, every eighth step on a GPU, and once at the end: steps beyond the
    end of all episodes cost less than the waiting.

    Args:
        env: E environments.
        policy: an actor.
        explore: take the behaviour policy, else the greedy one.
        stopwatch: gets the phases ``env`` and ``inference``.

    Raises:
        RuntimeError: an environment did not finish within its ``spec.episode_limit``.
        UsageError: the policy does not record what it declares.
    """
    play = Play(env, policy, explore=explore, watch=stopwatch or Stopwatch())
    rollout = _play_once(play, None)
    while (lost := _lost(rollout)).any():
        rollout = _replaced(rollout, _play_once(play, lost.to(env.device)), lost)
    rollout.info.pop("simulator_lost", None)
    return rollout


class Play:
    """Episodes that are under way."""

    action: Tensor  # [E, n] or [E, n, D], to be taken next
    memory: Any  # the policy's

    def __init__(self, env: Env, policy: Policy, *, explore: bool, watch: Stopwatch) -> None:
        self.env, self.policy, self.explore, self.watch = env, policy, explore, watch
        self.seen = [field.name for field in fields(env.spec) if field.name != "actions"]  # what a Step brings

    def begin(self, where: Tensor | None = None) -> Entry:
        """Reset every environment, or those where ``where`` [E] is True, and act."""
        self.memory = self.policy.initial_memory(self.env.num_envs)
        with self.watch("env"):
            step = self.env.reset(where)
        entry = self._act(step)
        _check_record(self.policy, entry, self.env.num_envs)
        return entry

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
            self.action, self.memory, record = self.policy.act(step, self.memory, explore=self.explore)
        seen = {name: getattr(step, name) for name in self.seen}
        info = {f"info.{name}": value for name, value in step.info.items()}
        return {**seen, "actions": self.action, **record, **info}


def _play_once(play: Play, where: Tensor | None) -> Rollout:
    """An episode of every environment, or of those where ``where`` [E] is True; of the others there is none."""
    entries = [play.begin(where)]

    def go_on(steps: int) -> Tensor:
        entries.extend(play.go_on(steps))
        return all_done(entries[-1])

    play_out(play.env, go_on)
    with play.watch("env"):
        return as_rollout(stacked(entries), play.env.spec, play.policy.record)


def _lost(rollout: Rollout) -> Tensor:
    """[E] bool, on the CPU: which episodes are to be played anew."""
    return rollout.info.get("simulator_lost", torch.zeros_like(rollout.returns)) > 0


def _replaced(rollout: Rollout, other: Rollout, where: Tensor) -> Rollout:
    """``rollout`` with ``other``'s episodes where ``where`` [E] is True."""
    episodes, others = alike(rollout.episodes, other.episodes)
    chosen, unknown = where.to(episodes.valid.device), torch.full_like(rollout.returns, torch.nan)  # [E]
    episodes[chosen] = others[chosen]
    infos = [{**dict.fromkeys(rollout.info | other.info, unknown), **each.info} for each in (rollout, other)]
    return Rollout(
        episodes,
        torch.where(where, other.lengths, rollout.lengths),
        torch.where(where, other.returns, rollout.returns),
        {name: torch.where(where, infos[1][name], column) for name, column in infos[0].items()},
    )


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


def as_rollout(entries: Mapping[str, Tensor], spec: EnvSpec, record: Sequence[Field]) -> Rollout:
    """Clear what lies beyond each episode's end, partly in place, in T+1 entries of E environments: [E, T+1, ...]."""
    over = entries["terminated"] | entries["truncated"]  # [E, T+1], True from the end on
    valid = ~over[:, :-1]  # [E, T]: step t was played if the episode had not ended before it
    beyond = torch.nn.functional.pad(~valid, (1, 0))  # [E, T+1]: entry L_b, the last observation, is kept

    def cleared(field: Field) -> Tensor:
        value = entries[field.name]
        wide = (...,) + (None,) * (value.dim() - 2)
        if field.at == "observation":
            return value.masked_fill_(beyond[wide], 0)
        # What an actor records is of the step that it chooses; a step's reward comes with the entry after it.
        value = value[:, :-1] if field in record else value[:, 1:]
        return value.masked_fill(~valid[wide], 0)

    episodes = Episodes.of({field.name: cleared(field) for field in fields(spec, record)}, valid)
    last = valid.sum(dim=1, keepdim=True) - 1  # [E, 1]
    info = {
        name.removeprefix("info."): _info_at(values, last, valid.shape[1])
        for name, values in entries.items()
        if name.startswith("info.")
    }  # [E] each
    numbers = (
        torch.stack([last[:, 0] + 1, episodes.reward.double().sum(dim=1), *info.values()], dim=0).double().cpu()
    )  # [2 + infos, E]
    lengths, returns, *infos = numbers.unbind()
    return Rollout(episodes, lengths.long(), returns, dict(zip(info, infos, strict=True)))


def _info_at(values: Tensor, step: Tensor, steps: int) -> Tensor:
    """An info's values ``[E, K]`` at each environment's ``step`` ``[E, 1]`` of T: ``[E]`` float64. The last of the K is
    of the last step; where the info came later than ``step``, NaN."""
    place = step + values.shape[1] - steps  # [E, 1]
    found = values.gather(1, place.clamp(min=0))[:, 0].double()
    return found.masked_fill(place[:, 0] < 0, torch.nan)


def _check_record(policy: Policy, entry: Entry, num_envs: int) -> None:
    """Raise UsageError unless the entry has what the policy declares."""
    for field in policy.record:
        value, shape = entry.get(field.name), (num_envs, *field.shape)
        if value is None or tuple(value.shape) != shape or value.dtype != getattr(torch, field.dtype):
            came = "nothing" if value is None else f"{value.dtype} of shape {list(value.shape)}"
            raise UsageError(
                f"{type(policy).__name__}.act: the record expects {field.name} as {field.dtype} of shape "
                f"{list(shape)}, as Actor.record declares it, got {came}"
            )
