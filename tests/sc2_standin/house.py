"""Where the stand-in's games are played, and a folder that looks like StarCraft II."""

from __future__ import annotations

import os
import shlex
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from emix.envs.battle import list_maps
from tests.sc2_standin.game import Game

BUILD = 75689
DEEDS = {"die": b"d", "cut": b"c", "silence": b"s", "nonsense": b"a"}


class House:
    """All games of a test: each process of the stand-in that connects gets its own, in a thread.

    Args:
        folder: to become a StarCraft II, with SMAC's maps, whose ``SC2PATH`` it is.
        fault: called with the number of the game and the kind of each request; says what befalls it: "die", "cut",
            "silence", "nonsense", or None.
        old: whether the terrain is as older games have it.
        options: of the battles.
    """

    def __init__(
        self, folder: Path, *, fault: Callable[[int, str], str | None] | None = None, old: bool = False, **options
    ) -> None:
        self.folder, self.fault = folder, fault or (lambda game, kind: None)
        self.games: list[Game] = []
        self.requests: list[str] = []  # kinds, in their order
        self.faults: list[str] = []
        self.ended: list[tuple[int, float]] = []  # length and return of each battle whose end has been shown
        self._options, self._old, self._lock = options, old, threading.Lock()
        self._home = tempfile.mkdtemp(prefix="standin-")  # short: a socket's path has at most 107 letters
        self._server = socket.socket(socket.AF_UNIX)
        self.path = f"{self._home}/house"
        self._server.bind(self.path)
        self._server.listen()
        self._install()
        threading.Thread(target=self._welcome, daemon=True).start()

    def close(self) -> None:
        self._server.close()
        for path in Path(self._home).iterdir():
            path.unlink()
        os.rmdir(self._home)

    def _install(self) -> None:
        executable = self.folder / "Versions" / f"Base{BUILD}" / "SC2_x64"
        executable.parent.mkdir(parents=True)
        script = Path(__file__).with_name("process.py")
        command = shlex.join([sys.executable, str(script), self.path])
        executable.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        executable.chmod(0o755)
        maps = self.folder / "Maps" / "SMAC_Maps"
        maps.mkdir(parents=True)
        for name in list_maps():
            (maps / f"{name}.SC2Map").write_bytes(b"a map")

    def _welcome(self) -> None:
        while True:
            try:
                pipe, _ = self._server.accept()
            except OSError:
                return  # closed
            with self._lock:
                game = Game(self._options, self._old)
                self.games.append(game)
                number = len(self.games) - 1
            threading.Thread(target=self._play, args=(pipe, game, number), daemon=True).start()

    def _play(self, pipe: socket.socket, game: Game, number: int) -> None:
        with pipe:
            while head := pipe.recv(4, socket.MSG_WAITALL):
                data = pipe.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL)
                kind = game.kind(data)
                with self._lock:
                    self.requests.append(kind)
                    fault = self.fault(number, kind)
                    if fault:
                        self.faults.append(fault)
                answer = game.answer(data)
                deed = b"q" if answer is None else DEEDS.get(fault, b"a")
                answer = b"\xff\x00\xffnonsense" if fault == "nonsense" else answer or b""
                if kind == "observation" and not fault and game.length and game.now.done.item():
                    self.ended.append((game.length, game.total))
                    game.length = 0
                try:
                    pipe.sendall(struct.pack("!cI", deed, len(answer)) + answer)
                except OSError:
                    return
