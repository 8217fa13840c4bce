"""What nvidia-smi prints becomes objects, in the shape of every driver from r390 to r590."""

import pytest

from deepops_fixtures.checks import NvidiaSmi, SmiReport
from deepops_fixtures.checks.nvidia_smi import OUTSIDE, parse_nvlinks, parse_topology
from deepops_fixtures.checks.nvidia_smi_data import kernel_address
from deepops_fixtures.errors import CheckFailed
from tests.harness.unit.gpu_hosts import Host, Reply
from tests.harness.unit.smi_documents import DRIVERS, Card, document

EVERY = pytest.mark.parametrize("dtd", DRIVERS)


def only(card: Card, dtd: int):
    return SmiReport.parse(document(card, dtd=dtd)).gpus[0]


@EVERY
def test_a_gpu_is_read_with_its_units(dtd):
    report = SmiReport.parse(document(Card(), dtd=dtd))
    assert (report.driver_version, report.attached, report.remarks) == (DRIVERS[dtd], 1, ())
    gpu = report.gpus[0]
    assert (gpu.index, gpu.address, gpu.pci_id) == (0, "0000:07:00.0", "10de:1db1")
    assert (gpu.name, gpu.uuid) == ("Tesla V100-SXM2-16GB", "GPU-1")
    assert (gpu.persistence, gpu.ecc, gpu.virtualization) == (True, True, "None")
    assert (gpu.pcie_generation, gpu.pcie_generation_max) == (3, 3)
    assert (gpu.pcie_width, gpu.pcie_width_max) == (16, 16)
    assert (gpu.temperature_c, gpu.power_w, gpu.power_limit_w) == (34.0, 52.1, 300.0)
    assert (gpu.sm_clock_mhz, gpu.sm_clock_max_mhz, gpu.memory_clock_mhz) == (1290, 1530, 877)
    assert (gpu.memory_total_mib, gpu.memory_used_mib) == (16160, 3)
    assert gpu.clock_reasons == {"gpu_idle"}
    assert (gpu.ecc_uncorrectable, gpu.ecc_uncorrectable_ever) == (0, 0)
    assert (gpu.broken, gpu.repairs, gpu.recovery, gpu.fabric_state) == ((), (), "", "")


@EVERY
def test_uncorrectable_errors_are_found_wherever_they_are_told(dtd):
    assert only(Card(uncorrectable="3"), dtd).ecc_uncorrectable == 3


@EVERY
def test_a_value_that_is_not_told_is_none_and_not_zero(dtd):
    gpu = only(
        Card(
            uncorrectable="N/A", draw="[N/A]", limit="[Not Supported]", persistence="N/A",
            temperature="Requested functionality has been deprecated",
        ),
        dtd,
    )  # fmt: skip
    told = (gpu.power_w, gpu.power_limit_w, gpu.persistence, gpu.temperature_c)
    assert told == (None, None, None, None)
    # The SRAM's errors are told where they are told apart.
    assert gpu.ecc_uncorrectable == (None if dtd == 9 else 0)


@pytest.mark.parametrize("said", ["N/A", "[N/A]", "[Not Supported]", "[Insufficient Permissions]"])
def test_words_for_nothing_are_no_text_either(said):
    gpu = only(Card(name=said, fabric=(said, said), recovery=said), 13)
    assert (gpu.name, gpu.fabric_state, gpu.recovery) == ("", "", "")


def test_old_cards_tell_pages_and_new_ones_rows():
    old = only(Card(retired="2", retirement_pending="Yes"), 11)
    assert (old.retired_pages, old.retirement_pending, old.remap_pending) == (2, True, None)
    new = only(Card(rows="4", remap_pending="Yes", remap_failure="Yes"), 12)
    assert (new.remapped_rows, new.remap_pending, new.remap_failed) == (4, True, True)
    assert (new.retired_pages, new.retirement_pending) == (None, None)


def test_the_newest_drivers_tell_how_far_the_heat_is_from_slowing_down():
    assert only(Card(temperature="34 C", slowdown=85), 12).slowdown_c == 85
    gpu = only(Card(temperature="34 C", slowdown=85), 13)
    assert (gpu.slowdown_c, gpu.headroom_c) == (None, 51)


def test_mig_devices_are_read():
    gpu = only(Card(mig=("Enabled", "Disabled"), slices=2), 12)
    assert (gpu.mig, gpu.mig_pending) == (True, False)
    assert [(each.index, each.gpu_instance, each.memory_mib) for each in gpu.mig_devices] == [
        (0, 1, 4864),
        (1, 2, 4864),
    ]
    assert only(Card(), 12).mig is None


def test_with_mig_the_errors_are_those_of_the_slices():
    sliced = Card(mig=("Enabled", "Enabled"), slices=2, uncorrectable="N/A")
    assert only(sliced, 12).ecc_uncorrectable == 0
    assert only(sliced.but(sliced_errors="3"), 12).ecc_uncorrectable == 6
    assert only(sliced.but(sliced_errors="3", uncorrectable="7"), 12).ecc_uncorrectable == 7
    assert only(sliced.but(sliced_errors="N/A"), 12).ecc_uncorrectable is None


