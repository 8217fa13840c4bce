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
                   evidence=lambda: "slurmd.log: …")  # fmt: skip
    assert str(caught.value) == "job 7 ends: not within 0 s; last seen: RUNNING\nslurmd.log: …"


def test_it_looks_at_least_once():
    assert wait_until("now", lambda: True, bool, 0) is True
