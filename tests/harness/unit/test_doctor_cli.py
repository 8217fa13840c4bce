"""deepops-virtual doctor: what it prints, for a person and for a script, and how it ends."""

import json

import pytest

from deepops_fixtures.doctor import run
from tests.harness.unit import pci_trees
from tests.harness.unit.doctors import prepared
from tests.harness.unit.pci_trees import HostTree


@pytest.fixture
def ready(tmp_path):
    """A DGX-1V that was prepared as the README says."""
    return prepared(pci_trees.dgx1v(HostTree(tmp_path / "host")))


def test_a_ready_host_is_told_in_a_sentence(deepops, ready):
    status, out, _ = deepops("doctor", "--root", str(ready.root), "--gpu", "auto")
    lines = out.splitlines()
    assert status == 0
    assert lines[-1] == (
        f"The host in '{ready.root}' is ready for cluster 'debian' with GPUs ('auto'), "
        "as far as its files tell."
    )
    assert "ok    iommu-groups         " in out
    assert "To mend:" not in out
    assert "\x1b" not in out


def test_what_mends_a_host_is_collected_at_the_end(deepops, tmp_path):
    tree = pci_trees.no_iommu(HostTree(tmp_path / "host")).acpi_table("APIC").dmi("DGX-1")
    status, out, _ = deepops("doctor", "--root", str(tree.root), "--gpu", "08:00.0")
    _, _, end = out.partition("To mend:\n")
    assert status == 1
    assert (
        "  iommu-table, iommu-groups:\n"
        "    DGX-1/1V SBIOS, then restart: VT-d: Intel RC Setup -> IIO Configuration -> VT-d\n"
    ) in end
    assert end.splitlines()[-1].startswith(f"The host in '{tree.root}' is not ready: ")
    assert end.splitlines()[-1].endswith(" checks fail.")


def test_a_host_without_iommu_is_ready_for_a_cluster_without_gpus(deepops, tmp_path):
    tree = pci_trees.no_iommu(HostTree(tmp_path / "host"))
    status, out, _ = deepops("doctor", "--root", str(tree.root))
    assert status == 0
    assert f"The host in '{tree.root}' is ready for cluster 'debian', as far as" in out
    assert "warn  iommu-groups" in out


def test_a_script_reads_the_same(deepops, ready):
    status, out, _ = deepops("doctor", "--root", str(ready.root), "--gpu", "9", "--json")
    data = json.loads(out)
    assert (status, data["ok"], list(data)) == (1, False, ["ok", "checks"])
    assert [check["name"] for check in data["checks"]] == [item.name for item in run.QUESTIONS]
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in data["checks"])
    assert [check["name"] for check in data["checks"] if check["status"] == "fail"] == ["gpus"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--root", "/no/such/folder"), "Folder '/no/such/folder' not found."),
        (("--root", "{tmp_path}"), "there is neither 'sys' nor 'proc' in it"),
        (("--cluster", "nowhere"), "There is no cluster named 'nowhere'."),
        (("--gpu", "all of them"), "does not say which GPUs are wanted"),
        (("--gpu", "0"), "asks for no GPU at all"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_is_looked_at(deepops, tmp_path, words, said):
    status, out, err = deepops("doctor", *(word.format(tmp_path=tmp_path) for word in words))
    assert (status, out, said in err) == (2, "", True), err


def test_a_malformed_tree_is_refused(deepops, ready):
    (ready.place("0000:08:00.0") / "vendor").write_text("NVIDIA\n")
    status, out, err = deepops("doctor", "--root", str(ready.root))
    assert (status, out) == (2, "")
    assert "holds 'NVIDIA', which is not a number" in err
