"""Where a run's time goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Seconds spent in named phases since it was made.

    On a GPU it is the host's time: a phase that only queues kernels looks short, and the one that waits for them long.
    """

    def __init__(self) -> None:
        self.started = perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the ``with`` block to ``phase``."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start

    def elapsed(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self.started

    def shares(self) -> dict[str, float]:
        """Fraction of the elapsed time in each phase."""
        elapsed = self.elapsed()
        return {phase: seconds / elapsed for phase, seconds in self.seconds.items()}
