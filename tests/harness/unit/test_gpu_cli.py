"""deepops-virtual gpu list, bind, unbind: what they say and with which status they end."""

import json
import os
import time
from functools import partial

import pytest

from deepops_fixtures import cli
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import binding
from deepops_fixtures.passthrough.leases import Leases, Owner
from deepops_fixtures.passthrough.pci import Bdf, Host
from deepops_fixtures.passthrough.selection import Request
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree
from tests.harness.unit.test_binding import Kernel

FIELDS = [
    "bdf", "id", "class", "name", "driver", "iommu_group", "group_members", "assignable", "reason",
    "lease",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path / "host")


@pytest.fixture
def gpu(tree, monkeypatch, command_line):
    """Return a function that runs deepops-virtual gpu; bind and unbind work on the tree."""
    monkeypatch.setattr(cli.gpu, "this_host", lambda: Host(tree.root))
    monkeypatch.setattr(
        cli.gpu, "binder", lambda host: binding.Binder(host, write=Kernel(tree).write, patience=1)
    )
    monkeypatch.setenv("COLUMNS", "200")
    return partial(command_line, "gpu")


# -- list -----------------------------------------------------------------------------------


def test_the_list_is_json_with_the_fields_that_scripts_read(gpu, tree):
    trees.dgx2(tree)
    status, out, err = gpu("list", "--json", "--root", str(tree.root))
    items = json.loads(out)
    assert (status, err, len(items)) == (0, "", 11)
    assert all(list(item) == FIELDS for item in items)


def test_a_person_reads_what_is_free_and_why_the_rest_is_not(gpu, tree):
    trees.workstation(tree)
    status, out, _ = gpu("list", "--root", str(tree.root))
    assert status == 0
    states = {line.split()[1]: line.split()[-2] for line in out.splitlines() if "│ 0000:" in line}
    assert states == {"0000:01:00.0": "refused", "0000:02:00.0": "free"}
    assert out.splitlines()[-1] == "'0000:01:00.0' is the boot display of this host."


def test_what_goes_along_is_said_once_for_each_device(gpu, tree):
    trees.dgx2(tree)
    _, out, _ = gpu("list", "--root", str(tree.root))
    assert out.splitlines()[-3:] == [
        f"'0000:{bus}:00.0' goes along when one node gets every GPU of this host."
        for bus in trees.NVSWITCH_BUSES
    ]


def test_without_any_group_the_doctor_is_next(gpu, tree):
    trees.no_iommu(tree)
    _, out, _ = gpu("list", "--root", str(tree.root))
    assert out.splitlines()[-1] == (f"Next: deepops-virtual doctor --gpu auto --root {tree.root}")


def test_a_copy_without_groups_is_not_said_to_have_its_iommu_off(gpu, tree):
    trees.no_iommu(tree)
    (tree.root / "sys/kernel/iommu_groups").rmdir()
    _, out, _ = gpu("list", "--root", str(tree.root))
    assert f"is in no IOMMU group: '{tree.root}' has no '/sys/kernel/iommu_groups'." in out


def test_the_list_says_who_holds_what_since_when(gpu, tree):
    trees.dgx1v(tree)
    (tree.root / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    lease = Leases(tree.root).acquire(Request.parse("08:00.0"), ["n"], Owner("ab12"))
    assert lease.groups == (40,)
    _, out, _ = gpu("list", "--root", str(tree.root))
    day = time.strftime("%Y-%m-%d")
    last = out.splitlines()[-1]
    assert last.startswith("'0000:08:00.0' is leased to cluster 'ab12' of user")
    assert f"since {day}" in last and last.endswith(f"(process {os.getpid()}).")
    _, out, _ = gpu("list", "--json", "--root", str(tree.root))
    first = json.loads(out)[0]
    assert first["lease"]["instance"] == "ab12" and first["lease"]["pid"] == os.getpid()
    assert not first["assignable"]


def test_other_devices_are_listed_by_their_id(gpu, tree):
    trees.gpu_sharing_group_with_nic(tree)
    _, out, _ = gpu("list", "--json", "--root", str(tree.root), "--device", "15b3:1017")
    assert [item["bdf"] for item in json.loads(out)] == ["0000:05:00.0", "0000:06:00.0"]
    assert all(item["assignable"] for item in json.loads(out))


def test_a_host_without_gpu_says_so(gpu, tree):
    trees.server(tree)
    status, out, _ = gpu("list", "--root", str(tree.root))
    assert (status, out.split(".")[0]) == (0, "This host has no GPU and no NVSwitch")
    assert gpu("list", "--json", "--root", str(tree.root))[1] == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", "/nowhere/at/all"], "Folder '/nowhere/at/all' not found."),
        (["--device", "v100"], "'v100' is not a device ID."),
        (["--device", "10DE:FFFF"], "This host has no device '10de:ffff'."),
    ],
)
def test_bad_input_is_refused_in_a_sentence(gpu, tree, words, said):
    trees.server(tree)
    words = words if "--root" in words else [*words, "--root", str(tree.root)]
    status, out, err = gpu("list", *words)
    assert (status, out) == (2, "") and said in err


