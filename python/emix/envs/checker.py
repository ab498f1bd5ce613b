"""``check_env``: does an environment keep the contract of ``emix.envs.Env``?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from emix.data import Action, Box, Discrete, Field, fields
from emix.envs.core import Env, Step
from emix.errors import UsageError

_MAX_STEPS = 1000  # longer episodes are checked this far
_FLAGS = ("terminated", "truncated")


def check_env(env: Env, make_env: Callable[..., Env] | None = None) -> None:
    """Play episodes with random available actions; raise AssertionError where ``env`` breaks the contract of ``Env``.

    Checked: sizes, shapes, dtypes, devices and flags of every step; that finished environments wait; ``reset(where)``;
    that ``episode`` counts, and that assigning it plays the same episode again whatever the other environments do; that
    returned tensors stay as they are. ``make_env(num_envs=, first_env=)``, which must build the same environment with
    the same seed (``env`` is ``make_env(num_envs=env.num_envs, first_env=0)``), adds: that an episode depends neither
    on the size of the batch nor on how all of them are divided. Give ``env`` 3 or more environments. It is left open,
    in mid-episode.

    >>> make_env = functools.partial(emix.make, "matrix/msteps-5", seed=1)
    >>> emix.envs.check_env(make_env(num_envs=3), make_env)
    """
    try:
        _check_all(env, make_env)
    except UsageError as error:  # a host environment that returns what it has not declared
        raise AssertionError(str(error)) from error


def _check_all(env: Env, make_env: Callable[..., Env] | None) -> None:
    _check_attributes(env)
    first = env.episode.clone()
    _check_play(env)
    _check_partial_reset(env)
    script = _script(env, seed=1)
    whole = _play_episodes(env, first, script)
    _check_same(whole, _play_episodes(env, first, script), env.num_envs, "the same episodes, played again,")
    if env.num_envs > 1:
        _check_neighbours(env, first, script, whole)
    if make_env is not None:
        _check_division(env, make_env, first, script, whole)


def _check_attributes(env: Env) -> None:
    spec = env.spec
    _expect(isinstance(spec.name, str) and spec.name != "", "spec.name", "a name", repr(spec.name))
    _expect(isinstance(spec.action, Action), "spec.action", "Discrete or Box", repr(spec.action))
    for name in ("n_agents", "obs_dim", "state_dim", "episode_limit"):
        value = getattr(spec, name)
        _expect(isinstance(value, int) and value > 0, f"spec.{name}", "a positive int", repr(value))
    _expect(isinstance(env.num_envs, int) and env.num_envs > 0, "num_envs", "a positive int", repr(env.num_envs))
    _expect(isinstance(env.device, torch.device), "device", "a torch.device", repr(env.device))
    _check_tensor("episode", env.episode, (env.num_envs,), torch.int64, torch.device("cpu"))


def _check_play(env: Env) -> None:
    """One episode everywhere, with a look at every step, and one step after the end."""
    before = env.episode.clone()
    step = env.reset()
    _expect(torch.equal(env.episode, before + 1), "episode after reset()", (before + 1).tolist(), env.episode.tolist())
    _check_step(env, step, "reset()")
    _expect(not step.reward.any(), "reward after reset()", "0 everywhere", step.reward.tolist())
    _expect(not step.done.any(), "terminated and truncated after reset()", "False everywhere", step.done.tolist())
    script = _script(env, seed=0)
    kept, copies = [step], [_rows(step, slice(None))]
    for t in range(min(env.spec.episode_limit, _MAX_STEPS)):
        last, step = step, env.step(choose(env.spec.action, step, script[t]))
        _check_step(env, step, f"step {t + 1}")
        _check_finished(last, step, f"step {t + 1}")
        kept.append(step)
        copies.append(_rows(step, slice(None)))
    _check_same(copies, kept, env.num_envs, "the episode, looked at again after its end,")
    if env.spec.episode_limit <= _MAX_STEPS:
        _expect(step.done.all(), "done after spec.episode_limit steps", "True everywhere", step.done.tolist())
        action = env.spec.action
        wrong = action.n if isinstance(action, Discrete) else action.high + 1
        nonsense = torch.full_like(choose(action, step, script[0]), wrong)
        _check_finished(step, env.step(nonsense), "a step after the end, whose actions must be ignored,")


def _check_partial_reset(env: Env) -> None:
    """Reset every other environment: the others must stay as they are."""
    script = _script(env, seed=2)
    before = env.reset()
    before = env.step(choose(env.spec.action, before, script[0]))
    numbers = env.episode.clone()
    where = torch.arange(env.num_envs, device=env.device) % 2 == 0  # [E]
    after = env.reset(where)
    _check_step(env, after, "reset(where)")
    counted = numbers + where.cpu()
    _expect(torch.equal(env.episode, counted), "episode after reset(where)", counted.tolist(), env.episode.tolist())
    _expect(not after.reward.any(), "reward after reset(where)", "0 everywhere", after.reward.tolist())
    _expect(not after.done[where].any(), "terminated and truncated where reset", "False", after.done[where].tolist())
    for name in [field.name for field in _seen(env) if field.name != "reward"]:
        same = torch.equal(getattr(before, name)[~where], getattr(after, name)[~where])
        _expect(same, f"{name} where reset(where) was False", "as it was", "another value")
    env.reset(torch.zeros_like(where))
    _expect(torch.equal(env.episode, counted), "episode after reset(none)", counted.tolist(), env.episode.tolist())


def _check_neighbours(env: Env, first: Tensor, script: Tensor, whole: list[Step]) -> None:
    """Environment 0 plays its first episode again while the others play later ones with other actions."""
    for later in (5, 6, 7):
        others = first + later
        others[0] = first[0]
        other_script = _script(env, seed=later)  # [T, E, n, ...]
        other_script[:, 0] = script[:, 0]
        _check_same(whole, _play_episodes(env, others, other_script), 1, "an episode whose neighbours play other ones")


def _check_division(env: Env, make_env: Callable[..., Env], first: Tensor, script: Tensor, whole: list[Step]) -> None:
    """The same episodes in a batch of one, in a larger batch, and in a batch that is the end of that one."""
    count = env.num_envs
    numbers = torch.cat([first, first.new_zeros(2)])  # [E + 2]
    wide = torch.cat([script, script[:, :1].expand(-1, 2, *script.shape[2:])], dim=1)  # [T, E + 2, n, ...]

    def play(num_envs: int, first_env: int) -> list[Step]:
        other = make_env(num_envs=num_envs, first_env=first_env)
        chosen = slice(first_env, first_env + num_envs)
        try:
            return _play_episodes(other, numbers[chosen], wide[:, chosen])
        finally:
            other.close()

    what = f"the same episodes in a batch of {{}} instead of {count}"
    _check_same(whole, play(1, 0), 1, what.format(1))
    larger = play(count + 2, 0)
    _check_same(whole, larger, count, what.format(count + 2))
    what = f"what environments 2 to {count + 1} of a batch play, in a batch with first_env=2,"
    _check_same([_rows(step, slice(2, None)) for step in larger], play(count, 2), count, what)


def _script(env: Env, seed: int) -> Tensor:
    """[T, E, n] or [T, E, n, D] uniform numbers that say which actions are taken."""
    shape = (min(env.spec.episode_limit, _MAX_STEPS), env.num_envs, env.spec.n_agents, *env.spec.action.shape)
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu").to(env.device)


def choose(action: Action, step: Step, uniform: Tensor) -> Tensor:
    """Available actions [E, n] or [E, n, D], picked by ``uniform`` numbers of that shape."""
    if isinstance(action, Box):
        return action.nearest(action.low + (action.high - action.low) * uniform)
    avail = cast("Tensor", step.avail)  # [E, n, A]
    count = avail.sum(2)  # [E, n]
    rank = (uniform * count).long().clamp(max=count - 1)
    return (avail.cumsum(2) > rank[:, :, None]).long().argmax(2)


def _play_episodes(env: Env, numbers: Tensor, script: Tensor) -> list[Step]:
    env.episode = numbers.clone()
    steps = [env.reset()]
    for uniform in script:
        steps.append(env.step(choose(env.spec.action, steps[-1], uniform)))
    return steps


def _seen(env: Env) -> list[Field]:
    """What a step has of an episode's fields."""
    return [field for field in fields(env.spec) if field.name != "actions"]


