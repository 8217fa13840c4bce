"""Each check of a node's GPUs turns red once, and says which GPU and why; the nodes answer from a
table."""

import pytest

from deepops_fixtures.checks import Gpus
from tests.harness.unit.gpu_hosts import (
    A100,
    LABEL,
    TWO,
    Host,
    Reply,
    cuda,
    healthy,
    survey,
)
from tests.harness.unit.smi_documents import Card, document

UNWELL = A100.but(
    fabric=("Completed", "Success"), fabric_health={"bandwidth": "Full", "route_unhealthy": "True"}
)
CHECKS = (
    "driver", "lost", "xids", "memory", "heat", "power", "clocks", "link", "persistence", "mig",
    "nvlinks", "fabric", "topology", "kernel", "bandwidth", "leftovers",
)  # fmt: skip


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
    gone = Card(temperature="GPU is lost", draw="GPU is lost", fabric=("GPU is lost",) * 2)
    (fault,) = Gpus(healthy(gone)).lost().faults
    assert fault.endswith("(gpu_temp: GPU is lost, power_draw: GPU is lost and 2 more)")


def test_an_xid_is_told_once_with_its_meaning():
    line = "NVRM: Xid (PCI:0000:07:00): 79, pid=1234, GPU has fallen off the bus.\n"
    switch = "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 33 egress\n"
    meaning = "(the GPU has fallen off the bus)"
    assert Gpus(healthy(log=Reply(line + switch + line + "readable\n"))).xids().faults == (
        f"GPU 0000:07:00 had Xid 79 {meaning}: pid=1234, GPU has fallen off the bus.",
        "NVSwitch 0000:c1:00.0 had SXid 12028: Non-fatal, Link 33 egress",
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NVRM: Xid (0000:07:00): 62, 1a2b(3c4d) 00000000 00000000",
         "GPU 0000:07:00 had Xid 62 (the GPU's own controller halted): 1a2b(3c4d) 0"),
        ("NVRM: Xid (PCI:0000:07:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off",
         "GPU 0000:07:00 had Xid 79 (the GPU has fallen off the bus): pid='<unknown>', name="),
        ("NVRM: Xid (PCI:0000:07:00 GPU-I:05): 94, pid=7, Contained: CE User Channel (0x9).",
         "GPU 0000:07:00 GPU-I:05 had Xid 94 (memory error that hit one program): pid=7"),
        ("NVRM: Xid (PCI:0000:07:00 GPU-I:01 GPU-CI:02): 13, pid=7, Graphics Exception",
         "GPU 0000:07:00 GPU-I:01 GPU-CI:02 had Xid 13 (exception in a program's kernel"),
        ("NVRM: Xid (PCI:0019:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x0045 0x0)",
         "GPU 0019:01:00 had Xid 149 (NVLink error): NETIR_LINK_EVT  Fatal"),
        ("NVRM: Xid (PCI:0000:07:00): 79, ",
         "GPU 0000:07:00 had Xid 79 (the GPU has fallen off the bus): nothing more is told"),
        ("NVRM: fallen off the bus and is not responding to commands.",
         "the kernel says 'NVRM: fallen off the bus and is not responding to commands.'"),
    ],
)  # fmt: skip
def test_an_xid_is_read_in_every_form_of_the_driver(line, said):
    (fault,) = Gpus(healthy(log=Reply(f"{line}\nreadable\n"))).xids().faults
    assert fault.startswith(said)


def test_an_error_that_fills_the_log_is_one_sentence():
    line = "NVRM: Xid (PCI:0000:{}:00): 13, pid=7, Graphics SM Warp Exception on (GPC {}, TPC 0)\n"
    log = "".join(line.format(bus, gpc) for bus in ("07", "08") for gpc in range(300))
    faults = Gpus(healthy(log=Reply(log + "readable\n"))).xids().faults
    assert len(faults) == 2
    assert faults[0].endswith("on (GPC 0, TPC 0) (and 299 more lines of it)")


def test_an_sxid_that_healthy_switches_tell_is_a_remark():
    line = "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): {}, Non-fatal, Link 57 Minion Link\n"
    log = line.format(22013) + line.format(20009) + "readable\n"
    verdict = Gpus(healthy(log=Reply(log))).xids()
    assert verdict.faults == (
        "NVSwitch 0000:c1:00.0 had SXid 20009: Non-fatal, Link 57 Minion Link",
    )
    assert verdict.remarks == (
        "NVSwitch 0000:c1:00.0 had SXid 22013: Non-fatal, Link 57 Minion Link",
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
        ("memory", Card(retired="63"), 11, "has retired 63 pages; NVIDIA's diagnostics fail"),
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
        ("fabric", UNWELL, 13, "is in an NVLink fabric that is not well (route_unhealthy: True)"),
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


@pytest.mark.parametrize("bus", ["0000:08:00.0", "00000000:08:00.0"])
def test_a_corrupted_inforom_is_red_for_its_gpu_alone(bus):
    said = f"WARNING: infoROM is corrupted at gpu {bus}\n"
    (fault,) = Gpus(healthy(*TWO, report=Reply(document(*TWO) + said))).memory().faults
    assert fault == (
        "GPU 1 (0000:08:00.0, Tesla V100-SXM2-16GB) has a corrupted infoROM, where the record of "
        "its bad memory is kept"
    )
    assert Gpus(healthy(*TWO, report=Reply(document(*TWO), stderr=said))).memory().faults


def test_rows_that_are_not_told_while_mig_is_on_are_said_to_be_unjudged():
    sliced = A100.but(mig=("Enabled", "Enabled"), slices=2, uncorrectable="N/A", rows="N/A")
    verdict = Gpus(healthy(sliced, report=Reply(document(sliced, dtd=12)))).memory()
    assert (verdict.judged, verdict.faults) == (1, ())
    (said,) = verdict.unjudged
    assert said.endswith("does not tell of its remapped rows while MIG is on")


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
