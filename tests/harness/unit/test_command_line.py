"""deepops-virtual as a process: what it says when the host refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

_RUN = (
    "import sys; sys.argv[0] = 'deepops-virtual'; from deepops_fixtures.start import main; main()"
)
#: Ctrl-C at the moment when the commands are read.
_IMPATIENT = """
import sys
class Impatient:
    def find_spec(self, name, *_):
        if name == "deepops_fixtures.cli.gpu":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts the command line for a user who has nothing yet."""
    monkeypatch.setenv("DEEPOPS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DEEPOPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPOPS_ACCELERATOR", "tcg")

    def start(*words: str, **more: object) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([sys.executable, "-c", _RUN, *words], **streams)

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    assert "Traceback" not in said
    return process.returncode, said


def test_output_that_cannot_be_written_is_said(start):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        status, said = ended(start("clusters", "--json", stdout=full))
    assert (status, said) == (
        1,
        "error: No space left on device.\nNext: look at this host: df -h, ulimit -a\n",
    )


def test_a_terminal_of_few_letters_is_written_to_all_the_same(start, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("COLUMNS", "60")
    process = start("clusters")
    assert "debian" in process.communicate(timeout=120)[0]
    assert process.returncode == 0


def test_eighty_columns_have_room_for_every_cluster(start, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = start("clusters").communicate(timeout=120)[0]
    assert "ubuntu-24.04-large-slurm" in said
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_the_host_refuses_is_said_with_its_path(start, tmp_path):
    name = "x" * 300
    status, said = ended(start("up", "--cluster", f"{tmp_path}/{name}.yml"))
    assert status == 1
    assert said.startswith("error: '/")
    assert "': File name too long.\nNext: ls -ld /" in said


def test_ctrl_c_counts_before_the_commands_are_read(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _IMPATIENT + _RUN], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_the_installed_command_begins_there():
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'deepops-virtual = "deepops_fixtures.start:main"\n' in project
