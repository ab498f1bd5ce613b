"""The worker processes of a host environment, with a deadline for every wait. Never imports torch."""

from __future__ import annotations

import time
from multiprocessing import connection
from typing import Any

from gymnasium.vector import AsyncVectorEnv

START_SECONDS = 300.0  # until a worker has been started and has imported its environment
RESET_SECONDS = 300.0  # for a reset: the first builds the simulators
STEP_SECONDS = 60.0
CLOSE_SECONDS = 10.0  # for closing the simulators, before the worker is killed
_SLICE = 1.0


class HungError(Exception):
    """Worker number ``worker`` has not answered within ``seconds``."""

    def __init__(self, worker: int, seconds: float) -> None:
        super().__init__(worker, seconds)
        self.worker, self.seconds = worker, seconds


class Workers(AsyncVectorEnv):
    """``AsyncVectorEnv``, which waits for ever for a worker that hangs, or that somebody has stopped, with deadlines.

    ``reset`` and ``step`` raise ``HungError``. So does the start, after it has killed the workers.
    """

    reset_seconds: float | None = None  # where a simulator needs others than the module's
    step_seconds: float | None = None

    def reset(self, **options: Any) -> Any:
        """Start episodes."""
        self.reset_async(**options)
        self._await(self.reset_seconds or RESET_SECONDS)
        return self.reset_wait()

    def step(self, actions: Any) -> Any:
        """Take actions."""
        self.step_async(actions)
        self._await(self.step_seconds or STEP_SECONDS)
        return self.step_wait()

    def end(self) -> None:
        """Stop the workers: one that does not close its environments in time is killed, also where this is cut short
        by Ctrl-C."""
        if self.closed:
            return
        self.closed = True
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            for pipe in self.parent_pipes:
                try:
                    pipe.send(("close", None))
                except OSError:  # that worker is dead already
                    continue
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
            for process in self.processes:
                process.join(CLOSE_SECONDS)  # one in the kernel's hands may take longer; it is no use to wait for it
            for pipe in self.parent_pipes:
                pipe.close()
            self.error_queue.close()

    def _check_spaces(self) -> None:
        """What the start does last: wait until every worker is there."""
        try:
            for pipe in self.parent_pipes:
                pipe.send(("_check_spaces", (None, None)))
            self._await(START_SECONDS)
            for pipe in self.parent_pipes:
                pipe.recv()
        except BaseException:
            for process in self.processes:
                process.kill()
            self.end()
            raise

    def _await(self, seconds: float) -> None:
        """Wait until every pipe has an answer, or its end. Only time in which this process runs itself counts: where
        the whole job was suspended, the workers have not been slow."""
        pending: dict[Any, int] = {pipe: worker for worker, pipe in enumerate(self.parent_pipes)}
        left = seconds
        while pending:
            before = time.monotonic()
            for pipe in connection.wait(list(pending), timeout=min(_SLICE, left)):
                del pending[pipe]
            left -= min(_SLICE, time.monotonic() - before)
            if pending and left <= 0:
                raise HungError(min(pending.values()), seconds)
