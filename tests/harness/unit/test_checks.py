"""What the checks' objects make of what a node says; the nodes are stand-ins."""

from deepops_fixtures import facts
from deepops_fixtures.checks import Munge, Unit, Units
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
