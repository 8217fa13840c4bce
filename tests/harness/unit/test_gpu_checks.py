"""Each check of a node's GPUs turns red once, and says which GPU and why; the nodes answer from a
table."""

import pytest

from deepops_fixtures.checks import Gpus
from tests.harness.unit.gpu_hosts import Host, Reply, cuda, healthy, nvml, survey
from tests.harness.unit.smi_documents import Card, document

CHECKS = (
    "driver", "lost", "xids", "memory", "heat", "power", "clocks", "link", "persistence", "mig",
    "nvlinks", "fabric", "topology", "kernel", "bandwidth", "leftovers",
)  # fmt: skip
TWO = (Card(), Card(bus="08", uuid="GPU-2"))
A100 = Card(name="NVIDIA A100-SXM4-40GB", device="20B010DE", mig=("Disabled", "Disabled"))
LABEL = "GPU 0 (0000:07:00.0, Tesla V100-SXM2-16GB)"


def test_a_healthy_node_has_no_fault_in_any_check():
    gpus = Gpus(healthy(*TWO))
    verdicts = {name: getattr(gpus, name)() for name in CHECKS}
    assert [str(verdict) for verdict in verdicts.values() if verdict.faults] == []
    unjudged = {name for name, verdict in verdicts.items() if not verdict.judged}
    # A V100 has no MIG and is in no fabric.
    assert unjudged == {"mig", "fabric"}


# -- nothing to check -----------------------------------------------------------------------


def test_a_node_without_gpu_says_so():
    host = Host({"sys/bus/pci": Reply("pci 0000:00:02.0 0x068000 0x0368 none de106803 0\n")})
    assert Gpus(host).absent == "node 'gpu01' has no NVIDIA device in sysfs"
    assert Gpus(Host({"sys/bus/pci": Reply()})).absent.endswith("no NVIDIA device in sysfs")


def test_gpus_that_are_kept_for_guests_are_not_checked():
    gpus = Gpus(healthy(survey=Reply(survey((Card(),), driver="vfio-pci"))))
    assert (
        gpus.absent
        == "node 'gpu01' keeps its GPUs for guests (vfio-pci): 0000:07:00.0 [10de:1db1]"
    )


def test_a_container_is_checked_for_the_gpus_that_it_was_given():
    text = survey(TWO).replace("known 0000:08:00.0\n", "") + "container\n"
    assert [str(each) for each in Gpus(healthy(survey=Reply(text))).survey.gpus] == [
        "0000:07:00.0 [10de:1db1]"
    ]
    none = text.replace("known 0000:07:00.0\n", "")
    assert "was given no NVIDIA GPU" in Gpus(healthy(survey=Reply(none))).absent


# -- the driver -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "cause"),
    [
        ("none", "GPU 0000:07:00.0 [10de:1db1] has no driver; the kernel module 'nvidia' is not"),
        ("nouveau", "GPU 0000:07:00.0 [10de:1db1] has the driver 'nouveau' and not 'nvidia'"),
    ],
)
def test_a_gpu_without_the_nvidia_driver_is_red(driver, cause):
    gpus = Gpus(healthy(survey=Reply(survey((Card(),), driver=driver))))
    assert gpus.absent == ""
    assert gpus.driver().faults[0].startswith(cause)
    assert gpus.obstacle.startswith(f"gpu01: {cause}")


def test_a_module_that_tells_no_version_is_red():
    text = survey((Card(),)).replace("module 535.54.03", "")
    (fault,) = Gpus(healthy(survey=Reply(text))).driver().faults
    assert fault == "the kernel module 'nvidia' is not loaded (/sys/module/nvidia/version)"


def test_a_driver_of_two_versions_is_red():
    text = survey((Card(),)).replace("module 535.54.03", "module 535.183.01")
    (fault,) = Gpus(healthy(survey=Reply(text))).driver().faults
    assert "/sys/module/nvidia: 535.183.01, /proc/driver/nvidia: 535.54.03" in fault
    assert fault.endswith("reboot, or reload the module")


def test_the_open_kernel_module_tells_its_version_in_other_words():
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build"
    text = survey((Card(),)).replace("NVRM version: NVIDIA UNIX x86_64 Kernel Module", line)
    assert Gpus(healthy(survey=Reply(text))).survey.proc_version == "570.86.15"


