"""What the machines of a cluster are made from: everything that counts, and nothing else."""

import shutil
from pathlib import Path

import pytest

from deepops_fixtures import inputs, resources
from deepops_fixtures.cluster import recipe, topology
from deepops_fixtures.cluster.box import Box

ROOM = Path(recipe.__file__).parent

#: Modules of the cluster room that have no part in how a machine looks when it is up, and why. A
#: new module belongs here or in ``recipe._CODE``.
NO_PART = {
    "__init__.py",
    "accelerator.py",  # what it chooses is an input
    "base_image.py",  # the box's version is an input
    "box.py",  # likewise
    "checkpoints.py",  # keeps what was taken; its format is looked at when it is read
    "capacity.py",  # whether there is room
    "cluster_file.py",  # what it reads is an input
    "gpus.py",  # what was asked for is an input; the devices are in the checkpoint
    "hypervisor.py",  # looks and removes
    "ledger.py",  # remembers
    "node_names.py",  # for machines that are not ours
    "public_box.py",  # the box's name is an input
    "recipe.py",  # what it finds is the inputs
    "restoring.py",  # works on what was taken
    "teardown.py",  # removes
    "topology.py",  # what it reads is an input
    "volumes.py",  # looks, removes, and makes disks of what was taken
}
NO_PART_OF_PROVIDERS = {"__init__.py", "inventory.py", "vagrant_folder.py"}


@pytest.fixture
def spec():
    return topology.load("debian")


@pytest.fixture
def vagrant(tmp_path, monkeypatch):
    """A copy of the folder of the Vagrantfiles, in the place of the project's own."""
    copy = tmp_path / "vagrant"
    shutil.copytree(resources.vagrant(), copy)
    monkeypatch.setattr(resources, "vagrant", lambda: copy)
    return copy


@pytest.fixture
def changed(connection, spec, vagrant, tmp_path):
    """Return a function that says what has changed since the test began."""

    def now(spec=spec, accelerator="tcg", **more):
        return recipe.up_inputs(spec, Box("debian12", tmp_path), accelerator, **more)

    before = now()
    return lambda **given: inputs.changes(before, now(**given))


def test_every_module_of_the_room_is_an_input_or_has_no_part_in_the_machines():
    mine = {name for name in recipe._CODE if "/" not in name}
    assert {path.name for path in ROOM.glob("*.py")} == {*mine, *NO_PART}
    assert not NO_PART & set(recipe._CODE)


def test_every_provider_is_an_input_or_makes_no_machines():
    there = {path.name for path in (ROOM / "providers").glob("*.py")}
    assert there == {"vagrant.py", *NO_PART_OF_PROVIDERS}
    assert "providers/vagrant.py" in recipe._CODE


def test_the_same_cluster_has_the_same_inputs(changed):
    assert changed() == []


def test_the_size_of_a_node_counts(changed, spec):
    node = spec.nodes["virtual-login"]
    larger = node.model_copy(update={"memory": 2 * node.memory})
    nodes = {**spec.nodes, "virtual-login": larger}
    assert changed(spec=spec.model_copy(update={"nodes": nodes})) == [
        f"cluster: nodes.virtual-login.memory is {2 * node.memory}, was {node.memory}"
    ]


def test_one_node_less_counts(changed, spec):
    nodes = {name: node for name, node in spec.nodes.items() if name != "virtual-mgmt"}
    (said,) = changed(spec=spec.model_copy(update={"nodes": nodes}))
    assert said.startswith("cluster: nodes.virtual-mgmt.")
    assert "is gone" in said


def test_the_words_that_describe_a_cluster_do_not_count(changed, spec):
    assert changed(spec=spec.model_copy(update={"description": "Another description"})) == []


@pytest.mark.parametrize("name", ["Vagrantfile-debian", "cluster.rb", "identity.sh"])
def test_the_vagrantfile_and_the_script_of_the_identity_count(changed, vagrant, name):
    with (vagrant / name).open("a") as file:
        file.write("\n# one more line\n")
    assert changed() == [f"vagrant: {name} changed"]


def test_another_vagrantfile_counts(changed, vagrant, spec):
    shutil.copy(vagrant / "Vagrantfile-debian", vagrant / "Vagrantfile-mine")
    other = spec.model_copy(update={"vagrantfile": "Vagrantfile-mine"})
    assert changed(spec=other) == ["vagrant: Vagrantfile-debian is gone, Vagrantfile-mine is new"]


def test_a_vagrantfile_that_lies_elsewhere_counts_too(changed, vagrant, spec, tmp_path):
    elsewhere = tmp_path / "Vagrantfile-debian"
    shutil.copy(vagrant / "Vagrantfile-debian", elsewhere)
    other = spec.model_copy(update={"vagrantfile": str(elsewhere)})
    assert changed(spec=other) == []
    elsewhere.write_text("# nothing\n")
    assert changed(spec=other) == ["vagrant: Vagrantfile-debian changed"]


def test_what_lies_beside_the_vagrantfile_does_not_count(changed, vagrant):
    (vagrant / "clusters" / "mine.yml").write_text("box: debian12\n")
    assert changed() == []


def test_what_the_box_is_made_from_counts(changed, vagrant):
    with (vagrant / "boxes" / "debian12" / "customize.sh").open("a") as file:
        file.write("\n# one more line\n")
    (said,) = changed()
    assert said.startswith("box: debian12 is 2.0.")


def test_a_box_that_vagrant_downloaded_is_known_by_its_versions(
    connection, spec, tmp_path, monkeypatch
):
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path))
    other = spec.model_copy(update={"box": "generic/debian12"})
    before = recipe.up_inputs(other, None, "tcg")
    assert before["box"] == {"generic/debian12": "not here"}
    (tmp_path / "boxes" / "generic-VAGRANTSLASH-debian12" / "4.3.12").mkdir(parents=True)
    after = recipe.up_inputs(other, None, "tcg")
    assert inputs.changes(before, after) == ["box: generic/debian12 is 4.3.12, was not here"]


def test_the_accelerator_counts(changed):
    (said,) = changed(accelerator="kvm")
    assert said.startswith("host: accelerator is kvm, was tcg")


def test_whether_there_is_a_way_out_counts(changed):
    assert changed(airgap=True) == ["network: way out is none (airgap), was NAT"]


def test_another_qemu_counts(changed, connection, monkeypatch):
    monkeypatch.setattr(connection, "getVersion", lambda: 9001000)
    assert changed() == ["host: qemu is 9001000, was 8002000"]
