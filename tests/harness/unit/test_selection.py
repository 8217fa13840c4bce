"""What --deepops-gpu and GPUDATA ask for, and which node gets what for it."""

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.holder import Holder
from deepops_fixtures.passthrough.pci import Host
from deepops_fixtures.passthrough.selection import Request, choose, parse_gpudata
from tests.harness.unit import pci_trees as trees
from tests.harness.unit.pci_trees import HostTree

ONE, TWO = ["gpu01"], ["gpu01", "gpu02"]
ALL = ",".join(f"{bus}:00.0" for bus in trees.V100_BUSES)


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path)


def placed(tree: HostTree, request, nodes=ONE, **more) -> dict[str, list[str]]:
    """Return what each node gets, as 'bus:slot.function'."""
    if isinstance(request, str):
        request = Request.parse(request)
    placement = choose(Host(tree.root), request, nodes, **more)
    return {
        node: [str(item.bdf).removeprefix("0000:") for item in placement.devices(node)]
        for node in nodes
    }


def refused(tree: HostTree, request, nodes=ONE, **more) -> UsageProblem:
    with pytest.raises(UsageProblem) as problem:
        placed(tree, request, nodes, **more)
    return problem.value


def held(tree: HostTree, *numbers: int) -> dict[int, Holder]:
    return {
        number: Holder(instance="ab12", user="ada", pid=7, process_started=1, since=1e9)
        for number in numbers
    }


@pytest.mark.parametrize("text", ["257", "99999999999x10de:1db1", "9" * 5000])
def test_more_gpus_than_a_host_may_have_are_refused(text):
    with pytest.raises(UsageProblem, match="asks for more than 256 GPUs"):
        Request.parse(text)


# -- the request ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "count", "device"),
    [
        ("", "none", 0, ""),
        ("none", "none", 0, ""),
        ("auto", "auto", 0, ""),
        ("3", "count", 3, ""),
        ("10DE:1DB1", "auto", 0, "10de:1db1"),
        ("2x8086:10d3", "count", 2, "8086:10d3"),
        ("08:00.0,0001:0a:00.0", "addresses", 0, ""),
    ],
)
def test_each_form_of_the_option_is_understood(text, kind, count, device):
    request = Request.parse(text)
    assert (request.kind, request.count, request.device) == (kind, count, device)
    assert bool(request) == (kind != "none")


@pytest.mark.parametrize("text", ["all", "-1", "08:00", "08:00.0,auto", "08:00.0;0a:00.0", "1.5"])
def test_what_is_none_of_them_is_refused_with_the_forms(text):
    with pytest.raises(UsageProblem, match="does not say which GPUs are wanted") as problem:
        Request.parse(text)
    assert "auto" in problem.value.hint and "10de:1db1" in problem.value.hint


@pytest.mark.parametrize("text", ["0", "0x10de:1db1"])
def test_asking_for_none_by_number_is_refused(text):
    with pytest.raises(UsageProblem, match="asks for no GPU at all"):
        Request.parse(text)


def test_naming_a_device_twice_is_refused():
    with pytest.raises(UsageProblem, match=r"names '0000:08:00\.0' twice"):
        Request.parse("08:00.0,0000:08:00.0")


# -- GPUDATA --------------------------------------------------------------------------------


def test_gpudata_gives_the_first_bus_to_the_first_node(tree):
    trees.server(tree)
    for bus, group in (("85", 4), ("86", 5)):
        trees.gpu(tree, f"0000:{bus}:00.0", group=group)
    request = parse_gpudata("3-0x86,2-0x85")
    assert placed(tree, request, TWO) == {"gpu01": ["86:00.0"], "gpu02": ["85:00.0"]}


def test_one_entry_of_gpudata_is_for_one_node(tree):
    assert placed(trees.dgx1v(tree), parse_gpudata("3-0x8b")) == {"gpu01": ["8b:00.0"]}


def test_an_entry_without_a_node_is_left_unused_and_that_is_said(tree):
    placement = choose(Host(trees.dgx1v(tree).root), parse_gpudata("1-0x08,2-0x0a"), ONE)
    assert [str(unit) for unit in placement.units] == ["0000:08:00.0"]
    assert placement.warnings == (
        "GPUDATA names '0000:0a:00.0' too, and there is no GPU node for it.",
    )


def test_a_node_without_an_entry_is_refused(tree):
    problem = refused(trees.dgx1v(tree), parse_gpudata("3-0x08"), TWO)
    assert problem.message == ("GPUDATA '3-0x08' names 1 GPU and the cluster has 2 GPU nodes.")


@pytest.mark.parametrize(
    "text", ["", "3", "0x86", "3-86", "3-0x", "3-0x186", "3-0x86,", "3:0x86", "1-0x1,2-0x2,3-0x3"]
)
def test_malformed_gpudata_is_refused_with_an_example(text):
    with pytest.raises(UsageProblem, match=f"GPUDATA is '{text}'") as problem:
        parse_gpudata(text)
    assert "GPUDATA=3-0x86" in problem.value.hint