def _check_step(env: Env, step: Step, when: str) -> None:
    envs = env.num_envs
    for field in _seen(env):
        what, tensor = f"{field.name} of {when}", getattr(step, field.name)
        _check_tensor(what, tensor, (envs, *field.shape), getattr(torch, field.dtype), env.device)
        _expect(bool(torch.isfinite(tensor).all()), what, "finite numbers", "NaN or infinity")
    for name, tensor in step.info.items():
        _expect(tensor.shape[:1] == (envs,), f"info[{name!r}] of {when}", f"{envs} rows", f"shape {list(tensor.shape)}")
    both = step.terminated & step.truncated | getattr(env, "both_flags", torch.zeros_like(step.done)).to(env.device)
    _expect(not both.any(), f"terminated and truncated of {when}", "never both True", both.tolist())
    if isinstance(env.spec.action, Box):
        _expect(step.avail is None, f"avail of {when}", "None, where actions are a Box", type(step.avail).__name__)
    if step.avail is None:
        return
    stuck = ~step.avail.any(2).all(1) & ~step.done  # [E]
    what = "an available action for every agent of a running environment"
    _expect(not stuck.any(), f"avail of {when}", what, f"none in {stuck.tolist()}")


def _check_finished(last: Step, step: Step, when: str) -> None:
    done = last.done
    for name in _FLAGS:
        kept = torch.equal(getattr(last, name)[done], getattr(step, name)[done])
        _expect(kept, f"{name} of finished environments at {when}", "as it was", "another value")
    _expect(not step.reward[done].any(), f"reward of finished environments at {when}", "0", step.reward[done].tolist())