def test_a_process_computes_when_it_does_not_draw():
    kinds = ("C", "G", "C+G", "M+C")
    gpu = only(Card(processes=tuple((n, kind, "a<b") for n, kind in enumerate(kinds, 10))), 12)
    assert [process.computes for process in gpu.processes] == [True, False, False, True]
    assert (gpu.processes[0].pid, gpu.processes[0].name) == (10, "a<b")
    assert gpu.processes[0].memory_mib == 312


def test_a_gpu_that_does_not_answer_is_noted_with_the_element():
    gpu = only(Card(temperature="GPU is lost", draw="ERR!"), 12)
    assert gpu.broken == ("gpu_temp: GPU is lost", "power_draw: ERR!")


def test_an_addressing_mode_that_the_driver_does_not_know_is_no_error_of_the_gpu():
    assert only(Card(addressing="Unknown Error"), 12).broken == ()


def test_what_the_fabrics_health_complains_of_is_noted():
    well = {
        "summary": "Healthy", "bandwidth": "Full", "route_recovery_in_progress": "False",
        "route_unhealthy": "False", "access_timeout_recovery": "N/A",
        "incorrect_configuration": "None", "partition_assigned": "N/A",
    }  # fmt: skip
    assert only(Card(fabric_health=well), 13).fabric_faults == ()
    assert only(Card(fabric_health=dict.fromkeys(well, "N/A")), 13).fabric_faults == ()
    sick = {
        "summary": "Unhealthy", "bandwidth": "Degraded", "route_recovery_in_progress": "True",
        "route_unhealthy": "True", "access_timeout_recovery": "True",
        "incorrect_configuration": "Incorrect SystemGuid",
    }  # fmt: skip
    told = only(Card(fabric_health=sick), 13).fabric_faults
    assert told == tuple(f"{name}: {text}" for name, text in sick.items())


def test_what_stands_around_the_document_is_kept():
    lost = "Unable to determine the device handle for GPU 0000:08:00.0: GPU is lost."
    report = SmiReport.parse(f"{lost}\n{document(Card())}WARNING: infoROM is corrupted\n")
    assert report.remarks == (lost, "WARNING: infoROM is corrupted")
    assert len(report.gpus) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it printed nothing"),
        ("No devices were found\n", "No devices were found"),
        (document(Card())[:400], "nvidia_smi_log"),
        (document(Card()).replace("<product_name>", "<product_name"), "cannot be read"),
    ],
)
def test_an_output_without_a_whole_document_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        SmiReport.parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:1A:00.0", "0000:1a:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("GPU-1", "gpu-1"),
    ],
)
def test_addresses_are_written_as_the_kernel_does(text, address):
    assert kernel_address(text).lower() == address


def test_nvlinks_are_read_with_those_that_are_down():
    text = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n\t Link 0: 25 GB/s\n\t Link 1: <inactive>\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-2)\n"
        "NVML: Unable to retrieve NVLink information as all links are inActive\n"
    )
    assert parse_nvlinks(text) == {0: {0: 25.0, 1: None}, 1: {}}


def test_the_topology_is_read_without_network_cards_and_affinities():
    text = (
        "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
        "GPU0\t X \tNV18\tPXB\t0-55,112\t0\t\tN/A\nGPU1\tNV18\t X \tSYS\t0-55\t0\t\tN/A\n"
        "NIC0\tPXB\tSYS\t X \t\t\t\t\n\nLegend:\n\n  X    = Self\n  NIC0: mlx5_0\n"
    )
    assert parse_topology(text) == {(0, 1): "NV18", (1, 0): "NV18"}
    assert parse_topology("No devices were found") == {}


def test_nvidia_smi_that_gives_no_report_says_why_and_where():
    said = "Failed to initialize NVML: Driver/library version mismatch"
    host = Host({"-q -x": Reply(said, rc=18), "-L": Reply(said, rc=18)})
    with pytest.raises(CheckFailed, match=r"'gpu01' gives no report \(exit status 18\): Failed"):
        _ = NvidiaSmi(host).report


def test_gpus_that_are_hidden_from_logins_are_asked_for_outside_of_the_session():
    host = Host(
        {
            f"{OUTSIDE}.*-L$": Reply("GPU 0: Tesla V100 (UUID: GPU-1)\n"),
            f"{OUTSIDE}.*-q -x$": Reply(document(Card())),
            "-L$": Reply("No devices were found\n", rc=6),
        }
    )
    smi = NvidiaSmi(host)
    assert len(smi.gpus) == 1
    assert smi.hidden_from_logins


def test_gpus_that_logins_see_are_asked_for_directly():
    host = Host({OUTSIDE: Reply("No devices were found", rc=6), "-L$": Reply("GPU 0: V100\n")})
    assert not NvidiaSmi(host).hidden_from_logins
    assert not [command for command in host.commands if command.startswith(OUTSIDE)]
