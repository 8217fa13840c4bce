"""Tests of a run that upgrades run twice, all of the first phase before the upgrade; machines and
playbooks are fakes, the node is this host."""

import pytest

#: A cluster that is there at once; each deployment is noted.
FAKES = """
import json
from deepops_fixtures import rehearsal, subject, upgrade
from deepops_fixtures.cluster.running import NodeData, RunningCluster

subject.Chosen.source = "distro"
upgrade.refuse_source = lambda *_: None

def up(self):
    (self.run_dir / "stages").mkdir(parents=True, exist_ok=True)
    nodes = [NodeData(name=node.name, groups=node.groups, connection="local")
             for node in self.planned_nodes()]
    running = RunningCluster(name="x", provider="vagrant", nodes=nodes, inventory=self.run_dir)
    (self.run_dir / "cluster.json").write_text(running.model_dump_json())
    return running

def note(what):
    with open("order", "a") as order:
        print(what, file=order)

def deployed(self):
    running = self.ensure_up()
    self.stages.once("deployed", lambda: note("DEPLOY"))
    return running

def upgraded(self, running):
    note("UPGRADE")
    {outcome}

Rehearsal = rehearsal.Rehearsal
Rehearsal.preflight = lambda self: None
Rehearsal.ensure_up, Rehearsal.ensure_deployed, Rehearsal._upgrade = up, deployed, upgraded
Rehearsal.down = lambda self, failed: ""
Rehearsal.remember_baseline = Rehearsal.go_back = lambda self: None
"""
TESTS = """
import pytest

def note(what):
    with open("order", "a") as order:
        print(what, file=order)

@pytest.mark.destructive
def test_reboot(deepops): note("reboot")

@pytest.mark.nodes("slurm-node")
def test_node(node): note(node.name)

def test_slurm(slurm, deepops_phase):
    note(f"slurm {deepops_phase}")
    assert deepops_phase != "after" or not BREAKS

def test_machines(virtual_cluster): note("machines")

def test_plain(): note("plain")
"""
CLUSTER = """\
box: debian12
deployment: [slurm]
nodes:
  virtual-login: {groups: [slurm-master], cpus: 1, memory: 512, disk: 8, address: 11}
  virtual-gpu01: {groups: [slurm-node], cpus: 1, memory: 512, disk: 8, address: 12}
"""


@pytest.fixture
def upgrade(run, pytester):
    """Return a function that runs the tests with an upgrade; what happened, in its order, is in
    'order' then."""

    def upgrade(*arguments, breaks=False, outcome="pass"):
        pytester.makeconftest(FAKES.replace("{outcome}", outcome))
        pytester.makepyfile(TESTS.replace("BREAKS", str(breaks)))
        cluster = pytester.makefile(".yml", mine=CLUSTER)
        options = ("--deepops-cluster", cluster, "--deepops-upgrade-from", "26.05")
        return run(*options, "-rA", *arguments)

    return upgrade


def test_what_looks_at_the_deployment_runs_before_and_after_and_breaks_nothing_before(
    upgrade, pytester
):
    result = upgrade()
    result.assert_outcomes(passed=7)
    order = (pytester.path / "order").read_text().splitlines()
    middle = order.index("UPGRADE")
    assert order.index("DEPLOY") < order.index("slurm before")
    assert {"slurm before", "virtual-gpu01"} <= set(order[:middle])
    assert order[middle + 1 :] == ["virtual-gpu01", "slurm after", "reboot"]
    assert order.count("machines") == order.count("plain") == 1
    result.stdout.fnmatch_lines(
        [
            "*deployed by slurm-cluster.yml (distro), then upgraded by slurm-cluster.yml (distro)",
            "upgrade: the upgrade breaks nothing",
            "  before, slurm-cluster.yml (distro): 2 passed",
            "  after, slurm-cluster.yml (distro): 3 passed",
        ]
    )
    assert "Upgrade</summary>" in (pytester.path / "reports/latest/report.html").read_text()


def test_what_the_upgrade_breaks_is_named(upgrade):
    result = upgrade(breaks=True)
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(
        ["upgrade: the upgrade breaks 1 check", "*broken by the upgrade: test_slurm"]
    )


def test_an_upgrade_that_fails_is_told_once_and_the_rest_is_skipped(upgrade):
    failure = 'from deepops_fixtures.errors import DeployError; raise DeployError("It failed.")'
    result = upgrade(outcome=failure)
    result.assert_outcomes(passed=4, errors=1, skipped=2)
    result.stdout.fnmatch_lines(["*The cluster could not be upgraded: It failed.*"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "source 'distro' has no '26.05' to start from"),
        (("-n", "2"), "no test may run while another process upgrades the cluster under it"),
    ],
    ids=["distro", "xdist"],
)
def test_what_cannot_be_upgraded_is_refused_before_anything_is_created(
    run, pytester, arguments, said
):
    pytester.makepyfile("def test_it(deepops): ...")
    result = run("--deepops-upgrade-from", "26.05", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
    assert not (pytester.path / "reports").exists()
