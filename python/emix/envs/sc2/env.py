"""``sc2/<map>``: episodes of StarCraft II, each in the process of its environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.battle.fields import LOOPS, TRAIT
from emix.envs.battle.maps import ALIASES
from emix.envs.battle.scenario import Scenario, make_scenario
from emix.envs.sc2.connection import LostError
from emix.envs.sc2.game import START_SECONDS, Game
from emix.envs.sc2.locate import Installation, find_game, find_map
from emix.envs.sc2.options import GameOptions, read_both
from emix.envs.sc2.units import Units
from emix.errors import UsageError

if TYPE_CHECKING:
    from s2clientprotocol import data_pb2, raw_pb2

    from emix.envs.host import HostEnv

_MOST_WAITING = 200  # game loops until both armies are there


class SC2Battle(gymnasium.Env):
    """One game of StarCraft II with the observation that ``emix.envs.HostEnv`` reads.

    The first ``reset`` starts the game; later ones kill all units, and the map's trigger makes both armies anew. A game
    that does not answer is ended, and the episode with it: ``truncated``, with ``info["simulator_lost"]`` 1, so that
    whoever plays throws it away; the next ``reset`` starts another game. ``info["restarts"]`` counts the games
    that were lost.

    Args:
        scenario: the task.
        options: of the game.
        installation: StarCraft II.
        map_file: the map.

    Raises:
        RuntimeError: in ``reset`` and ``step``, after more than ``options.most_failures`` failures in a row.
    """

    def __init__(self, scenario: Scenario, options: GameOptions, installation: Installation, map_file: Path) -> None:
        spec = scenario.spec
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (spec.n_agents, spec.obs_dim), np.float32),
            state=spaces.Box(-np.inf, np.inf, (spec.state_dim,), np.float32),
            avail=spaces.MultiBinary((spec.n_agents, spec.n_actions)),
        )
        self.action_space = spaces.MultiDiscrete([spec.n_actions] * spec.n_agents)
        self.units = Units(scenario)
        self.restarts = 0  # games that were lost
        self._scenario, self._options = scenario, options
        self._installation, self._map_file = installation, map_file
        self._game: Game | None = None
        self._played = 0  # episodes that were started in this game
        self._ended = 0  # whole episodes of this environment
        self._failures = 0  # in a row
        self._seen: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode. ``seed`` decides the order of shuffled enemies and the random numbers of a game that is
        started; those of one that goes on are StarCraft II's own."""
        super().reset(seed=seed)
        while True:
            try:
                self._begin(seed or 0)
            except LostError as error:
                self._fail(error)
            else:
                break
        self._seen = self.units.observe()
        return self._seen, self._info()

    def step(self, action: Sequence[int]) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take one action per agent: 8 game loops."""
        try:
            game = self._running()
            before = self.units.life()  # [slots]
            game.act(self.units.orders([int(a) for a in action]))
            game.step(LOOPS)
            self.units.update(game.observe().units)
            score = self.units.score(before)
            if score.terminated or score.truncated:
                self._end_episode(game)
        except LostError as error:
            self._fail(error)
            return self._seen, 0.0, False, True, self._info(simulator_lost=1)
        self._seen = self.units.observe()
        info = self._info(**{name: getattr(score, name) for name in ("battle_won", "dead_allies", "dead_enemies")})
        return self._seen, score.reward, score.terminated, score.truncated, info

    def unit_data(self) -> dict[int, tuple[raw_pb2.Unit, data_pb2.UnitTypeData]]:
        """The units that live, by slot, and what the game says of their types."""
        game, slots = self._running(), self.units.tags
        data = game.unit_data()
        return {slots[unit.tag]: (unit, data[unit.unit_type]) for unit in game.observe().units if unit.tag in slots}

    def save_replay(self) -> Path:
        """Write all that this game has played as ``<replay_dir>/<map>_<process>_<episodes>.SC2Replay``; its path."""
        folder = Path(self._options.replay_dir).expanduser()
        path = folder / f"{self._map_file.stem}_{os.getpid()}_{self._ended}.SC2Replay"
        data = self._running().replay()
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def close(self) -> None:
        """End the game."""
        if self._game is not None:
            self._game.close()
            self._game = None

    def _begin(self, seed: int) -> None:
        """Have both armies made, in this game or in another one."""
        if self._played >= self._options.restart_every:
            self.close()
        if self._game is None:
            self._launch(seed)
        else:
            self._game.kill_units(unit.tag for unit in self._game.observe().units if unit.owner in (1, 2))
            self._game.step(2)
        game = self._running()
        self._played += 1
        seen = game.observe().units
        for _ in range(_MOST_WAITING):
            if self.units.complete(seen):
                break
            game.step(1)
            seen = game.observe().units
        else:
            raise LostError(f"the map has not made both armies within {_MOST_WAITING} game loops")
        self.units.begin(seen, np.random.default_rng(seed))

    def _launch(self, seed: int) -> None:
        types = self._scenario.traits[TRAIT["type"], [0, self._scenario.enemy_slot]].tolist()
        options = self._options
        self._game = Game(
            self._installation,
            self._map_file,
            (types[0], types[1]),
            seed=seed % (1 << 32),
            difficulty=options.difficulty,
            seconds=options.answer_seconds,
        )
        self._played = 0
        self.units.read_map(self._game.info())

    def _end_episode(self, game: Game) -> None:
        self._failures, self._ended = 0, self._ended + 1
        every = self._options.replay_every
        if every and self._ended % every == 0:
            self.save_replay()

    def _fail(self, error: LostError) -> None:
        """End a game that is lost."""
        if self._game is not None:
            self._game.kill()
            self._game = None
        self.restarts += 1
        self._failures += 1
        name, most = self._scenario.spec.name, self._options.most_failures
        if self._failures > most:
            raise RuntimeError(
                f"{name}: {self._failures} failures in a row (most_failures is {most}), the last one: {error}; "
                f"`emix doctor` looks at the installation"
            ) from error
        print(f"{name}: {error}: the episode is thrown away, another game takes its place", file=sys.stderr, flush=True)

    def _running(self) -> Game:
        if self._game is None:
            raise LostError("there is no game")
        return self._game

    def _info(self, **numbers: float) -> dict[str, float]:
        return {"simulator_lost": 0, "restarts": self.restarts, **numbers}


def make_sc2(name: str, options: Mapping[str, Any], *, num_envs: int, **batch: Any) -> HostEnv:
    """Build ``sc2/<map>``; the map is a name of the battle's, or the path of a YAML file that describes it.

    Raises:
        UsageError: an unknown map or option, or StarCraft II, the map or a package is not there.
    """
    from emix.envs.host import HostEnv

    scenario, game, make_env = read_task(name, options)
    return HostEnv(
        name,
        make_env,
        episode_limit=scenario.spec.episode_limit,
        num_envs=num_envs,
        group_size=1,
        step_seconds=3 * game.answer_seconds + START_SECONDS,  # three answers, or a replay that is written
        # Every environment may have to wait for all others to start, and try again.
        reset_seconds=(game.most_failures + 1) * num_envs * (3 * START_SECONDS + game.answer_seconds),
        **batch,
    )


def read_task(name: str, options: Mapping[str, Any]) -> tuple[Scenario, GameOptions, partial[SC2Battle]]:
    """The battle, the game's options and what makes an environment of ``sc2/<map>``.

    Raises:
        UsageError: an unknown map or option, or StarCraft II or the map is not there.
    """
    battle, game = read_both(name, options)
    map_name = name.removeprefix("sc2/")
    scenario = make_scenario(name, map_name, battle)
    try:
        installation = find_game(game.build)
        map_file = find_map(installation, ALIASES.get(map_name, Path(map_name).stem))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return scenario, game, partial(SC2Battle, scenario, game, installation, map_file)
