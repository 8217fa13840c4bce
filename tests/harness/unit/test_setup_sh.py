"""setup.sh: what it says, what it refuses, and that it hands on the command and its status."""

import os
import subprocess

import pytest


@pytest.fixture
def setup(project, tmp_path):
    """Return a function that runs setup.sh, on a system whose /etc/os-release is given."""

    def run(*arguments: str, os_release: str | None = None) -> subprocess.CompletedProcess[str]:
        env = dict(os.environ)
        if os_release is not None:
            (tmp_path / "os-release").write_text(os_release)
            env["DEEPOPS_OS_RELEASE"] = str(tmp_path / "os-release")
        return subprocess.run(
            [project / "setup.sh", *arguments], capture_output=True, text=True, env=env
        )

    return run


def test_help_shows_the_two_main_commands(setup):
    done = setup("--help")
    assert done.returncode == 0
    assert 'pytest -m "slurm or services" --deepops-cluster debian' in done.stdout
    assert "pytest tests/harness" in done.stdout


def test_an_unknown_option_is_refused(setup):
    done = setup("--frobnicate")
    assert done.returncode == 2
    assert "unknown option '--frobnicate'" in done.stderr


@pytest.mark.parametrize("system", ["ID=arch\nPRETTY_NAME=Arch", "ID=opensuse", ""])
def test_an_unsupported_system_is_told_what_to_install(setup, system):
    done = setup("true", os_release=system)
    assert done.returncode == 2
    for word in ("QEMU", "libvirt", "Vagrant", "vagrant-libvirt", "mmdebstrap", "Python 3.10"):
        assert word in done.stderr


def test_the_command_runs_in_the_environment_and_its_status_is_handed_on(setup, project):
    done = setup("sh", "-c", "command -v deepops-virtual; exit 7")
    assert done.returncode == 7, done.stderr
    assert done.stdout.strip() == str(project / ".venv" / "bin" / "deepops-virtual")


def test_words_of_the_command_stay_whole(setup):
    done = setup("printf", "%s|", "a b", "$HOME", "c'd")
    assert done.stdout == "a b|$HOME|c'd|"


def test_check_changes_nothing_and_is_content_with_a_prepared_host(setup):
    done = setup("--check")
    assert done.returncode == 0, done.stderr
    for part in ("packages: ok", "libvirt: ok", "groups: ok", "Python environment: ok"):
        assert part in done.stderr


def test_check_on_a_host_of_another_family_names_what_is_missing(setup):
    done = setup("--check", os_release="ID=rocky\nID_LIKE='rhel centos fedora'")
    assert done.returncode == 1
    assert "missing packages: qemu-kvm" in done.stderr
    assert "./setup.sh" in done.stderr
