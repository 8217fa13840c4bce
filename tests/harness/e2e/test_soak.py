"""Three rounds of the soak: a run killed at a bad moment is recovered from, and nothing stays."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

#: Chooses the death of pytest while it puts the cluster back, of libvirtd (a worker where libvirtd
#: is systemd's) while a cluster is restored, and of a controller whose workers restore one.
SEED = 890683


def test_three_rounds_leave_nothing(tmp_path, project, nothing_left):
    file = tmp_path / "rounds.json"
    soak = project / "tests" / "harness" / "soak" / "soak.py"
    command = [sys.executable, soak, "--rounds", "3", "--seed", str(SEED), "--json", file]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout
    data = json.loads(file.read_text())
    first, _, third = data["rounds"]
    assert (first["scenario"], first["victim"]) == ("take", "controller")
    assert (third["scenario"], third["victim"]) == ("warm -n 2", "controller")
    assert data["leaks"] == 0
