"""The probe that runs on the nodes, against a driver of C whose GPUs are this process's memory."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from deepops_fixtures.checks import gpu_probe
from deepops_fixtures.checks.remote.gpu_probe import MARK, PTX
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit.smi_documents import Card, document

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the driver's libraries and an nvidia-smi."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make the fake driver with")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    source = HERE / "fake_driver.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    shutil.copy(library, folder / "libnvidia-ml.so.1")
    long = "<supported_clocks><value>877 MHz</value></supported_clocks></gpu>"
    (folder / "report.xml").write_text(document(Card()).replace("</gpu>", long))
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat {folder}/report.xml\n")
    smi.chmod(0o755)
    return folder


def probe(driver: Path, *arguments: str, **environment: str) -> dict:
    """What the probe finds with this driver."""
    found = subprocess.run(
        [sys.executable, "-", *arguments],
        input=gpu_probe._SOURCE.read_text(),
        env={
            "LD_LIBRARY_PATH": str(driver),
            "PATH": f"{driver}:{os.environ['PATH']}",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(MARK), found.stderr
    return json.loads(found.stdout.removeprefix(MARK))


def test_nvml_is_counted(driver):
    view = gpu_probe.NvmlView.model_validate(probe(driver, "look"))
    assert (view.driver_version, view.error) == ("535.183.01", "")
    assert [card.uuid for card in view.gpus] == ["GPU-0", "GPU-1"]


def test_nvml_that_fails_is_told_in_its_own_words(driver):
    assert probe(driver, "look", FAKE_FAIL="nvmlInit_v2:18")["error"] == (
        "nvmlInit_v2: Driver/library version mismatch (18)"
    )
    lost = probe(driver, "look", FAKE_FAIL="nvmlDeviceGetUUID:15")
    assert lost["gpus"][0] == {"uuid": "", "error": "nvmlDeviceGetUUID: GPU is lost (15)"}


def test_every_gpu_computes_and_nvidia_smi_reports_meanwhile(driver):
    view = gpu_probe.CudaView.model_validate(probe(driver, "compute", "1"))
    assert (view.error, view.load_errors) == ("", ())
    assert [(card.address, card.name, card.error, card.wrong) for card in view.gpus] == [
        ("0000:07:00.0", "Fake 0", "", ""),
        ("0000:08:00.0", "Fake 1", "", ""),
    ]
    # 4 MiB read and written 20 times in half a millisecond, as the fake driver says.
    assert view.gpus[0].bandwidth == pytest.approx(2 * 4 * 2**20 * 20 / 0.5e-3 / 1e9)
    assert view.gpus[0].peak == pytest.approx(898, abs=1)
    assert view.loaded[0].gpus[0].name == Card().name
    assert "supported_clocks" not in view.reports[0]


@pytest.mark.parametrize(
    ("function", "code", "name"),
    [
        ("cuInit", 802, "CUDA_ERROR_SYSTEM_NOT_READY"),
        ("cuDeviceGetCount", 802, "CUDA_ERROR_SYSTEM_NOT_READY"),
    ],
)
def test_cuda_that_does_not_start_is_told_by_its_error(driver, function, code, name):
    found = probe(driver, "compute", "0", FAKE_FAIL=f"{function}:{code}")
    assert found["error"] == f"{function}: {name} ({code}): as told"
    assert found["gpus"] == []


@pytest.mark.parametrize(
    "function",
    [
        "cuDevicePrimaryCtxRetain",
        "cuMemAlloc_v2",
        "cuModuleLoadData",
        "cuLaunchKernel",
        "cuCtxSynchronize",
        "cuMemcpyDtoH_v2",
        "cuMemcpyDtoD_v2",
    ],
)
def test_a_gpu_that_fails_is_told_by_cudas_error(driver, function):
    found = probe(driver, "compute", "0", FAKE_FAIL=f"{function}:700")
    said = f"{function}: CUDA_ERROR_ILLEGAL_ADDRESS (700): as told"
    assert [card["error"] for card in found["gpus"]] == [said, said]


def test_a_wrong_sum_is_found(driver):
    found = probe(driver, "compute", "0", FAKE_WRONG="1")
    assert [card["wrong"] for card in found["gpus"]] == ["1 of 262144 sums, first at 5"] * 2


def test_a_node_without_driver_is_told_which_library_is_missing(tmp_path):
    assert "libcuda.so.1 cannot be loaded: " in probe(tmp_path, "compute", "0")["error"]
    assert "libnvidia-ml.so.1 cannot be loaded: " in probe(tmp_path, "look")["error"]


def node(driver: Path, script: str = "") -> object:
    def run_script(text: str, seconds: float) -> str:
        environment = {**os.environ, "PATH": f"{driver}:{os.environ['PATH']}"}
        text = text.replace("export LD_LIBRARY_PATH", f"export LD_LIBRARY_PATH={driver}")
        done = subprocess.run(
            ["sh", "-s"],
            input=script or text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=seconds,
        )
        return done.stdout

    return types.SimpleNamespace(name="gpu01", run_script=run_script)


def test_the_probe_gets_to_a_node_over_standard_input(driver):
    assert len(gpu_probe.look(node(driver), prefix="env ").gpus) == 2
    assert gpu_probe.compute(node(driver), seconds=0).gpus[1].name == "Fake 1"


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo sudo: a password is required", "sudo: a password"), ("exit 1", "it printed nothing")],
)
def test_a_probe_that_did_not_run_shows_what_came_instead(tmp_path, script, said):
    with pytest.raises(CheckFailed, match=f"probe on 'gpu01' gave no answer:\n{said}"):
        gpu_probe.look(node(tmp_path, script))


def test_a_probe_that_hangs_is_given_up():
    def run_script(_text: str, seconds: float) -> str:
        raise subprocess.TimeoutExpired("sh", seconds)

    with pytest.raises(CheckFailed, match="probe on 'gpu01' did not end"):
        gpu_probe.look(types.SimpleNamespace(name="gpu01", run_script=run_script))


@pytest.mark.parametrize("kind", ["sm_75", "sm_90", "sm_100"])
def test_the_kernel_is_what_nvidias_assembler_takes(kind, tmp_path):
    assembler = shutil.which("ptxas")
    if assembler is None:
        pytest.skip("there is no ptxas")
    (tmp_path / "add.ptx").write_bytes(PTX.rstrip(b"\0"))
    command = [assembler, f"--gpu-name={kind}", "add.ptx", "-o", "add.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
