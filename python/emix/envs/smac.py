"""``smac/<map>``: SMAC itself (oxwhirl/smac, ``smac.env``) behind the interface of ``emix.envs.Env``.

SMAC computes what agents see, may do and are paid; it starts StarCraft II through pysc2. ``sc2/<map>`` plays the same
game without either; this one is for who wants to compare, or to have SMAC's own numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.battle.options import BattleOptions
from emix.envs.options import closest
from emix.envs.sc2.options import SmacOptions, read_smac
from emix.envs.sc2.turns import one_after_the_other
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.host import HostEnv

ANSWER_SECONDS = 360.0  # pysc2's: for the start, and for every answer
_SAME = (
    *("move_amount", "reward_only_positive", "reward_death_value", "reward_win", "reward_defeat"),
    *("reward_negative_scale", "reward_scale", "reward_scale_rate", "obs_all_health", "obs_own_health"),
    *("obs_last_action", "obs_pathing_grid", "obs_terrain_height", "obs_timestep_number", "obs_instead_of_state"),
    *("state_last_action", "state_timestep_number"),
)  # options of the battle that are SMAC's arguments of the same name


class Smac(gymnasium.Env):
    """One ``smac.env.StarCraft2Env`` with the observation that ``emix.envs.HostEnv`` reads.

    A time-out is ``truncated``. A game that SMAC has lost, whether it says so by an info without ``battle_won``, has
    started another game by itself, or raises, is closed, and the episode with it: ``truncated``, with
    ``info["simulator_lost"]`` 1, so that whoever plays throws it away; the next ``reset`` starts another game.
    ``info["restarts"]`` counts the games that were lost.

    Args:
        map_name: SMAC's.
        battle: what observations, state and reward hold.
        options: of the game.

    Raises:
        RuntimeError: in ``reset`` and ``step``, after more than ``options.most_failures`` failures in a row.
    """

    def __init__(self, map_name: str, battle: BattleOptions, options: SmacOptions) -> None:
        self._name, self._battle, self._options = map_name, battle, options
        self._game: Any = None
        sizes = self._build(seed=0).get_env_info()
        agents, choices = sizes["n_agents"], sizes["n_actions"]
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (agents, sizes["obs_shape"]), np.float32),
            state=spaces.Box(-np.inf, np.inf, (sizes["state_shape"],), np.float32),
            avail=spaces.MultiBinary((agents, choices)),
        )
        self.action_space = spaces.MultiDiscrete([choices] * agents)
        self.restarts = 0  # games that were lost
        self._played = 0  # episodes that were started in this game
        self._ended = 0  # whole episodes of this environment
        self._failures = 0  # in a row
        self._dead = np.zeros(2)  # allies and enemies
        self._seen: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode. ``seed`` decides the random numbers of a game that is started; those of one that goes on
        are StarCraft II's own."""
        super().reset(seed=seed)
        while True:
            try:
                self._begin(seed or 0)
                self._seen = self._observe()
            except Exception as error:  # SMAC, pysc2, websocket and protobuf have many
                self._fail(error)
            else:
                return self._seen, self._info()

    def step(self, action: Sequence[int]) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take one action per agent."""
        try:
            if self._game is None:
                raise _LostError("there is no game")
            reward, over, own = self._game.step([int(a) for a in action])
            if "battle_won" not in own:
                raise _LostError("SMAC has lost the game and started another one")
            self._seen = self._observe()
            if over:
                self._end_episode()
        except Exception as error:
            self._fail(error)
            return self._seen, 0.0, False, True, self._info(simulator_lost=1)
        late = bool(own.get("episode_limit", False))
        won, dead = own["battle_won"], np.array([own["dead_allies"], own["dead_enemies"]])  # [2]
        if self._battle.reward == "sparse_deaths":
            reward = self._pay_deaths(dead - self._dead, won)
        self._dead = dead
        numbers = {"battle_won": int(won), "dead_allies": int(dead[0]), "dead_enemies": int(dead[1])}
        return self._seen, float(reward), bool(over) and not late, late, self._info(**numbers)

    def close(self) -> None:
        """End the game."""
        if self._game is not None:
            with suppress(Exception):  # whatever is wrong with a game that is to end
                self._game.close()
            self._game = None

    def _begin(self, seed: int) -> None:
        """Have both armies made, in this game or in another one."""
        if self._played >= self._options.restart_every:
            self.close()
        starts = self._game is None
        if starts:
            self._game, self._played = self._build(seed % (1 << 32)), 0
        with one_after_the_other() if starts else nullcontext():
            self._game.reset()
        if self._game.force_restarts:  # whose armies SMAC has not looked at
            raise _LostError("SMAC has lost the game and started another one")
        self._played += 1
        self._dead = np.zeros(2)

    def _build(self, seed: int) -> Any:
        battle, options = self._battle, self._options
        return import_module("smac.env").StarCraft2Env(
            map_name=self._name,
            seed=seed,
            difficulty=options.difficulty,
            game_version=options.game_version,
            replay_dir=str(Path(options.replay_dir).expanduser().resolve()) if options.replay_dir else "",
            continuing_episode=True,  # so that a time-out is told apart
            reward_sparse=battle.reward == "sparse",
            **{name: _plain(getattr(battle, name)) for name in _SAME},
        )

    def _observe(self) -> dict[str, np.ndarray]:
        """obs [n, O], state [S] and avail [n, A]."""
        obs = np.asarray(self._game.get_obs(), np.float32)
        if self._battle.obs_timestep_number:  # SMAC has a 0 before it that its get_obs_size does not count
            obs = np.delete(obs, -2, axis=1)
        whole = self._battle.obs_instead_of_state
        return {
            "obs": obs,
            "state": obs.reshape(-1) if whole else np.asarray(self._game.get_state(), np.float32),
            "avail": np.asarray(self._game.get_avail_actions(), np.int8),
        }

    def _pay_deaths(self, died: np.ndarray, won: bool) -> float:
        """ADER's reward, of what has died in this step."""
        battle = self._battle
        return -0.1 + battle.reward_death_value * died[1] - died[0] + (battle.reward_win if won else 0.0)

    def _end_episode(self) -> None:
        self._failures, self._ended = 0, self._ended + 1
        every = self._options.replay_every
        if every and self._ended % every == 0:
            self._game.save_replay()

    def _fail(self, error: Exception) -> None:
        """End a game that is lost."""
        self.close()
        self.restarts += 1
        self._failures += 1
        name, most = f"smac/{self._name}", self._options.most_failures
        text = " ".join(f"{error if isinstance(error, _LostError) else repr(error)}".split())
        if self._failures > most:
            raise RuntimeError(
                f"{name}: {self._failures} failures in a row (most_failures is {most}), the last one: {text}; "
                f"`emix doctor` looks at the installation"
            ) from error
        print(f"{name}: {text}: the episode is thrown away, another game takes its place", file=sys.stderr, flush=True)

    def _info(self, **numbers: float) -> dict[str, float]:
        return {"simulator_lost": 0, "restarts": self.restarts, **numbers}


def _plain(value: Any) -> Any:
    """2 for 2.0: SMAC's surrounding cells are indices made of ``move_amount``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _LostError(Exception):
    """SMAC's game is over."""


def make_smac(name: str, options: Mapping[str, Any], *, num_envs: int, **batch: Any) -> HostEnv:
    """Build ``smac/<map>``.

    Raises:
        UsageError: a map that SMAC does not have, or an option.
    """
    from emix.envs.host import HostEnv

    battle, game = read_smac(name, options)
    map_name = name.removeprefix("smac/")
    maps = import_module("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry()
    if map_name not in maps:
        raise UsageError(f"{name}: SMAC has no map {map_name!r}: {closest(map_name, maps)}")
    make_env = partial(Smac, map_name, battle, game)
    return HostEnv(
        name,
        make_env,
        episode_limit=maps[map_name]["limit"],
        num_envs=num_envs,
        group_size=1,
        step_seconds=6 * ANSWER_SECONDS,  # three answers, and SMAC's own try to start another game
        # Every environment may have to wait for all others to start, and try again.
        reset_seconds=(game.most_failures + 1) * num_envs * 4 * ANSWER_SECONDS,
        **batch,
    )
