"""The checks of what the GPUs of a node do, with one another and for their users, turn red once
each, and say which GPU and why; the nodes answer from a table."""

import pytest

from deepops_fixtures.checks import Gpus
from tests.harness.unit.gpu_hosts import A100, LABEL, TWO, Reply, cuda, healthy, nvml, survey
from tests.harness.unit.smi_documents import Card

# -- between the GPUs -----------------------------------------------------------------------


def test_an_nvlink_that_is_down_is_red():
    links = "GPU 0: V100\n" + "".join(f"\t Link {n}: 25.781 GB/s\n" for n in (0, 1, 2, 4))
    host = healthy(
        *TWO, links=Reply(links + "\t Link 3: <inactive>\n" + links.replace("GPU 0", "GPU 1"))
    )
    faults = Gpus(host).nvlinks().faults
    assert faults[0] == f"{LABEL} has 4 of 6 NVLinks up; down: 3, 5"
    assert len(faults) == 2


def test_an_nvlink_that_is_slow_is_red():
    links = "".join(f"\t Link {n}: {12.5 if n == 4 else 25.781} GB/s\n" for n in range(6))
    host = healthy(
        *TWO, links=Reply(f"GPU 0: V100\n{links}GPU 1: V100\n{links.replace('12.5', '25.781')}")
    )
    assert Gpus(host).nvlinks().faults == (
        f"{LABEL} has slow NVLinks: 4 (the others 25.781 GB/s)",
    )


def test_links_to_gpus_that_a_guest_was_not_given_are_not_judged():
    none = Reply("GPU 0: V100\n")
    alone = Gpus(healthy(links=none)).nvlinks()
    assert (alone.judged, alone.faults) == (0, ())
    guests = [card.but(virtualization="Pass-Through") for card in TWO]
    assert "may not have been given" in str(Gpus(healthy(*guests, links=none)).nvlinks())


def test_nvswitches_without_a_fabric_manager_are_red():
    switched = survey(TWO) + "pci 0000:b0:00.0 0x068000 0x1ac1 nvidia-nvswitch de10c11a 16\n"
    down = Gpus(healthy(*TWO, survey=Reply(switched), fabric=Reply(rc=3))).fabric()
    assert down.faults == ("nvidia-fabricmanager does not run, and there are 1 NVSwitches",)
    up = Gpus(healthy(*TWO, survey=Reply(switched), fabric=Reply())).fabric()
    assert (up.judged, up.faults) == (1, ())


def test_gpus_that_do_not_reach_one_another_as_they_should_are_red():
    switched = survey(TWO) + "pci 0000:b0:00.0 0x068000 0x1ac1 nvidia-nvswitch de10c11a 16\n"
    way = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \t{}\t0-9\nGPU1\t{}\t X \t0-9\n"
    by_pci = Gpus(healthy(*TWO, survey=Reply(switched), topology=Reply(way.format("SYS", "SYS"))))
    assert by_pci.topology().faults == ("GPU 0 reaches GPU 1 by SYS and not by NVLink",)
    odd = Gpus(healthy(*TWO, topology=Reply(way.format("NV2", "NV1"))))
    assert odd.topology().faults == ("GPU 0 and GPU 1 are connected by 'NV2' and back by 'NV1'",)
    silent = Gpus(healthy(*TWO, topology=Reply("Not Supported")))
    assert "connected by '' and back by ''" in silent.topology().faults[0]


# -- work -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"gpus": [], "error": "cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"},
         "CUDA does not start: cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"),
        ({"gpus": []}, f"{LABEL} is not there for CUDA"),
        ({"load_errors": ["CUDA device 0: cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED (719)"]},
         "CUDA device 0: cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED (719)"),
    ],
)  # fmt: skip
def test_a_gpu_that_does_not_compute_is_red_with_cudas_own_name(found, cause):
    host = healthy()
    host.probe["compute"] |= found
    assert Gpus(host).kernel().faults == (cause,)


@pytest.mark.parametrize(
    ("field", "text", "cause"),
    [
        (
            "error",
            "cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS (700)",
            "fails: cuLaunchKernel: CUDA",
        ),
        ("wrong", "1 of 262144 sums, first at 5", "computes wrong results: 1 of 262144 sums"),
    ],
)
def test_a_kernel_that_fails_or_errs_is_red(field, text, cause):
    host = healthy()
    host.probe["compute"]["gpus"][0][field] = text
    (fault,) = Gpus(host).kernel().faults
    assert fault.startswith(f"GPU 0000:07:00.0 (Tesla V100-SXM2-16GB) {cause}")


def test_with_mig_a_program_need_not_see_every_gpu():
    sliced = A100.but(mig=("Enabled", "Enabled"), slices=2)
    host = healthy(sliced, sliced.but(bus="08"))
    host.probe["compute"] = cuda(sliced)
    assert Gpus(host).kernel().faults == ()
    assert Gpus(host).bandwidth().unjudged[0].endswith("a slice has a part of the bandwidth")


def test_a_memory_that_is_too_slow_for_its_card_is_red():
    host = healthy()
    host.probe["compute"] = cuda(Card(), bandwidth=610.0)
    (fault,) = Gpus(host).bandwidth().faults
    assert fault.startswith("GPU 0000:07:00.0 (Tesla V100-SXM2-16GB) copies 610 GB/s within")
    assert fault.endswith("its data sheet says 900, expected is 70%")
    host.probe["compute"] = cuda(Card(), bandwidth=640.0)
    assert Gpus(host).bandwidth().faults == ()


def test_an_unknown_card_is_reported_and_not_judged():
    unknown = Card(name="NVIDIA GeForce RTX 3090", device="220410DE")
    verdict = Gpus(healthy(unknown)).bandwidth()
    assert (verdict.judged, verdict.faults) == (0, ())
    assert "is in no table here; it copies 780 GB/s of 898 by its clock and width" in str(verdict)


def test_a_process_that_was_left_on_a_gpu_is_red_with_its_owner():
    busy = Card(processes=((4711, "C", "python"),))
    stray = "4711|bob|86400|0::/user.slice/user-1000.slice |python train.py \n"
    (fault,) = Gpus(healthy(busy, owners=Reply(stray))).leftovers().faults
    assert fault == (
        f"{LABEL} is used by process 4711 ('python') of user 'bob', "
        "outside of any Slurm job or pod"
    )
    (fault,) = Gpus(healthy(busy, owners=Reply())).leftovers().faults
    assert "process 4711 ('python') that is no longer there" in fault


@pytest.mark.parametrize(
    ("kind", "owner"),
    [
        ("C", "0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_0 |python train.py "),
        ("C", "4:devices:/slurm/uid_1000/job_12/step_0 |python train.py "),
        ("C", "0::/kubepods.slice/kubepods-besteffort.slice/cri-1.scope |python train.py "),
        ("C", "0::/system.slice/ssh.service |/usr/bin/python3 - compute 6 "),
        ("G", "0::/user.slice |/usr/lib/xorg/Xorg "),
        ("C+G", "0::/user.slice |/usr/bin/gnome-shell "),
    ],
)
def test_a_process_with_a_right_to_be_there_is_no_leftover(kind, owner):
    busy = Card(processes=((4711, kind, "python"),))
    assert Gpus(healthy(busy, owners=Reply(f"4711|bob|60|{owner}\n"))).leftovers().faults == ()


def test_nvml_that_counts_less_says_which_gpu_it_cannot_ask():
    host = healthy(*TWO)
    host.probe["look"] = nvml(Card())
    assert [card.uuid for card in Gpus(host).nvml.gpus] == ["GPU-1"]