def test_a_driver_that_does_not_answer_is_red_and_the_other_checks_are_told():
    said = "Failed to initialize NVML: Driver/library version mismatch"
    host = healthy(report=Reply(said, rc=18))
    host.probe["look"] = {"error": "nvmlInit_v2: Driver/library version mismatch (18)"}
    gpus = Gpus(host)
    first, second = gpus.driver().faults
    assert first == f"nvidia-smi on 'gpu01' gives no report (exit status 18): {said}"
    assert second.startswith("NVML does not answer: nvmlInit_v2: Driver/library version")
    assert said in gpus.obstacle


def test_a_node_without_python_says_so_in_the_check_of_the_driver():
    host = healthy()
    host.probe.clear()
    (fault,) = Gpus(host).driver().faults
    assert "gave no answer:\nsh: 1: python3: not found" in fault


# -- lost, log ------------------------------------------------------------------------------


def test_a_gpu_that_has_fallen_off_the_bus_is_red():
    gpus = Gpus(healthy(survey=Reply(survey((Card(),), answer="ffffffff"))))
    assert gpus.lost().faults == (
        "GPU 0000:07:00.0 [10de:1db1] has fallen off the bus: its configuration reads ffff",
    )


def test_a_gpu_that_nvidia_smi_does_not_show_is_red_with_what_it_said():
    lost = "Unable to determine the device handle for GPU0000:08:00.0: Unknown Error"
    host = healthy(survey=Reply(survey(TWO)), report=Reply(document(Card()), stderr=lost))
    (fault,) = Gpus(host).lost().faults
    assert fault == f"GPU 0000:08:00.0 [10de:1db1] is in sysfs and not in nvidia-smi: {lost}"


def test_a_gpu_that_tells_nothing_but_errors_is_red():
    for said in ("GPU is lost", "[GPU requires reset]", "ERR!", "[Unknown Error]"):
        (fault,) = Gpus(healthy(Card(temperature=said))).lost().faults
        assert fault == f"{LABEL} does not answer (gpu_temp: {said})"


def test_an_xid_is_told_once_with_its_meaning():
    line = "NVRM: Xid (PCI:0000:07:00): 79, pid=1234, GPU has fallen off the bus.\n"
    switch = "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 33 egress\n"
    meaning = "(the GPU has fallen off the bus)"
    assert Gpus(healthy(log=Reply(line + switch + line + "readable\n"))).xids().faults == (
        f"GPU 0000:07:00 had Xid 79 {meaning}: pid=1234, GPU has fallen off the bus.",
        "NVSwitch 0000:c1:00.0 had SXid 12028: Non-fatal, Link 33 egress",
    )


def test_a_log_that_cannot_be_read_is_not_a_log_without_xid():
    verdict = Gpus(healthy(log=Reply())).xids()
    assert (verdict.judged, verdict.unjudged) == (0, ("the kernel's log cannot be read",))


# -- health ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "card", "dtd", "cause"),
    [
        ("memory", Card(uncorrectable="2"), 9, "had 2 memory error(s) that ECC could not"),
        ("memory", Card(uncorrectable="2"), 13, "had 2 memory error(s) that ECC could not"),
        ("memory", Card(retirement_pending="Yes"), 10, "has bad pages that are retired at its"),
        ("memory", Card(retired="64"), 11, "has retired 64 pages and can retire no more"),
        ("memory", Card(remap_pending="Yes"), 12, "has bad rows that are remapped at its next"),
        ("memory", Card(remap_failure="Yes"), 12, "could not remap a bad row"),
        ("memory", Card(no_spares="2"), 12, "has 2 bank(s) of memory with no spare row left"),
        ("memory", Card(sram_threshold="Yes"), 13, "reports 'sram_threshold_exceeded'"),
        (
            "memory",
            Card(reset="reset_required"),
            12,
            "is to be recovered, says the driver: 'Reset",
        ),
        ("memory", Card(reset="drain_and_reset_recommended"), 12, "driver: 'Drain and Reset'"),
        ("memory", Card(recovery="Reboot"), 13, "is to be recovered, says the driver: 'Reboot'"),
        ("heat", Card(temperature="86 C"), 12, "is at 86 °C and slows down at 85 °C"),
        ("heat", Card(temperature="86 C"), 13, "is 1 °C past where it slows down for its heat"),
        ("power", Card(draw="330.20 W"), 11, "draws 330 W, its limit is 300 W"),
        ("power", Card(draw="330.20 W"), 13, "draws 330 W, its limit is 300 W"),
        ("clocks", Card(active=("hw_thermal_slowdown",)), 9, "the hardware slows it down"),
        ("clocks", Card(active=("hw_power_brake_slowdown",)), 12, "the power supply asks it"),
        ("clocks", Card(active=("sw_thermal_slowdown",)), 13, "the driver slows it down"),
        ("clocks", Card(active=("hw_slowdown",)), 12, "is slowed down by the hardware"),
        ("link", Card(generation=(1, 3)), 9, "generation 1, width x16 under load, possible: gen"),
        ("link", Card(width=(8, 16)), 12, "generation 3, width x8 under load"),
        ("persistence", Card(persistence="Disabled"), 12, "is not in persistence mode"),
        ("mig", A100.but(mig=("Enabled", "Disabled"), slices=1), 12, "has MIG on, and off after"),
        ("mig", A100.but(mig=("Enabled", "Enabled")), 12, "has MIG on and no MIG device"),
        ("fabric", A100.but(fabric=("In Progress", "N/A")), 12, "NVLink fabric: 'In Progress'"),
        ("fabric", A100.but(fabric=("Completed", "Failure")), 12, "'Completed Failure'"),
    ],
)
def test_a_sick_gpu_is_named_with_its_cause(check, card, dtd, cause):
    host = healthy(card, report=Reply(document(card, dtd=dtd)))
    host.probe["compute"] = cuda(card, reports=[document(card, dtd=dtd)])
    verdict = getattr(Gpus(host), check)()
    assert len(verdict.faults) == 1
    assert cause in verdict.faults[0]
    assert str(verdict).startswith(f"gpu01: GPU 0 (0000:07:00.0, {card.name})")


