"""Options, markers, header, and what is refused before anything is created."""

import pytest

from deepops_fixtures.settings import Settings, option, variable
from tests.harness.plugin.conftest import created

USES_HOST = "def test_it(host):\n    assert host.check_output('echo hi') == 'hi'\n"
CLUSTER = """\
box: {box}
deployment: none
subnet: {subnet}
nodes:
  virtual-login:
    groups: [slurm-master]
    cpus: 1
    memory: {memory}
    disk: {disk}
    address: 11
"""


def cluster(pytester, box="debian12", subnet="auto", memory=512, disk=8):
    text = CLUSTER.format(box=box, subnet=subnet, memory=memory, disk=disk)
    return pytester.makefile(".yml", mine=text)


def refused(pytester, run, *arguments) -> str:
    """Run, and return what was said; nothing may have been made and no test run."""
    pytester.makepyfile(USES_HOST)
    result = run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str() + result.stderr.str()
    assert [name for name in created(pytester.path) if not name.startswith(".cache")] == []
    return f"{result.stdout.str()}\n{result.stderr.str()}"


def test_help_teaches_every_option_with_its_variable(run):
    text = " ".join(run("--help").stdout.str().split())
    for name in Settings.model_fields:
        assert option(name) in text
        assert f"[{variable(name)}]" in text


def test_the_markers_are_registered_and_described(run):
    text = run("--markers").stdout.str()
    for name in ("slurm", "services", "gpu", "kubernetes", "destructive", "slow", "faults"):
        assert f"@pytest.mark.{name}:" in text
    assert "@pytest.mark.nodes(*groups):" in text


def test_a_run_that_needs_a_cluster_names_it_with_deployment_and_accelerator(run, pytester):
    pytester.makepyfile(USES_HOST)
    result = run("--deepops-cluster", "debian", "--collect-only")
    result.stdout.fnmatch_lines(
        [
            "deepops-fixtures *: cluster 'debian', reuse: auto, keep: never",
            "cluster 'debian': virtual-login, virtual-mgmt, virtual-gpu01; deployed by slurm-*",
            "accelerator: tcg (asked for by --deepops-accelerator)",
        ]
    )
    assert result.ret == 0


def test_an_airgapped_run_says_so(run, pytester):
    pytester.makepyfile(USES_HOST)
    result = run("--deepops-cluster", "tiny", "--deepops-airgap", "--collect-only")
    result.stdout.fnmatch_lines(["airgap: no way out of the machines' networks; all comes from *"])
    assert "airgap:" not in run("--deepops-cluster", "tiny", "--collect-only").stdout.str()


def test_an_airgapped_cluster_of_a_box_without_a_store_of_packages_is_refused(run, pytester):
    text = CLUSTER.format(box="generic/rocky9", subnet="auto", memory=512, disk=8)
    path = pytester.makefile(".yml", mine=text.replace("deployment: none", "deployment: slurm"))
    path.write_text(path.read_text().replace("[slurm-master]", "[slurm-master, slurm-node]"))
    said = refused(pytester, run, "--deepops-cluster", path, "--deepops-airgap")
    assert "No store of packages can be made for box 'generic/rocky9'" in said
    assert "Next: choose a cluster whose box is 'debian12'" in said


def test_a_run_that_needs_none_is_not_asked_for_one(run, pytester):
    pytester.makepyfile("def test_nothing():\n    pass\n")
    result = run("--deepops-cluster", "centaur")
    assert result.ret == 0
    assert "accelerator" not in result.stdout.str()


def test_a_run_that_needs_no_cluster_makes_nothing(run, pytester):
    pytester.makepyfile("def test_nothing():\n    pass\n")
    result = run()
    result.assert_outcomes(passed=1)
    assert "DeepOps Virtual" not in result.stdout.str()
    assert "html report" not in result.stdout.str()
    assert created(pytester.path) == []


def test_a_run_without_a_cluster_under_xdist_makes_nothing_either(run, pytester):
    pytester.makepyfile("def test_nothing():\n    pass\n")
    result = run("-n", "2")
    result.assert_outcomes(passed=1)
    assert created(pytester.path) == []


