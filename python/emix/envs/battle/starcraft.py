"""``StarCraft2Env``: one simulated battle behind the interface of ``smac.env.StarCraft2Env``."""

from __future__ import annotations

import reprlib
import secrets
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from emix.data.integers import check_seed
from emix.envs.battle.env import BattleEnv
from emix.envs.battle.fields import LOOPS, MIND
from emix.envs.battle.frame import Frame, follow, snapshot
from emix.envs.battle.heuristic import Heuristic, positions, unit_in, unit_slots
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.scenario import SIGHT, make_scenario
from emix.envs.core import Step
from emix.envs.options import read_options
from emix.errors import UsageError


class StarCraft2Env:
    """A drop-in for ``smac.env.StarCraft2Env`` that needs no StarCraft II: NumPy and lists, one battle, on the CPU.

    The arguments are SMAC's, with SMAC's defaults and in its order; those of ``emix.envs.battle.BattleOptions`` follow
    by name (``balance``, ``enemy_order``, ``spawn_jitter`` ...). Accepted and ignored, because they belong to the game:
    ``difficulty`` (which changes nothing in SMAC's maps), ``game_version``, ``window_size_x``, ``window_size_y`` and
    ``debug``. ``step_mul`` must be 8. ``map_name`` may be the path of a map's YAML file.

    Unlike SMAC's, it has a stream of random numbers for each episode (``seed``; without one, another each time), its
    ``render`` returns a picture, and ``get_stats`` works before the first battle has ended.

    Raises:
        UsageError: an unknown map or option.
    """

    def __init__(
        self,
        map_name: str = "8m",
        step_mul: int = LOOPS,
        move_amount: float = 2,
        difficulty: str = "7",
        game_version: str | None = None,
        seed: int | None = None,
        continuing_episode: bool = False,
        obs_all_health: bool = True,
        obs_own_health: bool = True,
        obs_last_action: bool = False,
        obs_pathing_grid: bool = False,
        obs_terrain_height: bool = False,
        obs_instead_of_state: bool = False,
        obs_timestep_number: bool = False,
        state_last_action: bool = True,
        state_timestep_number: bool = False,
        reward_sparse: bool = False,
        reward_only_positive: bool = True,
        reward_death_value: float = 10,
        reward_win: float = 200,
        reward_defeat: float = 0,
        reward_negative_scale: float = 0.5,
        reward_scale: bool = True,
        reward_scale_rate: float = 20,
        replay_dir: str = "",
        replay_prefix: str = "",
        window_size_x: int = 1920,
        window_size_y: int = 1200,
        heuristic_ai: bool = False,
        heuristic_rest: bool = False,
        debug: bool = False,
        **options: Any,
    ) -> None:
        if step_mul != LOOPS:
            raise UsageError(f"step_mul expects {LOOPS}, the game loops of an environment step, got {step_mul!r}")
        self.map_name, self.continuing_episode = map_name, continuing_episode
        self.replay_dir, self.replay_prefix = replay_dir, replay_prefix
        self._seed = secrets.randbits(31) if seed is None else check_seed("seed", seed)
        chosen = {
            "move_amount": move_amount,
            "obs_all_health": obs_all_health,
            "obs_own_health": obs_own_health,
            "obs_last_action": obs_last_action,
            "obs_pathing_grid": obs_pathing_grid,
            "obs_terrain_height": obs_terrain_height,
            "obs_instead_of_state": obs_instead_of_state,
            "obs_timestep_number": obs_timestep_number,
            "state_last_action": state_last_action,
            "state_timestep_number": state_timestep_number,
            "reward": "sparse" if reward_sparse else "dense",
            "reward_only_positive": reward_only_positive,
            "reward_death_value": reward_death_value,
            "reward_win": reward_win,
            "reward_defeat": reward_defeat,
            "reward_negative_scale": reward_negative_scale,
            "reward_scale": reward_scale,
            "reward_scale_rate": reward_scale_rate,
            "checked": False,  # an AssertionError says it instead
        }
        name = f"battle/{map_name}"
        scenario = make_scenario(name, map_name, read_options(name, BattleOptions, chosen | options))
        self._env = BattleEnv(scenario, num_envs=1, device=torch.device("cpu"), seed=self._seed)
        spec = scenario.spec
        self.n_agents, self.n_enemies = spec.n_agents, len(scenario.enemies)
        self.n_actions, self.episode_limit = spec.n_actions, spec.episode_limit
        self.max_reward = scenario.max_reward
        *_, self.unit_type_bits, self.shield_bits_ally, self.shield_bits_enemy, _ = scenario.layout
        self.battles_won = self.battles_game = self.timeouts = 0
        self._step: Step | None = None
        self._frames: list[Frame] = []
        self._heuristic = Heuristic(self._env, heuristic_rest) if heuristic_ai else None

    def reset(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Start an episode: the agents' observations and the state."""
        self._step = self._env.reset()
        if self._heuristic:
            self._heuristic.reset()
        self._frames = [snapshot(self._env)]
        return self.get_obs(), self.get_state()

    def step(self, actions: Any) -> tuple[float, bool, dict[str, Any]]:
        """Take one action per agent: the team's reward, whether the episode is over, and what happened.

        A time-out is ``terminated``, too, and only with ``continuing_episode`` is ``info["episode_limit"]`` True:
        SMAC's convention. With ``heuristic_ai`` the list ``actions`` is overwritten with what the heuristic does.

        Raises:
            AssertionError: an action is not available, as in SMAC.
            UsageError: ``actions`` are not one integer for each agent.
        """
        before = self._current()
        given = self._integers(actions)
        if before.done[0]:
            return 0.0, True, self._info(before)
        if self._heuristic:
            avail = self.get_avail_actions()
            actions[:] = chosen = self._heuristic.actions(avail)
            sent = self._heuristic.order_from_afar(chosen, avail)
        else:
            sent = chosen = given
            for agent, action in enumerate(chosen):
                if not (0 <= action < self.n_actions and bool(self._avail()[agent, action])):
                    raise AssertionError(f"Agent {agent} cannot perform action {action}")
        self._step = step = self._env.step(torch.tensor([sent], dtype=torch.int64, device="cpu"))
        if sent != chosen:
            self._remember(chosen)
        self._frames.append(follow(self._frames[-1], snapshot(self._env)))
        if step.done[0]:
            self.battles_game += 1
            self.battles_won += int(step.info["battle_won"][0])
            self.timeouts += int(step.truncated[0])
        return float(step.reward[0]), bool(step.done[0]), self._info(step)

    def get_obs(self) -> list[np.ndarray]:
        """What each agent sees."""
        return [self.get_obs_agent(agent) for agent in range(self.n_agents)]

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """What an agent sees: [obs size] float32."""
        return self._current().obs[0, agent_id].numpy().copy()

    def get_obs_size(self) -> int:
        """Numbers in an observation."""
        return self._env.spec.obs_dim

    def get_state(self) -> np.ndarray:
        """The state: [state size] float32."""
        return self._current().state[0].numpy().copy()

    def get_state_size(self) -> int:
        """Numbers in the state."""
        return self._env.spec.state_dim

    def get_state_dict(self) -> dict[str, np.ndarray]:
        """The state by its parts: ``allies``, ``enemies``, and ``last_action`` and ``timestep`` where it has them."""
        options = self._env.scenario.options
        if options.obs_instead_of_state:
            raise NotImplementedError("get_state_dict: the state is the observations (obs_instead_of_state)")
        rest, parts = self.get_state(), {}
        sizes = [
            ("allies", (self.n_agents, len(self._attributes(ally=True))), True),
            ("enemies", (self.n_enemies, len(self._attributes(ally=False))), True),
            ("last_action", (self.n_agents, self.n_actions), options.state_last_action),
            ("timestep", (1,), options.state_timestep_number),
        ]
        for name, shape, there in sizes:
            if there:
                count = int(np.prod(shape))
                parts[name], rest = rest[:count].reshape(shape), rest[count:]
        return parts

    def get_avail_actions(self) -> list[list[int]]:
        """Of every agent, 1 for each action that it may take and 0 for the others."""
        return [self.get_avail_agent_actions(agent) for agent in range(self.n_agents)]

    def get_avail_agent_actions(self, agent_id: int) -> list[int]:
        """Of one agent, 1 for each action that it may take and 0 for the others."""
        return self._avail()[agent_id].int().tolist()

    def get_total_actions(self) -> int:
        """Actions of an agent."""
        return self.n_actions

    def get_env_info(self) -> dict[str, Any]:
        """The sizes, and the names of the numbers that the state has of each unit."""
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
            "agent_features": self._attributes(ally=True),
            "enemy_features": self._attributes(ally=False),
        }

    def get_stats(self) -> dict[str, float]:
        """Battles so far; ``battles_draw`` are the time-outs, as in SMAC."""
        return {
            "battles_won": self.battles_won,
            "battles_game": self.battles_game,
            "battles_draw": self.timeouts,
            "win_rate": self.battles_won / max(1, self.battles_game),
            "timeouts": self.timeouts,
            "restarts": 0,
        }

    def get_visibility_matrix(self) -> np.ndarray:
        """[n_agents, n_agents + n_enemies] bool: whom each agent sees; of itself, False."""
        self._current()
        x, y, alive = positions(self._env)
        distance = np.hypot(x - x[: self.n_agents, None], y - y[: self.n_agents, None])
        seen = (distance < SIGHT) & alive & alive[: self.n_agents, None]
        np.fill_diagonal(seen, False)
        return seen

    def get_unit_types(self) -> list[int] | None:
        """StarCraft II's ids of the units' types, allies first; None, with a warning, before the first reset."""
        if self._step is None:
            warnings.warn("unit types are known after reset()", stacklevel=2)
            return None
        return [unit_in(self._env, slot).unit.id for slot in unit_slots(self._env)]

    def seed(self) -> int:
        """The seed; it is set when the environment is made."""
        return self._seed

    def render(self, mode: str = "rgb_array") -> np.ndarray:
        """Draw the battle: [height, width, 3] uint8, whatever ``mode`` is."""
        self._current()
        return self._env.render()

    def save_replay(self) -> Path:
        """Write the episode so far as ``<replay_dir>/<replay_prefix or map>_<episode>.gif`` and return its path."""
        from PIL import Image

        from emix.envs.battle.render import Painter

        self._current()
        prefix = self.replay_prefix or Path(self.map_name).stem
        path = Path(self.replay_dir).expanduser() / f"{prefix}_{int(self._env.episode[0]) - 1}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        painter = Painter(self._env.scenario)
        first, *others = [Image.fromarray(painter.draw(frame)) for frame in self._frames]
        first.save(path, save_all=True, append_images=others, duration=200, loop=0)
        return path

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _integers(self, actions: Any) -> list[int]:
        """``actions`` as a list of n integers."""
        try:
            array = np.asarray(actions)
        except (ValueError, TypeError):  # lists of several lengths
            array = np.asarray(None)
        if array.dtype.kind not in "iu" or array.shape != (self.n_agents,):
            raise UsageError(
                f"battle/{self.map_name}: step expects {self.n_agents} integers, one action for each agent, "
                f"got {reprlib.repr(actions)}"
            )
        return array.tolist()

    def _current(self) -> Step:
        if self._step is None:
            raise UsageError(f"battle/{self.map_name}: call reset() first")
        return self._step

    def _avail(self) -> Tensor:
        return cast("Tensor", self._current().avail)[0]  # [n, A]

    def _info(self, step: Step) -> dict[str, Any]:
        info: dict[str, Any] = {
            "battle_won": bool(step.info["battle_won"][0]),
            "dead_allies": int(step.info["dead_allies"][0]),
            "dead_enemies": int(step.info["dead_enemies"][0]),
        }
        if self.continuing_episode and step.truncated[0]:
            info["episode_limit"] = True
        return info

    def _attributes(self, ally: bool) -> list[str]:
        names = ["health", "energy/cooldown", "rel_x", "rel_y"] if ally else ["health", "rel_x", "rel_y"]
        shield = self.shield_bits_ally if ally else self.shield_bits_enemy
        return names + ["shield"] * shield + [f"type_{bit}" for bit in range(self.unit_type_bits)]

    def _remember(self, actions: list[int]) -> None:
        """Put ``actions`` in place of the no-ops that were played, and observe once more."""
        last = torch.tensor(actions, dtype=torch.int32, device="cpu")  # [n]
        self._env.minds[0, MIND["last_action"], : self.n_agents] = last
        played = self._current()
        seen = self._env.reset(torch.zeros(1, dtype=torch.bool, device="cpu"))
        self._step = Step(
            seen.obs, seen.state, seen.avail, played.reward, played.terminated, played.truncated, played.info
        )