@pytest.mark.parametrize(
    ("card", "dtd", "said"),
    [
        (Card(rows="4"), 12, "has remapped 4 row(s) of its memory in its life"),
        (Card(retired="2"), 10, "has retired 2 page(s) of its memory in its life"),
    ],
)
def test_memory_that_was_repaired_is_a_remark_and_no_fault(card, dtd, said):
    verdict = Gpus(healthy(card, report=Reply(document(card, dtd=dtd)))).memory()
    assert (verdict.judged, verdict.faults) == (1, ())
    assert verdict.remarks == (f"{LABEL} {said}",)
    assert Gpus(healthy()).memory().remarks == ()


def test_heat_that_comes_with_load_is_seen():
    host = healthy()
    host.probe["compute"] = cuda(Card(), reports=[document(Card(temperature="90 C"))])
    assert "is at 90 °C" in Gpus(host).heat().faults[0]


def test_an_idle_link_is_slow_and_no_fault():
    idle = Card(generation=(1, 3))
    host = healthy(idle)
    host.probe["compute"] = cuda(Card())
    assert Gpus(host).link().faults == ()


def test_a_narrow_slot_is_no_fault_of_the_card():
    narrow = Card(width=(8, 16))
    assert Gpus(healthy(narrow, survey=Reply(survey((narrow,), slot=8)))).link().faults == ()
    unseen = Gpus(healthy(narrow, survey=Reply(survey((narrow,), slot=255)))).link()
    assert "possible: generation 3, x16" in unseen.faults[0]


def test_a_slowdown_that_was_gone_at_the_next_look_is_no_fault():
    host = healthy(Card(active=("hw_slowdown",)))
    host.probe["compute"] = cuda(Card())
    assert Gpus(host).clocks().faults == ()


def test_a_guest_is_told_that_it_cannot_see_its_slot():
    (fault,) = Gpus(healthy(Card(width=(8, 16), virtualization="Pass-Through"))).link().faults
    assert "(a guest cannot see its slot: compare with 'lspci -vv -d 10de:1db1' there)" in fault


@pytest.mark.parametrize(
    ("check", "card"),
    [
        ("heat", Card(temperature="N/A")),
        ("link", Card(generation=("N/A", 3))),
        ("link", Card(width=("N/A", 16))),
        ("power", Card(draw="[Not Supported]")),
        ("persistence", Card(persistence="N/A")),
        ("mig", Card()),
        ("fabric", Card()),
    ],
)
def test_what_a_card_does_not_tell_is_not_counted_as_good(check, card):
    verdict = getattr(Gpus(healthy(card)), check)()
    assert (verdict.judged, verdict.faults) == (0, ())
    assert str(verdict).startswith(f"gpu01: {LABEL} ")


def test_a_mig_layout_that_is_not_the_selected_one_is_red():
    gpus = Gpus(healthy(A100, mig=Reply("Selected MIG devices not available\n", rc=1)))
    (fault,) = gpus.mig().faults
    assert fault.startswith("the MIG layout is not what nvidia-mig-manager has selected: ")
    assert fault.endswith("Selected MIG devices not available")
    assert Gpus(healthy(mig=Reply(rc=0))).mig().judged == 1


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