def test_gpudata_that_names_one_bus_twice_is_refused():
    with pytest.raises(UsageProblem, match=r"names '0000:86:00\.0' twice"):
        parse_gpudata("3-0x86,4-0x86")


def test_gpudata_of_a_bus_without_gpu_is_refused(tree):
    assert (
        "no PCI device '0000:77:00.0'"
        in refused(trees.dgx1v(tree), parse_gpudata("3-0x77")).message
    )


# -- by number ------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_given(tree):
    assert placed(trees.no_iommu(tree), "", TWO) == {"gpu01": [], "gpu02": []}


def test_auto_gives_each_node_a_gpu_from_a_memory_node_of_its_own(tree):
    assert placed(trees.dgx1v(tree), "auto", TWO) == {"gpu01": ["08:00.0"], "gpu02": ["89:00.0"]}


def test_the_same_question_has_the_same_answer(tree):
    trees.dgx1v(tree)
    assert placed(tree, "5", TWO) == placed(tree, "5", TWO)


def test_a_number_is_dealt_evenly_the_first_node_getting_what_is_over(tree):
    found = placed(trees.dgx1v(tree), "5", TWO)
    assert found == {
        "gpu01": ["08:00.0", "0a:00.0", "18:00.0"],
        "gpu02": ["89:00.0", "8b:00.0"],
    }


def test_a_number_below_that_of_the_nodes_leaves_the_last_without(tree):
    assert placed(trees.dgx1v(tree), "1", TWO) == {"gpu01": ["08:00.0"], "gpu02": []}


def test_a_share_larger_than_a_memory_node_takes_from_both(tree):
    found = placed(trees.dgx1v(tree), "6")
    assert len(found["gpu01"]) == 6 and found["gpu01"][:4] == [
        "08:00.0",
        "0a:00.0",
        "18:00.0",
        "1a:00.0",
    ]


def test_gpus_of_one_node_come_from_the_memory_node_that_has_enough(tree):
    trees.dgx1v(tree)
    found = placed(tree, "3", holders=held(tree, 40, 41))
    assert found == {"gpu01": ["89:00.0", "8b:00.0", "92:00.0"]}


def test_a_gpu_that_is_on_vfio_already_is_taken_first(tree):
    trees.dgx1v(tree, driver="nvidia").bind("0000:18:00.0", "vfio-pci")
    assert placed(tree, "1") == {"gpu01": ["18:00.0"]}


def test_the_audio_function_comes_along(tree):
    assert placed(trees.workstation(tree), "auto") == {"gpu01": ["02:00.0", "02:00.1"]}


def test_too_few_are_refused_saying_what_there_is_and_why_not_the_others(tree):
    problem = refused(trees.workstation(tree), "auto", TWO)
    assert problem.message == ("2 GPUs are needed for 'gpu01', 'gpu02' and 1 of 2 can be had.")
    assert problem.detail == "'0000:01:00.0' is the boot display of this host."
    assert problem.exit_code == 2


def test_a_host_without_gpu_is_refused(tree):
    problem = refused(trees.server(tree), "auto")
    assert problem.message == "1 GPU is needed for 'gpu01' and there is none on this host."


def test_a_cluster_without_gpu_node_is_refused(tree):
    assert "has no GPU node" in refused(trees.dgx1v(tree), "auto", []).message


def test_neither_other_makers_displays_nor_virtual_functions_are_taken_unasked(tree):
    trees.gpu(trees.server(tree), "0000:08:00.0", group=20, driver="nvidia")
    tree.pci("0000:08:00.4", trees.V100, trees.GPU_CLASS, group=21, physfn="0000:08:00.0")
    tree.pci("0000:03:00.0", "1a03:2000", trees.VGA_CLASS, driver="ast", group=22)
    assert "0 of 1 can be had" in refused(tree, "auto").message
    assert placed(tree, "1a03:2000") == {"gpu01": ["03:00.0"]}


def test_two_gpus_in_one_group_are_one_for_auto_and_two_by_number(tree):
    trees.gpu(trees.server(tree), "0000:05:00.0", group=12)
    trees.gpu(tree, "0000:06:00.0", group=12)
    assert placed(tree, "auto") == placed(tree, "2") == {"gpu01": ["05:00.0", "06:00.0"]}
    assert "groups that cannot be divided so" in refused(tree, "1").message


# -- by ID ----------------------------------------------------------------------------------


def emulated(tree: HostTree) -> HostTree:
    trees.server(tree)
    for number in (1, 2, 3):
        bdf = f"0000:0{number}:00.0"
        tree.pci(bdf, "8086:10d3", trees.NIC_CLASS, driver="e1000e", group=10 + number)
    return tree


def test_any_device_may_be_asked_for_by_its_id(tree):
    emulated(tree)
    assert placed(tree, "8086:10d3", TWO) == {"gpu01": ["01:00.0"], "gpu02": ["02:00.0"]}
    assert placed(tree, "3x8086:10d3", TWO) == {
        "gpu01": ["01:00.0", "02:00.0"],
        "gpu02": ["03:00.0"],
    }