def _check_same(expected: list[Step], came: list[Step], num_envs: int, what: str) -> None:
    """The first ``num_envs`` environments of two recordings, up to the end of their episodes."""
    playing = torch.ones_like(expected[0].done[:num_envs])  # what a finished environment shows is its own matter
    for t, (one, other) in enumerate(zip(expected, came, strict=True)):
        for name, value in _tensors(one).items():
            a, b = value[:num_envs][playing], getattr(other, name)[:num_envs][playing]
            _expect(torch.equal(a, b), f"{name} at step {t} of {what}", "exactly the same values", "others")
        playing = ~one.done[:num_envs]


def _check_tensor(what: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    _expect(isinstance(tensor, Tensor), what, "a tensor", type(tensor).__name__)
    _expect(tuple(tensor.shape) == shape, what, f"shape {list(shape)}", list(tensor.shape))
    _expect(tensor.dtype == dtype, what, dtype, tensor.dtype)
    _expect(tensor.device == device, what, f"device {device}", tensor.device)


def _tensors(step: Step) -> dict[str, Tensor]:
    names = ("obs", "state", "avail", "reward", *_FLAGS)
    return {name: getattr(step, name) for name in names if getattr(step, name) is not None}


def _rows(step: Step, rows: slice) -> Step:
    """A copy of some environments' part of a step."""
    values: dict[str, Any] = {name: tensor[rows].clone() for name, tensor in _tensors(step).items()}
    return Step(**{"avail": None, **values})


def _expect(holds: bool | Tensor, what: str, expected: object, came: object) -> None:
    if not holds:
        raise AssertionError(f"{what}: expected {expected}, got {came}")
