"""A process of StarCraft II: its start, the questions that SMAC's task and `emix sc2 check` need, and its end."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from s2clientprotocol import common_pb2, data_pb2, debug_pb2, raw_pb2, sc2api_pb2

from emix.envs.sc2.connection import Connection, LostError
from emix.envs.sc2.locate import Installation
from emix.envs.sc2.turns import one_after_the_other

START_SECONDS = 120.0  # until the game listens; and for loading a map
_END_SECONDS = 5.0
RACES = {
    **dict.fromkeys((48, 51, 54), common_pb2.Terran),
    **dict.fromkeys((4, 73, 74), common_pb2.Protoss),
    **dict.fromkeys((9, 98, 105, 107), common_pb2.Zerg),
}
"""Of the types of units that SMAC's maps have."""
DIFFICULTIES = {
    "1": sc2api_pb2.VeryEasy,
    "2": sc2api_pb2.Easy,
    "3": sc2api_pb2.Medium,
    "4": sc2api_pb2.MediumHard,
    "5": sc2api_pb2.Hard,
    "6": sc2api_pb2.Harder,
    "7": sc2api_pb2.VeryHard,
    "8": sc2api_pb2.CheatVision,
    "9": sc2api_pb2.CheatMoney,
    "A": sc2api_pb2.CheatInsane,
}
STOP, MOVE, ATTACK, HEAL = 4, 16, 23, 386  # abilities


class Game:
    """StarCraft II, playing ``map_file``. Its process is ended by ``close``, with this object, and with this process,
    however that ends.

    Args:
        installation: which.
        map_file: a map's file.
        types: a type of unit of either side, which says its race.
        seed: of the game's random numbers, from 0 to 2^32 - 1.
        difficulty: SMAC's, "1" to "9" and "A".
        seconds: for every answer.

    Raises:
        LostError: it does not start.
    """

    def __init__(
        self,
        installation: Installation,
        map_file: Path,
        types: tuple[int, int],
        *,
        seed: int,
        difficulty: str,
        seconds: float,
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="emix-sc2-")
        self._processes: list[subprocess.Popen] = []  # one, once it is started
        self._connection: Connection | None = None
        self._end = weakref.finalize(self, _clean_up, self._folder, self._processes)
        try:
            with one_after_the_other():
                self._start(installation, seconds)
                self._ask("ping", sc2api_pb2.RequestPing())
                self._create(map_file, types, seed, difficulty)
        except BaseException:
            self.kill()
            raise

    def info(self) -> sc2api_pb2.ResponseGameInfo:
        """The map's sizes and terrain."""
        return self._ask("game_info", sc2api_pb2.RequestGameInfo())

    def unit_data(self) -> dict[int, data_pb2.UnitTypeData]:
        """What the game says of each type of unit: its weapons, speed and armour."""
        units = self._ask("data", sc2api_pb2.RequestData(unit_type_id=True)).units
        return {unit.unit_id: unit for unit in units}

    def observe(self) -> raw_pb2.ObservationRaw:
        """The units that are there."""
        return self._ask("observation", sc2api_pb2.RequestObservation()).observation.raw_data

    def act(self, commands: Iterable[raw_pb2.ActionRawUnitCommand]) -> None:
        """Give orders, which the next ``step`` carries out."""
        actions = [sc2api_pb2.Action(action_raw=raw_pb2.ActionRaw(unit_command=command)) for command in commands]
        self._ask("action", sc2api_pb2.RequestAction(actions=actions))

    def step(self, loops: int) -> None:
        """Play so many game loops, 1/16 s each."""
        self._ask("step", sc2api_pb2.RequestStep(count=loops))

    def kill_units(self, tags: Iterable[int]) -> None:
        """Remove units; where none are left, SMAC's maps make both armies anew."""
        command = debug_pb2.DebugCommand(kill_unit=debug_pb2.DebugKillUnit(tag=tags))
        self._ask("debug", sc2api_pb2.RequestDebug(debug=[command]))

    def replay(self) -> bytes:
        """All that was played since the start, as a file that StarCraft II shows."""
        return self._ask("save_replay", sc2api_pb2.RequestSaveReplay(), seconds=START_SECONDS).data

    def close(self) -> None:
        """Let the game end, end its process and delete its folder. It may be called twice."""
        if self._connection is not None:
            with suppress(Exception):  # whatever is wrong with a game that is to end
                self._connection.quit()
                self._processes[0].wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process of a game that is lost, without asking it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._end()

    def _ask(self, kind: str, message: Any, seconds: float | None = None) -> Any:
        if self._connection is None:
            raise LostError("the game is closed")
        return self._connection.ask(kind, message, seconds=seconds)

    def _start(self, installation: Installation, seconds: float) -> None:
        port = _free_port()
        command = [
            str(installation.executable),
            *("-listen", "127.0.0.1", "-port", str(port)),
            *("-dataDir", str(installation.root), "-tempDir", self._folder, "-displayMode", "0"),
        ]
        libraries = installation.root / "Libs"
        environment = os.environ | {"LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
        try:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment if libraries.is_dir() else None,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for who plays, who then closes the game
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            raise LostError(f"{installation.executable} does not start: {error.strerror or error}") from error
        self._processes.append(process)
        self._connection = Connection(
            port, start_seconds=START_SECONDS, seconds=seconds, alive=lambda: process.poll() is None
        )

    def _create(self, map_file: Path, types: tuple[int, int], seed: int, difficulty: str) -> None:
        own, other = (RACES.get(kind, common_pb2.Random) for kind in types)
        create = sc2api_pb2.RequestCreateGame(
            local_map=sc2api_pb2.LocalMap(map_path=str(map_file), map_data=map_file.read_bytes()),
            realtime=False,
            random_seed=seed,
        )
        create.player_setup.add(type=sc2api_pb2.Participant)
        create.player_setup.add(type=sc2api_pb2.Computer, race=other, difficulty=DIFFICULTIES[difficulty])
        created = self._ask("create_game", create, seconds=START_SECONDS)
        if created.HasField("error"):
            raise LostError(f"the game cannot load {map_file}: {created.error_details or created.error}")
        options = sc2api_pb2.InterfaceOptions(raw=True, score=False)
        join = sc2api_pb2.RequestJoinGame(race=own, options=options)
        joined = self._ask("join_game", join, seconds=START_SECONDS)
        if joined.HasField("error"):
            raise LostError(f"the game cannot be joined: {joined.error_details or joined.error}")


def _clean_up(folder: str, processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _die_with_parent() -> None:
    """In the child, before the game: let Linux kill it with the process that started it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