def test_collecting_makes_nothing(run, pytester):
    pytester.makepyfile(USES_HOST)
    assert run("--collect-only").ret == 0
    assert created(pytester.path) == []


def test_a_setting_may_stand_in_the_ini_file(run, pytester):
    pytester.makeini("[pytest]\ndeepops_cluster = tiny\n")
    pytester.makepyfile(USES_HOST)
    run("--collect-only").stdout.fnmatch_lines(
        ["*cluster 'tiny': virtual-login; nothing deployed*"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--deepops-cluster", "centaur"], "There is no cluster named 'centaur'"),
        (["--deepops-cluster", "./none.yml"], "File 'none.yml' not found"),
        (["--deepops-cluster", f"./{'x' * 300}.yml"], "': File name too long"),
        (["--deepops-cache-dir", "/dev/null/x"], "'/dev/null' is there and is no folder"),
        (["--deepops-reports", "/proc/none"], "'/proc/none': No such file or directory"),
        (["--deepops-keep", "sometimes"], "--deepops-keep (DEEPOPS_KEEP): 'sometimes' is refused"),
        (["--deepops-reuse", "sometimes"], "(DEEPOPS_REUSE): 'sometimes' is refused"),
        (["--deepops-attach", "nobody"], "There is no cluster instance named 'nobody'"),
        (["--deepops-inventory", "none.ini"], "none.ini' not found"),
        (["--deepops-inventory", "x", "--deepops-attach", "y"], "exclude each other"),
        (["--deepops-source", "./upstream"], "'./upstream' is not there"),
        (["--deepops-airgap", "--deepops-inventory", "x"], "--deepops-airgap is for virtual mac"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_is_a_usage_error(run, pytester, arguments, said):
    text = refused(pytester, run, *arguments)
    assert said in text
    assert "Traceback" not in text


def test_a_bad_request_is_a_usage_error_under_xdist_too(run, pytester):
    text = refused(pytester, run, "-n", "2", "--deepops-cluster", "centaur")
    assert "There is no cluster named 'centaur'" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("more", [[], ["-n", "2"]])
@pytest.mark.parametrize("setting", ["--deepops-cluster", "--deepops-inventory"])
def test_what_tests_of_each_node_cannot_be_made_for_is_refused_once(run, pytester, setting, more):
    text = "import pytest\n@pytest.mark.nodes()\ndef test_it(node): pass\n"
    pytester.makepyfile(test_one=text, test_two=text)
    result = run(setting, "centaur", *more)
    said = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, said
    assert said.count("centaur' not found" if "inventory" in setting else "named 'centaur'") == 1
    assert "ERROR collecting" not in said
    assert "INTERNALERROR" not in said
    pytester.makepyfile(test_three="def test_nothing(): pass\n")
    assert more or run(setting, "centaur", "-k", "nothing").ret == 0


def test_a_bad_cluster_file_is_refused_with_file_line_and_field(run, pytester):
    path = cluster(pytester, memory="lots")
    text = refused(pytester, run, "--deepops-cluster", path)
    assert f"{path}:8: nodes.virtual-login.memory: " in text


def test_a_cluster_larger_than_the_memory_is_refused(run, pytester):
    text = refused(pytester, run, "--deepops-cluster", cluster(pytester, memory=4000000))
    assert "Cluster 'mine' needs 3.8 TiB of memory; " in text


def test_a_cluster_larger_than_the_disk_is_refused(run, pytester):
    text = refused(pytester, run, "--deepops-cluster", cluster(pytester, disk=4096))
    assert "Cluster 'mine' may grow to 4.0 TiB on disk; " in text


def test_a_box_that_nobody_has_is_refused(run, pytester):
    text = refused(pytester, run, "--deepops-cluster", cluster(pytester, box="nothing"))
    assert "Box 'nothing' of cluster 'mine' is neither a recipe" in text
    assert "vagrant box add --name nothing FILE.box" in text


def test_a_box_that_vagrant_cannot_download_is_refused(run, pytester, monkeypatch):
    # Port 9 of this host: nothing answers, and nobody else is asked.
    monkeypatch.setenv("VAGRANT_SERVER_URL", "http://127.0.0.1:9")
    pytester.makepyfile("def test_it(virtual_cluster): pass")
    result = run("--deepops-cluster", cluster(pytester, box="nobody/nothing"))
    assert result.ret == 4
    result.stdout.fnmatch_lines(
        [
            "*Box 'nobody/nothing' of cluster 'mine' is not on this host, *not download it: *",
            "*Next: vagrant box add --provider libvirt nobody/nothing *",
            "cluster: none was made",
        ]
    )


def test_the_header_says_what_deepops_own_variables_chose(run, pytester, monkeypatch):
    monkeypatch.setenv("DEEPOPS_VAGRANT_OS", "centos")
    monkeypatch.setenv("DEEPOPS_FULL_INSTALL", "true")
    pytester.makepyfile("def test_it(): pass")
    run().stdout.fnmatch_lines(
        [
            "deepops-fixtures *: cluster 'centos-full', *",
            "DeepOps' variables: cluster 'centos-full' by DEEPOPS_VAGRANT_OS=centos, DEEPOPS_*",
        ]
    )
    monkeypatch.setenv("DEEPOPS_OS_VERSION", "7")
    text = refused(pytester, run)
    assert "There is no cluster named 'centos-7-full'. (It is cluster 'centos-7-full' by" in text


def test_machines_of_somebodys_own_vagrantfile_are_not_brought_up(run, pytester):
    (pytester.path / "Vagrantfile").write_text(
        'Vagrant.configure("2") { |config| config.vm.box = "none"; '
        'config.vm.define("virtual-login") { |m| } }'
    )
    pytester.makepyfile(USES_HOST)
    result = run("--deepops-vagrant-file", "Vagrantfile")
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "machines of Vagrantfile '" in text
    assert "are up: virtual-login (not created)." in text
    assert "vagrant up" in text


def test_a_subnet_in_use_is_refused(run, pytester):
    from deepops_fixtures.cluster import hypervisor

    networks = hypervisor.subnets_in_use()
    used = next(net for net in networks if net.is_private and not net.is_loopback)
    subnet = f"{str(used.network_address).rpartition('.')[0]}.0/24"
    text = refused(pytester, run, "--deepops-cluster", cluster(pytester, subnet=subnet))
    assert f"Subnet {subnet} of cluster 'mine' is in use on this host" in text


def test_a_run_that_requires_a_checkpoint_is_refused_without_one(run, pytester):
    text = refused(
        pytester, run, "--deepops-cluster", cluster(pytester), "--deepops-reuse", "require"
    )
    assert "No checkpoint of stage 'up' can be used: none of stage 'up' was taken" in text
    assert "Next: run once with --deepops-reuse auto" in text


def test_an_inventory_that_is_none_is_refused(run, pytester):
    path = pytester.makefile(".ini", hosts="[slurm-master\none two three\n")
    text = refused(pytester, run, "--deepops-inventory", path)
    assert "is not an inventory that Ansible can read" in text


def test_an_inventory_without_hosts_is_refused(run, pytester):
    path = pytester.makefile(".ini", hosts="[slurm-master]\n")
    assert "has no hosts" in refused(pytester, run, "--deepops-inventory", path)


def test_an_inventory_with_a_host_that_does_not_answer_is_refused(run, pytester):
    path = pytester.makefile(
        ".ini", hosts="[slurm-master]\nlost ansible_host=127.0.0.1 ansible_port=1\n"
    )
    pytester.makepyfile(USES_HOST)
    result = run("--deepops-inventory", path)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Not reachable over ssh: lost" in result.stdout.str() + result.stderr.str()


def test_a_signal_ends_the_collection_though_pytest_takes_it_for_an_error_of_the_file(
    pytester, run
):
    pytester.makepyfile(
        test_a="import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
        test_b="open('collected', 'w').close()\n",
    )
    result = run("--collect-only")
    assert result.ret == 128 + 15
    assert "received SIGTERM" in result.stdout.str() + result.stderr.str()
    assert not (pytester.path / "collected").exists()
