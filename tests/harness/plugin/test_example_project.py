"""examples/deepops-tests is run as a DeepOps checkout would run it: its own tests, our plugin."""

import os
import shutil

import pytest

#: Slurm as far as the example asks for it: a job runs here, under the name of the node it is sent
#: to.
SRUN = """\
#!/bin/sh
while [ "$1" != sh ]; do
  [ "$1" = -w ] && NODE=$2
  shift
done
hostname() { echo "$NODE"; }
eval "$3"
"""
SCONTROL = """\
#!/bin/sh
echo "PartitionName=batch Nodes=two Default=YES State=UP TotalNodes=1"
"""


@pytest.fixture
def checkout(pytester, project, monkeypatch):
    """A checkout with the example in it, on a host that has a Slurm of ours."""
    shutil.copytree(project / "examples" / "deepops-tests", pytester.path, dirs_exist_ok=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        program = pytester.path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pytester.path / 'bin'}:{os.environ['PATH']}")
    return pytester


def test_its_tests_run_on_the_hosts_of_an_inventory(run, checkout, inventory):
    result = run("--deepops-inventory", inventory)
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*existing hosts of *hosts.ini*", "*6 checks passed*"])
    assert (checkout.path / "reports" / "latest" / "junit.xml").exists()


def test_a_cluster_of_the_projects_own_is_what_it_asks_for(run, checkout):
    result = run("--collect-only", "-q")
    assert result.ret == 0
    for node in ("virtual-mgmt", "virtual-gpu01"):
        result.stdout.fnmatch_lines([f"*test_a_job_runs_on_each_compute_node*{node}*"])


def test_a_failure_of_the_cluster_is_one_of_the_run(run, checkout, inventory):
    (checkout.path / "bin" / "scontrol").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    result = run("--deepops-inventory", inventory)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*slurmctld on 'one' does not answer*no controller*"])
