"""The one waiter of the checks: a deadline, a named condition, and what was last seen when it
passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deepops_fixtures.errors import CheckFailed
from deepops_fixtures.proc import Deadline

_T = TypeVar("_T")


def wait_until(
    what: str,
    look: Callable[[], _T],
    good: Callable[[_T], bool],
    seconds: float,
    *,
    pause: float = 0.5,
    evidence: Callable[[], str] | None = None,
) -> _T:
    """Look again and again until ``good``; return what was seen then.

    Raises CheckFailed naming the condition, what was last seen, and ``evidence`` gathered at that
    moment: in the same line when it is one line, which reports and summaries repeat.
    """
    __tracebackhide__ = True
    deadline = Deadline.after(seconds)
    while True:
        seen = look()
        if good(seen):
            return seen
        if deadline.passed:
            more = evidence() if evidence else ""
            joint = ("\n" if "\n" in more else "; ") if more else ""
            told = f"{what}: not within {seconds:.0f} s; last seen: {seen}{joint}{more}"
            raise CheckFailed(told)
        time.sleep(pause)
