"""Signals that ask a training, or a sweep of them, to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from emix.training.progress import Progress


class StopRequest:
    """Set by a signal: a training saves a checkpoint at the end of the rollout and returns."""

    signal: signal.Signals | None = None


@contextmanager
def stop_on_signals(progress: Progress) -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGHUP set the request. A further Ctrl-C raises ``KeyboardInterrupt``: the last checkpoint
    counts. One more ends the process on the spot, whatever it waits for: what is on the disk is whole at every moment.

    In another thread than the main one, which alone may handle signals, nothing is handled.

    Args:
        progress: says that the request was heard.
    """
    stop, interrupts = StopRequest(), 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        if stop.signal is None:
            stop.signal = signal.Signals(number)
            with suppress(Exception):  # such as that the interrupted line was writing, too
                progress.say("stopping after these episodes, with a checkpoint (Ctrl-C again: at once, without)")
        elif number == signal.SIGINT:
            interrupts += 1
            if interrupts > 1:
                end_at_once(number)
            raise KeyboardInterrupt

    with handled(handle):
        yield stop


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP, where this is the main thread; what is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: set by another language, and cannot be put back


def end_at_once(number: int) -> None:
    """End this process as the signal would, and its environments' workers, without waiting for anything."""
    with suppress(OSError):
        os.write(2, b"emix: ended on the spot\n")
    for child in multiprocessing.active_children():
        child.kill()  # one that hangs would not notice that it is alone
    os._exit(128 + number)
