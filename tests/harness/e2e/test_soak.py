"""Three rounds of the soak: a run killed at a bad moment is recovered from, and nothing stays."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

#: Chooses pytest's own death during the checks, libvirtd's (QEMU's where libvirtd is systemd's)
#: while a cluster is restored, and the death of a controller whose workers restore one.
SEED = 610165


def test_three_rounds_leave_nothing(tmp_path, project, nothing_left):
    file = tmp_path / "rounds.json"
    soak = project / "tests" / "harness" / "soak" / "soak.py"
    command = [sys.executable, soak, "--rounds", "3", "--seed", str(SEED), "--json", file]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout
    data = json.loads(file.read_text())
    assert [item["scenario"] for item in data["rounds"]] == ["take", "warm", "warm -n 2"]
    assert [item["victim"] for item in data["rounds"]][::2] == ["controller", "controller"]
    assert data["leaks"] == 0
