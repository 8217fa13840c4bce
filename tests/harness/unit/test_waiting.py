"""The one waiter."""

import pytest

from deepops_fixtures.checks import wait_until
from deepops_fixtures.errors import CheckFailed


def test_it_returns_what_was_good():
    seen = iter([1, 2, 3])
    assert wait_until("three", lambda: next(seen), lambda n: n == 3, 5, pause=0.01) == 3


def test_it_names_the_condition_what_was_seen_and_the_evidence():
    with pytest.raises(CheckFailed) as caught:
        wait_until("job 7 ends", lambda: "RUNNING", lambda _: False, 0.05, pause=0.01,
                   evidence=lambda: "slurmd.log:\n…")  # fmt: skip
    assert str(caught.value) == "job 7 ends: not within 0 s; last seen: RUNNING\nslurmd.log:\n…"


def test_evidence_of_one_line_is_in_the_line_that_summaries_repeat():
    with pytest.raises(CheckFailed) as caught:
        wait_until("the clock follows", lambda: "nobody", lambda _: False, 0,
                   evidence=lambda: "no name has an address")  # fmt: skip
    assert str(caught.value) == (
        "the clock follows: not within 0 s; last seen: nobody; no name has an address"
    )


def test_it_looks_at_least_once():
    assert wait_until("now", lambda: True, bool, 0) is True
