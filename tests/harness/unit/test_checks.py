"""What the checks' objects make of what a node says; the nodes are stand-ins."""

from deepops_fixtures import facts
from deepops_fixtures.checks import Munge, Unit, Units
from deepops_fixtures.checks.services import silent_sources
from deepops_fixtures.cluster.vagrant_tool import error_sentence, readable


class Said:
    """A node whose commands all give one output."""

    def __init__(self, name: str, groups: list[str], stdout: str) -> None:
        self.name, self.groups, self._stdout = name, groups, stdout
        self.host = self

    def run(self, *_command: str) -> object:
        class Result:
            stdout = self._stdout
            rc = 0

        return Result


def test_a_unit_is_good_when_it_runs_and_comes_back():
    assert Unit("slurmd.service", "active", "enabled").good
    assert not Unit("slurmd.service", "active", "disabled").good
    assert not Unit("slurmd.service", "inactive", "enabled").good
    assert not Unit("slurmd.service", "failed", "enabled").good


def test_the_units_of_a_node_follow_its_groups():
    node = Said("n", ["slurm-node", "slurm-cluster"], "")
    names = Units().expected(node)
    assert "slurmd.service" in names
    assert "munge.service" in names
    assert "slurmctld.service" not in names


def test_a_unit_that_systemd_does_not_know_is_absent():
    names = facts.UNITS["slurm-node"]
    assert names == ("slurmd.service",)
    node = Said("n", ["slurm-node"], "Id=slurmd.service\nActiveState=inactive\nUnitFileState=\n")
    assert str(Units().of(node)[0]) == "slurmd.service is inactive and absent"


def test_blame_falls_on_the_node_that_agrees_with_no_other():
    munge = Munge.__new__(Munge)
    refusals = {("a", "c"): "Invalid", ("b", "c"): "Invalid", ("c", "a"): "Invalid"}
    assert munge.blame(refusals).startswith("c has another munge key than the rest (a -> c: ")
    refusals[("a", "b")] = "Invalid"
    assert munge.blame(refusals).startswith("munge keys differ (")


def test_vagrants_error_is_found_in_its_output(tmp_path):
    log = tmp_path / "up.log"
    log.write_text(
        "==> virtual-login: Creating domain\nError while activating network: internal error\n"
    )
    assert error_sentence(log).startswith("Error while activating network")
    assert error_sentence(tmp_path / "none") == "it said nothing"


def test_vagrants_sentence_is_found_above_the_trace_that_follows_it(tmp_path):
    log = tmp_path / "up.log"
    log.write_text(
        "==> virtual-login: An error occurred. The error will be shown after all tasks complete.\n"
        "An error occurred while executing multiple actions in parallel.\n"
        "Call to virDomainCreateWithFlags failed: Unable to open file: x.log\n\n"
        + "/usr/share/gems/vagrant/action/runner.rb:101:in `run'\n"
        * 60
    )
    assert error_sentence(log).startswith("Call to virDomainCreateWithFlags failed: Unable to op")


def test_a_console_is_shown_without_terminal_escapes():
    assert readable("\x1b[2J\x1b[1;32mOK\x1b[0m booted\r\n") == "OK booted"


ACTIVITY = """200 OK
{0} sources online
0 sources offline
0 sources doing burst (return to online)
0 sources doing burst (return to offline)
{1} sources with unknown address
"""


def test_a_clock_that_follows_nobody_says_that_no_name_has_an_address():
    said = silent_sources(["0.pool.ntp.org", "ntp.site"], ACTIVITY.format(0, 2), "")
    assert said == (
        "2 of the sources 0.pool.ntp.org, ntp.site have no address: a name cannot be resolved"
    )


def test_a_clock_that_follows_nobody_says_which_source_is_silent_and_which_is_doubted():
    sources = (
        "^,?,192.0.2.5,0,6,0,4294967295,0.000000000,0.000000000,0.000000000\n"
        "^,x,192.0.2.6,2,6,377,11,-3600.000000000,0.000012345,0.000034567\n"
        "^,?,192.0.2.7,0,6,1,11,0.000000000,0.000012345,0.000034567\n"
    )
    assert silent_sources(["a", "b", "c"], ACTIVITY.format(3, 0), sources) == (
        "source 192.0.2.5 does not answer; "
        "source 192.0.2.6 answers, but its time disagrees with that of most others; "
        "source 192.0.2.7 answers, but its time is not usable "
        "(not synchronised itself, or too few answers yet)"
    )


def test_a_clock_that_follows_nobody_says_that_there_is_nobody_or_no_decision_yet():
    assert "name no server" in silent_sources([], ACTIVITY.format(0, 0), "")
    assert "has not decided yet" in silent_sources(["a"], ACTIVITY.format(1, 0), "")
