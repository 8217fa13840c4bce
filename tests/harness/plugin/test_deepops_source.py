"""pytest with a checkout of DeepOps as its source: what it says, skips and refuses."""

import time

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from tests.harness.plugin.conftest import created
from tests.harness.unit import checkouts

CLUSTER = """\
box: debian12
deployment: slurm
nodes:
  virtual-login:
    groups: [slurm-master, slurm-node]
    cpus: 1
    memory: 512
    disk: 8
    address: 11
"""
CHECKS = """
import pytest

@pytest.mark.piece("hosts")
def test_names(deepops): ...

def test_shared_files(nfs): ...

@pytest.mark.slurm
def test_jobs(deepops): ...

def test_units(units, deepops):
    assert [units.expected(node) for node in deepops] == [["ssh.service"]]

def test_anything(deepops): ...
"""


@pytest.fixture
def checkout(pytester):
    """A checkout in a folder where no test looks for files that a run has made."""
    return checkouts.repository(pytester.path / "deepops.py")


@pytest.fixture
def attached(pytester):
    """Return a function that puts a cluster there on which some pieces of Slurm are, as far as a
    run can see; its one node is this host. It gives the option to attach to it."""

    def attached(*pieces):
        book = LedgerBook(pytester.path / ".local" / "state" / "deepops-fixtures")
        spec = topology.load(str(pytester.makefile(".yml", mine=CLUSTER)))
        book.write(
            Ledger(
                name="here", owner=Owner.me(), created=time.time(), spec=spec,
                run_dir=pytester.path, pool="default", domain_prefix="deepops-here_",
                domains=["deepops-here_virtual-login"], networks=[], volumes=[], subnets=[],
                socket_dir=pytester.path / "sockets", kept=True, parts=["slurm"],
                pieces={"slurm": list(pieces)}, state="deployed",
            )
        )  # fmt: skip
        groups = with_parent_groups(["slurm-master", "slurm-node"])
        node = NodeData(name="virtual-login", groups=groups, connection="local")
        running = RunningCluster(
            name="here", provider="vagrant", nodes=[node], inventory=pytester.path / "hosts.ini"
        )
        (book.path("here") / "cluster.json").write_text(running.model_dump_json())
        return "--deepops-attach=here"

    return attached


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_checks_of_what_no_playbook_deploys_are_skipped_with_the_reason(
    run, pytester, attached, workers
):
    pytester.makepyfile(CHECKS)
    result = run(attached("hosts"), "-rs", *workers)
    result.assert_outcomes(passed=3, skipped=2)
    text = result.stdout.str()
    assert "NFS's server: no playbook of this run deploys it" in text
    assert "Slurm: no playbook of this run deploys it" in text


def test_the_header_tells_the_checkout(run, pytester, checkout):
    pytester.makepyfile("def test_it(slurm): ...")
    (checkout / "new.txt").write_text("changed")
    result = run("--deepops-source", checkout, "--collect-only",
                 "--deepops-playbook", "generic/hosts.yml",
                 "--deepops-playbook", "generic/nfs-server.yml")  # fmt: skip
    commit = checkouts.git(checkout, "rev-parse", "HEAD")[:12]
    told = f"DeepOps {commit} (master) + 1 changed file"
    playbooks = "playbooks/generic/hosts.yml and playbooks/generic/nfs-server.yml"
    result.stdout.fnmatch_lines(
        [
            f"cluster 'debian': *; deployed by {playbooks} ({told})",
            f"DeepOps: {told}; from *; changed: new.txt",
        ]
    )
    assert result.ret == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--deepops-source", "./nothing"], "'./nothing' is not there"),
        (["--deepops-source", "."], "is no DeepOps tree: it has no ansible.cfg, playbooks/"),
        (["--deepops-source", "CHECKOUT", "--deepops-playbook", "generic/host.yml"],
         "near it: playbooks/generic/hosts.yml"),
        (["--deepops-source", "26.99", "--deepops-repository", "CHECKOUT"],
         "there is no ref '26.99'"),
        (["--deepops-source", "CHECKOUT", "--deepops-extra-vars=@no.yml"],
         "file 'no.yml' cannot be read"),
        (["--deepops-source", "CHECKOUT", "--deepops-limit", "nobody"],
         "no node and no group 'nobody'"),
        (["--deepops-tags", "a"], "--deepops-tags is for a checkout of DeepOps"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_bad_input_is_refused_before_anything_is_created(
    run, pytester, checkout, arguments, said, workers
):
    pytester.makepyfile("def test_it(slurm): ...")
    words = [str(checkout) if word == "CHECKOUT" else word for word in arguments]
    result = run(*words, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = " ".join(f"{result.stdout.str()}\n{result.stderr.str()}".split())
    assert said in text
    assert "Next: " in text
    assert [name for name in created(pytester.path) if not name.startswith(".cache")] == []


def test_kubespray_that_cannot_be_had_is_refused_where_a_test_wants_kubernetes(
    run, pytester, checkout
):
    pytester.makepyfile("def test_k(kubernetes): ...\n\ndef test_s(slurm): ...\n")
    result = run("--deepops-source", checkout, "-k", "test_k")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'submodules/kubespray' of DeepOps" in result.stderr.str() + result.stdout.str()
    result = run("--deepops-source", checkout, "-k", "test_s", "--collect-only")
    assert result.ret == 0


def test_kubespray_is_refused_under_xdist_too(run, pytester, checkout):
    pytester.makepyfile("def test_k(kubernetes): ...\n")
    result = run("--deepops-source", checkout, "-n", "1")
    assert "'submodules/kubespray' of DeepOps" in result.stderr.str() + result.stdout.str()
    assert result.ret not in (0, pytest.ExitCode.INTERNAL_ERROR)


def test_settings_that_may_be_given_several_times_take_a_line_each(run, pytester, checkout):
    pytester.makepyfile("def test_it(slurm): ...")
    pytester.makeini(
        "[pytest]\ndeepops_playbook =\n  generic/hosts.yml\n  generic/nfs-server.yml\n"
    )
    text = run("--deepops-source", checkout, "--collect-only").stdout.str()
    assert "playbooks/generic/hosts.yml and playbooks/generic/nfs-server.yml" in text
