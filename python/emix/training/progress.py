"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from emix.training.listener import Listener, clock

WINDOW = 30.0  # seconds over which the speed is measured; since the start, it would hide that a run became slower
PHASES = ("env", "inference", "update", "test")
TESTS = {"test_battle_won_mean": "test win rate", "test_return_mean": "test return"}


class Bar(RichProgress):
    """Rich's bar with a line of numbers below, so that it fits into 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the line."""
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["numbers"], no_wrap=True) for task in self.tasks)


class Progress:
    """Shows steps, speed, return or win rate, where the time goes, and the time left. It changes none of the numbers.

    Args:
        total: environment steps of the run.
        start: environment steps already done.
        output: where to; a bar where that is a terminal, else one line per row of the metrics.
    """

    def __init__(self, total: int, *, start: int = 0, output: TextIO | None = None) -> None:
        self.total = total
        self.output = Listener(output or sys.stdout)
        self.history: deque[tuple[float, int]] = deque([(perf_counter(), start)])
        self.latest: dict[str, float] = {}
        self.bar: Bar | None = None
        self.start(start)

    def start(self, env_steps: int) -> None:
        """Begin to show, from so many environment steps on."""
        self.history = deque([(perf_counter(), env_steps)])
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=env_steps)
        elif self.output.isatty():
            self.bar = _make_bar(self.output, self.total, env_steps)

    def advance(self, env_steps: int, shares: Mapping[str, float] | None = None) -> None:
        """Once a rollout, with the shares of the time in each phase since the last row."""
        now = perf_counter()
        if shares:
            self.latest |= {f"frac_{phase}": shares.get(phase, 0.0) for phase in PHASES}
        self.history.append((now, env_steps))
        while len(self.history) > 2 and self.history[0][0] < now - WINDOW:
            self.history.popleft()
        if self.bar is not None:
            numbers, speed = self._numbers(), f"{self.speed():,.0f} steps/s"
            self.bar.update(self.bar.task_ids[0], completed=env_steps, numbers=numbers, speed=speed)

    def speed(self) -> float:
        """Environment steps per second over the last half minute; 0 before the first rollout."""
        (start, first), (end, last) = self.history[0], self.history[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def log(self, env_steps: int, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Once a row of the metrics."""
        self.latest |= {**dict.fromkeys((f"frac_{phase}" for phase in PHASES), 0.0), **row, **timing}
        if self.bar is None:
            speed = f"{timing['steps_per_s']:,.0f} steps/s"
            self.say(f"{env_steps:>11,}/{self.total:,}  {speed:>14}  {self._numbers()}  {self._time_left(env_steps)}")
        elif any(name.startswith("test_") for name in row):  # the history of tests stays above the bar
            tests = "  ".join(f"{label} {row[name]:.3f}" for name, label in TESTS.items() if name in row)
            self.say(f"{env_steps:>11,}  {tests}")

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            self.output.say(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.stop()

    def _numbers(self) -> str:
        """Win rate where the environment has one, else return, in training and in test; then the shares of the time."""
        metric = "battle_won_mean" if "test_battle_won_mean" in self.latest else "return_mean"
        label = "win rate" if metric == "battle_won_mean" else "return"
        names = {metric: label, f"test_{metric}": f"test {label}"}
        values = [f"{label} {self.latest[name]:.3f}" for name, label in names.items() if name in self.latest]
        shares = [f"{phase} {self.latest[f'frac_{phase}']:.0%}" for phase in PHASES if f"frac_{phase}" in self.latest]
        return "  ".join([*values, " ".join(shares)])

    def _time_left(self, env_steps: int) -> str:
        speed, left = self.speed(), self.total - env_steps
        return f"{clock(left / speed)} left" if speed and left > 0 else ""


def _make_bar(output: Any, total: int, start: int) -> Bar:
    bar = Bar(
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(file=output),
        speed_estimate_period=WINDOW,
        expand=True,
    )
    bar.add_task("train", total=total, completed=start, numbers="", speed="")
    bar.start()
    return bar