def test_a_malformed_sysfs_is_refused_naming_the_file(gpu, tree):
    (tree.pci("0000:08:00.0", "10de:1db1", trees.GPU_CLASS) / "class").write_text("gpu\n")
    status, _, err = gpu("list", "--root", str(tree.root))
    assert status == 2 and "0000:08:00.0/class' holds 'gpu'" in err


# -- bind, unbind ---------------------------------------------------------------------------


def test_a_card_goes_to_vfio_and_back(gpu, tree):
    trees.workstation(tree).bind("0000:02:00.0", "nouveau")
    status, out, _ = gpu("bind", "02:00.0")
    assert (status, out.splitlines()) == (
        0,
        ["0000:02:00.0: vfio-pci, was on nouveau", "0000:02:00.1: vfio-pci, as before"],
    )
    assert Host(tree.root).get(Bdf.parse("02:00.0")).driver == "vfio-pci"
    assert gpu("unbind", "02:00.0") == (0, "0000:02:00.0: nouveau, as before\n", "")
    assert Host(tree.root).get(Bdf.parse("02:00.0")).driver == "nouveau"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bind", "01:00.0"], "is the boot display of this host"),
        (["bind", "77:00.0"], "There is no PCI device '0000:77:00.0' on this host"),
        (["bind", "0x77"], "'0x77' is not a PCI address"),
        (["bind", "00:1f.6"], "'0000:00:1f.6' is no GPU but"),
        (["bind", "00:1f.6", "--device", "8086:15b7"], "is the network card of the default route"),
        (["unbind", "02:00.0"], "was not bound by this tool"),
    ],
)
def test_what_may_not_be_moved_is_refused_and_nothing_changes(gpu, tree, words, said):
    trees.workstation(tree)
    before = [item.driver for item in Host(tree.root).devices.values()]
    status, out, err = gpu(*words)
    assert (status, out) == (2, "") and said in err
    assert [item.driver for item in Host(tree.root).devices.values()] == before


def test_a_leased_card_is_neither_bound_nor_unbound(gpu, tree):
    trees.dgx1v(tree)
    (tree.root / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    lease = Leases(tree.root).acquire(Request.parse("08:00.0"), ["n"], Owner("ab12"))
    assert lease.groups == (40,)
    for command in ("bind", "unbind"):
        status, _, err = gpu(command, "08:00.0")
        assert status == 2 and "is leased to cluster 'ab12'" in err


def test_a_card_that_did_not_come_back_from_a_guest_is_given_back(gpu, tree):
    trees.dgx1v(tree).bind("0000:08:00.0", "nvidia")
    Leases(tree.root).acquire(Request.parse("08:00.0,0a:00.0"), ["n"], Owner("gone")).close()
    tree.bind("0000:08:00.0", "vfio-pci")
    status, _, err = gpu("bind", "08:00.0")
    assert status == 2 and "is leased to cluster 'gone'" in err
    assert gpu("unbind", "08:00.0") == (0, "0000:08:00.0: nvidia, as before\n", "")
    assert Host(tree.root).get(Bdf.parse("08:00.0")).driver == "nvidia"
    # This one was on vfio-pci before the guest had it.
    status, _, err = gpu("unbind", "0a:00.0")
    assert status == 2 and "was not bound by this tool" in err


def test_a_card_that_was_bound_after_a_killed_run_is_not_that_runs(gpu, tree):
    trees.dgx1v(tree).bind("0000:08:00.0", "nvidia")
    Leases(tree.root).acquire(Request.parse("08:00.0"), ["n"], Owner("gone")).close()
    assert gpu("bind", "08:00.0")[0] == 0
    assert Leases(tree.root).holders() == {}
    tree.file(binding.MEMORY, "[]")
    assert set(Leases(tree.root).holders()) == {40}


def test_help_teaches_by_example(gpu):
    for command in ("list", "bind", "unbind"):
        _, out, _ = gpu(command, "--help")
        assert f"deepops-virtual gpu {command}" in out


def test_this_host_is_asked_for_its_leases_and_machines(gpu, tree, monkeypatch):
    trees.dgx1v(tree)
    monkeypatch.setattr(Host, "is_this_host", True)
    monkeypatch.setattr(cli.gpu.gpus, "ROOT", tree.root)
    monkeypatch.setattr(cli.gpu.gpus, "in_guests", lambda: {Bdf.parse("08:00.0"): "win10"})
    status, out, err = gpu("list", "--json", "--root", str(tree.root))
    assert (status, err) == (0, "")
    assert json.loads(out)[0]["reason"] == "'0000:08:00.0' is in the virtual machine 'win10'."


def test_a_libvirt_that_does_not_answer_is_said_and_the_list_is_shown(gpu, tree, monkeypatch):
    def refuses() -> dict[Bdf, str]:
        raise UsageProblem("libvirt does not answer.")

    trees.dgx1v(tree)
    monkeypatch.setattr(Host, "is_this_host", True)
    monkeypatch.setattr(cli.gpu.gpus, "ROOT", tree.root)
    monkeypatch.setattr(cli.gpu.gpus, "in_guests", refuses)
    status, out, err = gpu("list", "--json", "--root", str(tree.root))
    assert (status, len(json.loads(out))) == (0, 8)
    assert "libvirt does not answer, so what its virtual machines have is not known" in err
