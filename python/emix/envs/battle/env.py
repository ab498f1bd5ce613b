"""``battle/<map>``: B battles on tensors, stepped together on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emix.data.integers import check_seed
from emix.data.room import refuse_large_steps
from emix.envs import batch
from emix.envs.battle.fields import CLOCK, MIND, STATUS, UNIT
from emix.envs.battle.maps import list_maps
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.scenario import Scenario, make_scenario
from emix.envs.core import Step
from emix.envs.options import read_options
from emix.envs.registry import unknown_name
from emix.errors import UsageError
from emix.ops.battle import BattleState, BattleStep, BattleTables, battle_reset, battle_step

if TYPE_CHECKING:
    from emix.envs.battle.render import Painter


class BattleEnv:
    """``num_envs`` battles of a scenario; the contract is that of ``emix.envs.Env``.

    ``units`` [B, rows, slots] float32, ``minds`` [B, rows, slots] int32 and ``clock`` [B, rows] int64 are the battles
    themselves; ``emix.envs.battle.fields`` names their rows. ``battles`` holds the three and ``tables`` the map, as
    ``emix.ops.battle`` takes them. ``info`` of a step has ``battle_won`` [B] bool, ``dead_allies`` and ``dead_enemies``
    [B] int64.

    Whether an action that is not available raises is the option ``checked``, by default on the CPU. Without it such an
    action counts as stop, and ``check()`` raises for the first of each battle; that is for GPUs, where a look at the
    actions would wait for the device.
    """

    def __init__(
        self, scenario: Scenario, *, num_envs: int, device: torch.device, seed: int, first_env: int = 0
    ) -> None:
        refuse_large_steps(scenario.spec, num_envs, device)
        self.scenario, self.spec, self.num_envs, self.device = scenario, scenario.spec, num_envs, device
        self.closed = False
        slots, checked = scenario.slots, scenario.options.checked
        self.units = torch.zeros(num_envs, len(UNIT), slots, dtype=torch.float32, device=device)  # [B, rows, slots]
        self.minds = torch.full((num_envs, len(MIND), slots), -1, dtype=torch.int32, device=device)  # [B, rows, slots]
        self.clock = torch.zeros(num_envs, len(CLOCK), dtype=torch.int64, device=device)  # [B, rows]
        self.clock[:, CLOCK["status"]] = STATUS["waiting"]
        self.battles = BattleState(self.units, self.minds, self.clock)
        self.tables = BattleTables(
            stats=_tensor(scenario.stats, device),
            traits=_tensor(scenario.traits, device),
            rules=_tensor(scenario.rules, device),
            terrain=_tensor(scenario.terrain, device),
            waypoints=_tensor(scenario.waypoints, device),
            layout=list(scenario.layout),
        )
        self._seed, self._first_env = check_seed(f"{self.spec.name}: seed", seed), first_env
        self._checked = device.type == "cpu" if checked is None else checked
        self._last: Step | None = None

    @property
    def capturable(self) -> bool:
        """Whether CUDA graphs can capture ``step``: it changes the battles in place, but waits where ``checked``."""
        return not self._checked

    @property
    def episode(self) -> Tensor:
        """[B] int64 on the CPU: the number of the episode that each battle's next reset starts."""
        return self.clock[:, CLOCK["episode"]].cpu().clone()

    @episode.setter
    def episode(self, numbers: Tensor) -> None:
        batch.check_episode(self.spec, numbers, self.num_envs)
        self.clock[:, CLOCK["episode"]] = numbers.to(self.device)

    def reset(self, where: Tensor | None = None) -> Step:
        """Start the next episode everywhere, or where ``where`` [B] is True."""
        where = batch.reset_mask(self.spec, where, self._last is not None, self.num_envs).to(self.device).contiguous()
        seed, first = self._seed, self._first_env
        return self._step(battle_reset(self.battles, where, self.tables, seed=seed, first=first, closed=self.closed))

    def step(self, actions: Tensor) -> Step:
        """Play the joint ``actions`` [B, n] for 8 game loops. Raises UsageError for one that is not available, if
        ``checked``."""
        if self._last is None:
            raise UsageError(f"{self.spec.name}: step was called before reset: call reset() first")
        name, action = self.spec.name, self.spec.action
        action.check(name, actions, (self.num_envs, self.spec.n_agents), self.device)
        if self._checked:
            action.check_values(name, actions, self._last.avail, self._last.done)
        return self._step(battle_step(self.battles, actions.contiguous(), self.tables))

    def check(self) -> None:
        """Raise UsageError where an action that was not available has been taken for stop in a running episode."""
        faults = self.clock[:, CLOCK["fault"]].tolist()
        for index, fault in enumerate(faults):
            if fault:
                agent, action = divmod(fault - 1, 1 << 32)
                raise UsageError(
                    f"{self.spec.name}: environment {index}, agent {agent}: action {action} was not available and "
                    f"counted as stop: choose among step.avail"
                )

    def advance(self, env_steps: int) -> None:
        """Say how many environment steps training has made: from ``closing_step`` on, episodes start on the closed
        map."""
        closing_step = self.scenario.options.closing_step
        self.closed = closing_step is not None and env_steps >= closing_step

    def render(self, index: int = 0) -> np.ndarray:
        """Draw battle ``index``: uint8 [H, W, 3]."""
        from emix.envs.battle.frame import snapshot

        return self._painter.draw(snapshot(self, index))

    def close(self) -> None:
        """Do nothing: tensors free themselves."""
        return

    @cached_property
    def _painter(self) -> Painter:
        from emix.envs.battle.render import Painter

        return Painter(self.scenario)

    def _step(self, out: BattleStep) -> Step:
        obs, state, avail, reward, terminated, truncated, battle_won, dead_allies, dead_enemies = out
        if self.scenario.options.obs_instead_of_state:
            state = obs.flatten(1).clone()  # [B, n * O]
        info = {"battle_won": battle_won, "dead_allies": dead_allies, "dead_enemies": dead_enemies}
        self._last = Step(obs, state, avail, reward, terminated, truncated, info)
        return self._last


def make_battle(name: str, options: Mapping[str, Any], **batch: Any) -> BattleEnv:
    """Build ``battle/<map>``; the map is a name or the path of a YAML file.

    Raises:
        UsageError: an unknown map or option, or a mistake in a file.
    """
    map_name = name.removeprefix("battle/")
    if map_name not in list_maps() and not map_name.endswith((".yaml", ".yml")):
        raise unknown_name(name)
    scenario = make_scenario(name, map_name, read_options(name, BattleOptions, options))
    return BattleEnv(scenario, **batch)


def _tensor(table: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(table.copy()).to(device)
