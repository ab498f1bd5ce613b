"""Loops of an update that are recorded once, however often they run."""

from collections.abc import Callable

Loop = Callable[[Callable[[], None], int], None]
"""Runs a body so many times. Where an update is recorded as CUDA graphs, the body's Python runs once and what it
launched is repeated: what changes from one time to the next, such as a counter, must be a tensor that it changes in
place."""


def run_loop(body: Callable[[], None], times: int) -> None:
    """The ordinary ``Loop``."""
    for _ in range(times):
        body()
