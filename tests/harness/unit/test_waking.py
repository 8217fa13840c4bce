"""The script that sets a guest's clock, run by a shell here with other commands in place of those
that would change this host."""

import subprocess

import pytest

from deepops_fixtures.cluster import waking

#: Complains as procps' pkill does where nothing matches a pattern that is longer than a name.
PKILL = """#!/bin/sh
echo "$@" >>{log}
for last; do :; done
[ ${{#last}} -le 15 ] || echo "pkill: pattern ... will result in zero matches." >&2
exit 1
"""


@pytest.fixture
def guest(tmp_path):
    """Return a function that runs the script with this input; it gives the lines it says. The log
    has what was killed."""
    log = tmp_path / "log"
    for name, text in {
        "pkill": PKILL.format(log=log),
        "date": f'#!/bin/sh\necho "date $*" >>{log}\necho 100.5\n',
        "networkctl": "#!/bin/sh\n",
        "chronyc": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(said: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-c", waking._WAKE],
            input=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            timeout=30,
        )
        return done.stdout.splitlines()

    run.log = log
    return run


def test_a_guest_without_slurm_or_chrony_says_nothing_but_that_it_is_ready(guest):
    assert guest("go\n") == ["ready"]


def test_it_tells_what_it_made_of_the_time_each_time_it_is_told(guest):
    assert guest("set 100.25\nset 100.75\ngo\n") == ["ready", "100.5", "100.5"]
    assert "date -u -s @100.75" in guest.log.read_text()


@pytest.mark.parametrize("said", ["set 100.25\ngo\n", ""], ids=["told", "left alone"])
def test_who_judges_by_the_clock_stands_still_until_then_and_goes_on(guest, said):
    guest(said)
    done = [line for line in guest.log.read_text().splitlines() if not line.startswith("date")]
    assert done == [
        "-STOP -x chronyd",
        "-STOP -x slurmctld",
        "-CONT -x chronyd",
        "-CONT -x slurmctld",
    ]
