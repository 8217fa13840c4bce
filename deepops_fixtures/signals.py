"""Ctrl-C, SIGTERM and SIGHUP: each ends the run in order, teardown included; a second Ctrl-C ends
the teardown.

pytest turns SIGINT into KeyboardInterrupt and knows nothing of the other two: by default they end
the process on the spot and leave the virtual machines behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_HANDLED = (signal.SIGTERM, signal.SIGHUP)
_previous: dict[int, Any] = {}
_owner = 0
_ended: Callable[[str, int], object] | None = None
_received: list[int] = []


def _end(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _owner:
        # A forked child (not an exec'd one) inherits the handler and not the duty.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    name = signal.Signals(number).name
    if _ended:
        _received.append(number)
        _ended(f"received {name}; tearing down", 128 + number)
    raise Ended(f"received {name}", 128 + number)


class Ended(BaseException):
    """SIGTERM or SIGHUP arrived; ``status`` is the exit status to end with (128 + signal)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def install(on_end: Callable[[str, int], object] | None = None) -> None:
    """Turn SIGTERM and SIGHUP into an exception: the one ``on_end(message, status)`` raises, else
    Ended."""
    global _owner, _ended
    _owner, _ended = os.getpid(), on_end
    for number in _HANDLED:
        try:
            _previous[number] = signal.signal(number, _end)
        except ValueError:  # not the main thread: pytest runs inside something else
            return


def insist() -> None:
    """Raise once more what the last signal asked for, if one came: while tests are collected,
    pytest takes the first time for an error of the file that it was at, and goes on."""
    if _received:
        _end(_received[-1], None)


def restore() -> None:
    """Put back what was there before ``install``."""
    _received.clear()
    while _previous:
        number, handler = _previous.popitem()
        signal.signal(number, handler)


@contextmanager
def teardown() -> Iterator[None]:
    """While the teardown runs, SIGTERM and SIGHUP wait for it; Ctrl-C interrupts it, with a
    message."""
    previous = {}
    for number in _HANDLED:
        try:
            previous[number] = signal.signal(number, signal.SIG_IGN)
        except ValueError:
            break
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
