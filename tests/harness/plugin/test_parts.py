"""Which parts of DeepOps a run deploys, what is refused, and which tests have no node for it."""

import time

import pytest

from deepops_fixtures.cluster import topology
from deepops_fixtures.cluster.ledger import Ledger, LedgerBook, Owner
from deepops_fixtures.cluster.running import NodeData, RunningCluster, with_parent_groups
from tests.harness.plugin.conftest import created

CLUSTER = """\
box: debian12
deployment: [slurm, kubernetes]
nodes:
  virtual-login:
    groups: [slurm-master, slurm-node, kube_control_plane, etcd, kube_node]
    cpus: 1
    memory: 512
    disk: 8
    address: 11
"""
NODES = """
import pytest

@pytest.mark.nodes("slurm-node")
def test_slurm_node(node): ...

@pytest.mark.nodes("kube_node")
def test_kube_node(host): ...

@pytest.mark.nodes("slurm-node", "k8s_cluster")
def test_either(node): ...

@pytest.mark.nodes()
def test_any(node): ...

def test_slurm(slurm): ...
"""
#: Says what the run is about, once the tests are known.
PARTS = """
import pytest
from deepops_fixtures.session import session_of

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    print("PARTS", *session_of(session.config).rehearsal.chosen.parts, "END")
"""


@pytest.fixture
def cluster(pytester):
    """The file of a cluster that carries both parts."""
    return pytester.makefile(".yml", mine=CLUSTER)


@pytest.fixture
def attached(pytester, cluster):
    """Return a function that puts a cluster there with some parts deployed, as far as a run can
    see; its one node is this host. It gives the option to attach to it."""

    def attached(*parts: str) -> str:
        book = LedgerBook(pytester.path / ".local" / "state" / "deepops-fixtures")
        name = "deepops-fixtures-nowhere"
        spec = topology.load(str(cluster))
        book.write(
            Ledger(
                name=name, owner=Owner.me(), created=time.time(), spec=spec,
                run_dir=pytester.path, pool="default", domain_prefix=f"deepops-{name}_",
                domains=[f"deepops-{name}_virtual-login"], networks=[], volumes=[], subnets=[],
                socket_dir=pytester.path / "sockets", kept=True, parts=list(parts),
                applied=[f"{part}.yml of a branch" for part in parts], state="deployed",
            )
        )  # fmt: skip
        groups = with_parent_groups(spec.nodes["virtual-login"].groups)
        node = NodeData(name="virtual-login", groups=groups, connection="local")
        running = RunningCluster(
            name=name, provider="vagrant", nodes=[node], inventory=pytester.path / "hosts.ini"
        )
        (book.path(name) / "cluster.json").write_text(running.model_dump_json())
        return f"--deepops-attach={name}"

    return attached


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_test_whose_nodes_are_of_another_part_is_skipped_with_the_reason(
    run, pytester, attached, workers
):
    pytester.makepyfile(NODES)
    result = run(attached("kubernetes"), "-rs", *workers)
    result.assert_outcomes(passed=3, skipped=2)
    text = result.stdout.str()
    assert "this run deploys kubernetes alone: no node is in group slurm-node" in text
    assert "the cluster has no node in group slurm-master" in text
    latest = pytester.path / "reports" / "latest"
    assert (latest / "parts.json").read_text() == '["kubernetes"]'
    assert "kubernetes.yml of a branch" in (latest / "report.html").read_text()
    assert "on it: kubernetes.yml of a branch" in text


def test_where_both_parts_are_deployed_no_test_is_skipped(run, pytester, attached):
    pytester.makepyfile(NODES)
    run(attached("slurm", "kubernetes"), "-rs").assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("tests", "arguments", "parts"),
    [
        ("def test_it(slurm): ...", (), "slurm"),
        ("@pytest.mark.kubernetes\ndef test_it(deepops): ...", (), "kubernetes"),
        ("def test_it(deepops): ...", (), "slurm kubernetes"),
        ("def test_it(slurm): ...\n\ndef test_k(kubernetes): ...", (), "slurm kubernetes"),
        ("def test_it(slurm): ...\n\ndef test_k(kubernetes): ...", ("-k", "test_k"), "kubernetes"),
        ("def test_it(slurm): ...\n\n@pytest.mark.skip\ndef test_k(kubernetes): ...", (), "slurm"),
        ("def test_it(slurm): ...", ("--deepops-parts", "kubernetes"), "kubernetes"),
        ("def test_it(deepops): ...", ("--deepops-parts", " kubernetes , slurm"),
         "slurm kubernetes"),
    ],
    ids=["fixture", "marker", "none", "both", "selected", "skipped", "asked for", "asked for two"],
)  # fmt: skip
def test_a_run_is_about_the_parts_that_its_tests_name(
    run, pytester, cluster, tests, arguments, parts
):
    pytester.makeconftest(PARTS)
    pytester.makepyfile(f"import pytest\n\n{tests}\n")
    result = run("--collect-only", "-q", "-s", "--deepops-cluster", cluster, *arguments)
    assert f"PARTS {parts} END" in result.stdout.str()


def test_the_header_names_the_playbooks_of_these_parts(run, pytester, cluster):
    pytester.makepyfile("def test_it(slurm): ...\n\ndef test_deepops(deepops): ...\n")
    only = run("--collect-only", "--deepops-cluster", cluster, "-k", "test_it")
    only.stdout.fnmatch_lines(["cluster 'mine': virtual-login; deployed by slurm-cluster.yml (*"])
    only.stdout.no_fnmatch_line("*k8s-cluster.yml*")
    pytester.makepyfile("def test_deepops(deepops): ...\n")
    both = run("--collect-only", "--deepops-cluster", cluster)
    both.stdout.fnmatch_lines(["*deployed by slurm-cluster.yml and k8s-cluster.yml (distro)"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize("asked", ["nomad", "slurm,nomad"])
def test_a_part_that_the_cluster_does_not_carry_is_refused(run, pytester, cluster, asked, workers):
    pytester.makepyfile("def test_it(deepops): ...")
    result = run("--deepops-cluster", cluster, "--deepops-parts", asked, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert (
        "--deepops-parts: cluster 'mine' carries no part 'nomad'; it carries: slurm, kubernetes."
    ) in text
    assert "Traceback" not in text
    assert [name for name in created(pytester.path) if not name.startswith(".cache")] == []