def test_too_few_of_an_id_are_refused(tree):
    assert refused(emulated(tree), "4x8086:10d3").message == (
        "4 devices '8086:10d3' are needed for 'gpu01' and 3 of 3 can be had."
    )


# -- by address -----------------------------------------------------------------------------


def test_named_gpus_are_dealt_in_the_order_they_are_named(tree):
    trees.dgx1v(tree)
    assert placed(tree, "94:00.0,08:00.0", TWO) == {"gpu01": ["94:00.0"], "gpu02": ["08:00.0"]}
    assert placed(tree, "94:00.0,08:00.0,0a:00.0", TWO) == {
        "gpu01": ["94:00.0", "08:00.0"],
        "gpu02": ["0a:00.0"],
    }


def test_the_domain_of_an_address_counts(tree):
    placement = choose(Host(trees.nonzero_domain(tree).root), Request.parse("0001:08:00.0"), ONE)
    assert placement.groups == (21,)


def test_a_named_device_that_is_no_gpu_is_refused_with_its_id(tree):
    problem = refused(emulated(tree), "02:00.0")
    assert problem.message == ("'0000:02:00.0' is no GPU but 'Ethernet controller' (8086:10d3).")
    assert "8086:10d3" in problem.hint


def test_an_audio_function_is_refused_naming_its_gpu(tree):
    problem = refused(trees.workstation(tree), "02:00.1")
    assert "'0000:02:00.1' is no GPU but a function of '0000:02:00.0'" in problem.message


def test_half_of_a_group_is_refused_naming_the_rest(tree):
    trees.gpu(trees.server(tree), "0000:05:00.0", group=12)
    trees.gpu(tree, "0000:06:00.0", group=12)
    problem = refused(tree, "05:00.0")
    assert "IOMMU group 12 is handed through whole or not at all" in problem.message
    assert "it also holds 0000:06:00.0" in problem.message
    assert placed(tree, "05:00.0,06:00.0") == {"gpu01": ["05:00.0", "06:00.0"]}


def test_a_named_device_that_is_refused_says_why(tree):
    assert "is the boot display" in refused(trees.workstation(tree), "01:00.0").message
    assert "no PCI device '0000:77:00.0'" in refused(tree, "77:00.0").message


def test_a_leased_device_is_refused_until_leases_end(tree):
    trees.dgx1v(tree)
    assert "leased to cluster 'ab12'" in refused(tree, "08:00.0", holders=held(tree, 40)).message
    later = placed(tree, "08:00.0", holders=held(tree, 40), leases_end=True)
    assert later == {"gpu01": ["08:00.0"]}


# -- NVSwitches -----------------------------------------------------------------------------


@pytest.mark.parametrize("request_text", ["8", ALL, f"{ALL},10:00.0", "8x10de:1db1"])
def test_the_switches_go_with_all_gpus(tree, request_text):
    found = placed(trees.dgx2(tree), request_text)["gpu01"]
    assert [item for item in found if item[:2] in trees.NVSWITCH_BUSES] == [
        "10:00.0",
        "11:00.0",
        "12:00.0",
    ]
    assert len(found) == 11


def test_fewer_gpus_leave_the_switches_behind_and_that_is_said(tree):
    placement = choose(Host(trees.dgx2(tree).root), Request.parse("1"), ONE)
    assert [str(unit) for unit in placement.units] == ["0000:08:00.0"]
    (warning,) = placement.warnings
    assert warning == (
        "'gpu01' gets 1 of the 8 GPUs of this host, so the NVSwitches stay behind and NVLink does "
        "not work in it."
    )


def test_all_gpus_over_two_nodes_leave_the_switches_behind(tree):
    placement = choose(Host(trees.dgx2(tree).root), Request.parse("8"), TWO)
    assert len(placement.units) == 8 and len(placement.warnings) == 2


@pytest.mark.parametrize("text", ["10:00.0", "10de:1ac1", "08:00.0,10:00.0"])
def test_a_switch_in_other_company_is_refused(tree, text):
    problem = refused(trees.dgx2(tree), text)
    assert problem.message.startswith("NVSwitches go to one node, together with all 8 GPUs")


def test_all_gpus_are_refused_when_a_switch_cannot_come(tree):
    trees.dgx2(tree)
    assert "'0000:11:00.0' is leased" in refused(tree, "8", holders=held(tree, 61)).message


def test_a_host_without_switches_warns_of_nothing(tree):
    assert choose(Host(trees.dgx1v(tree).root), Request.parse("1"), ONE).warnings == ()


# -- the whole ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["auto", "2", "5", "8", "10de:1db1", ALL])
@pytest.mark.parametrize("leased", [(), (40,), (40, 44, 45)])
def test_nobody_ever_gets_what_is_refused_or_what_another_gets(tree, text, leased):
    host = Host(trees.dgx2(tree).root)
    try:
        placement = choose(host, Request.parse(text), TWO, held(tree, *leased))
    except UsageProblem as problem:
        assert leased and "is leased to cluster 'ab12'" in str(problem)
        return
    groups = [group for unit in placement.units for group in unit.groups]
    assert len(groups) == len(set(groups)) and not set(groups) & set(leased)
