"""Questions to StarCraft II and its answers: protobuf messages over a websocket, with a time-out for every answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import websocket
from google.protobuf.message import DecodeError, Message
from s2clientprotocol import sc2api_pb2

_RETRY_SECONDS = 0.25


class LostError(Exception):
    """The game does not answer any more, or not in time, or not what was asked: this game is over."""


class Connection:
    """A websocket to the game that listens on ``port`` of this machine.

    Args:
        port: where the game listens.
        start_seconds: for which it is tried again: the game needs a while before it listens.
        seconds: for every answer.
        alive: says whether the game's process still runs.

    Raises:
        LostError: there is no connection.
    """

    def __init__(self, port: int, *, start_seconds: float, seconds: float, alive: Callable[[], bool]) -> None:
        self._asked = 0
        self._socket: Any = None
        deadline = time.monotonic() + start_seconds
        while self._socket is None:
            try:
                self._socket = websocket.create_connection(
                    f"ws://127.0.0.1:{port}/sc2api", timeout=seconds, http_no_proxy=["127.0.0.1"]
                )
            except (OSError, websocket.WebSocketException) as error:
                if not alive():
                    raise LostError("the game's process ended while it started") from error
                if time.monotonic() > deadline:
                    raise LostError(f"the game does not listen after {start_seconds:g} seconds") from error
                time.sleep(_RETRY_SECONDS)

    def ask(self, kind: str, message: Message, *, seconds: float | None = None) -> Any:
        """Send a request of the kind ``kind``, a field of ``Request``, and return that field of the answer.

        Raises:
            LostError: no answer within ``seconds`` (else the connection's), the connection is gone, or what came is no
                answer to the question.
        """
        self._asked += 1
        request = sc2api_pb2.Request(id=self._asked)
        getattr(request, kind).CopyFrom(message)
        getattr(request, kind).SetInParent()  # a message without fields, too
        if seconds is not None:
            usual = self._socket.gettimeout()
            self._socket.settimeout(seconds)
        try:
            self._socket.send_binary(request.SerializeToString())
            data = self._receive()
        except websocket.WebSocketTimeoutException as error:
            raise LostError(f"no answer to {kind} within {self._socket.gettimeout():g} seconds") from error
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise LostError(f"the connection was lost at {kind} ({error or type(error).__name__})") from error
        if seconds is not None:
            self._socket.settimeout(usual)
        return self._read(kind, data)

    def quit(self) -> None:
        """Ask the game to quit, which it does without an answer."""
        self._socket.settimeout(1.0)
        self._socket.send_binary(sc2api_pb2.Request(quit=sc2api_pb2.RequestQuit()).SerializeToString())

    def close(self) -> None:
        """Close the connection."""
        self._socket.shutdown()

    def _receive(self) -> bytes:
        """The next message."""
        opcode, data = self._socket.recv_data()
        if opcode not in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT):
            raise LostError("the game closed the connection")
        return data

    def _read(self, kind: str, data: bytes) -> Any:
        try:
            response = sc2api_pb2.Response.FromString(data)
        except DecodeError as error:
            raise LostError(f"the answer to {kind} is no message of StarCraft II") from error
        if response.error:
            raise LostError(f"the game refuses {kind}: {'; '.join(response.error)}")
        if response.id != self._asked or not response.HasField(kind):
            raise LostError(f"the answer to {kind} is one to something else")
        return getattr(response, kind)
