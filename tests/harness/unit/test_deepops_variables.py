"""Variables and configuration of a run: whose count, the traps of DeepOps, what is refused."""

from pathlib import Path

import pytest

from deepops_fixtures.deepops import config, driving, finding, variables
from deepops_fixtures.deepops.driving import Wish
from deepops_fixtures.errors import UsageProblem
from tests.harness.unit import checkouts

BOTH = ("slurm", "kubernetes")


@pytest.fixture
def checkout(tmp_path):
    return checkouts.repository(tmp_path / "deepops")


@pytest.fixture
def drive(tmp_path, checkout):
    def drive(*playbooks, parts=("slurm",), **wish):
        found = finding.find(str(checkout), cache=tmp_path / "cache")
        return driving.drivings(
            found, Wish(playbooks=playbooks, **wish), parts, BOTH, tmp_path / "cache"
        )

    return drive


def given(driving, number=0):
    return dict(driving.steps[number].variables)


# -- what is passed


def test_what_deepops_own_virtual_scripts_pass_is_passed(drive):
    (slurm,) = drive()
    assert (
        given(slurm).items()
        >= {
            "hosts_network_interface": "eth1",
            "slurm_allow_ssh_user": ["vagrant", "root"],
            "rsyslog_client_tcp_host": "{{ groups['slurm-master'][0] }}",
        }.items()
    )
    assert slurm.limit == "slurm-cluster"
    assert [(str(step.playbook), step.tags) for step in slurm.steps] == [
        ("playbooks/slurm-cluster.yml", ""),
        ("playbooks/slurm-cluster/slurm.yml", "undrain"),
    ]


def test_the_checkouts_own_file_of_them_counts(drive, checkout):
    file = checkout / "virtual" / "vars_files" / "virt_slurm.yml"
    file.parent.mkdir(parents=True)
    file.write_text("slurm_allow_ssh_user: [someone]\n")
    (slurm,) = drive()
    assert given(slurm)["slurm_allow_ssh_user"] == ["someone"]
    assert given(slurm)["hosts_network_interface"] == "eth1"


def test_what_the_user_says_counts_most_and_the_last_most_of_all(drive, tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text("hosts_network_interface: eth0\nnfs_server_daemon: one\n")
    assert variables.from_user([str(file)]) == variables.from_user([f"@{file}"])
    said = variables.from_user(
        [f"@{file}", "nfs_server_daemon=two", '{"slurm_install_nhc": false}']
    )
    assert said == {
        "hosts_network_interface": "eth0", "nfs_server_daemon": "two", "slurm_install_nhc": False,
    }  # fmt: skip
    (slurm,) = drive("generic/nfs-server.yml", variables={**said, "hostlist": "two"})
    assert given(slurm).items() >= {**said, "hostlist": "two"}.items()


# -- the traps


def test_trap_1_hostlist_behind_an_import_is_passed_where_the_playbook_is_chosen(drive, checkout):
    cluster = checkout / "playbooks" / "slurm-cluster.yml"
    cluster.write_text(
        cluster.read_text().replace(
            "import_playbook: slurm-cluster/lmod.yml",
            "import_playbook: slurm-cluster/lmod.yml hostlist=slurm-node",
        )
    )
    (slurm,) = drive("slurm-cluster/lmod.yml")
    assert given(slurm)["hostlist"] == "slurm-node"
    (whole,) = drive()
    # For the whole cluster it cannot be: it would count for every play. It is told instead.
    assert "hostlist" not in given(whole)
    imports = whole.playbooks.imports(whole.named[0])
    (told,) = variables.dropped(imports, checkout)
    assert "slurm-cluster.yml:35: ansible-core drops 'hostlist=slurm-node'" in told


def test_trap_2_kubernetes_has_the_ansible_that_kubespray_asserts(drive, checkout):
    place = checkout / "submodules" / "kubespray"
    (place / "cluster.yml").write_text("- hosts: k8s_cluster\n")
    (kubernetes,) = drive(parts=("kubernetes",))
    assert kubernetes.tools.packages[0] == "ansible==11.13.0"
    (place / "requirements.txt").write_text(
        "ansible==11.2.0\n# a comment\njmespath==1.0.1  # why\n-r other.txt\n"
    )
    (kubernetes,) = drive(parts=("kubernetes",))
    assert kubernetes.tools.packages == ("ansible==11.2.0", "jmespath==1.0.1")
    (slurm,) = drive()
    assert slurm.tools.packages[:2] == ("ansible==10.7.0", "Jinja2==3.1.5")


def test_trap_3_hosts_of_plays_that_are_set_in_group_vars_are_passed(drive):
    (whole,) = drive()
    assert given(whole)["nfs_server_group"] == "slurm-master[0]"
    assert given(whole)["rsyslog_client_group"] == "slurm-cluster"
    assert "nfs_client_group" not in given(whole), "the configuration does not set it"
    (server,) = drive("generic/nfs-server.yml")
    assert (
        given(server).items()
        >= {
            "hostlist": "{{ nfs_server_group | default('slurm-nfs[0]') }}",
            "nfs_server_group": "slurm-master[0]",
        }.items()
    )


def test_trap_4_there_is_no_other_ansible_than_the_checkouts(drive, checkout):
    (checkout / "scripts" / "setup.sh").write_text('ANSIBLE_VERSION="9.1.0"\n')
    (slurm,) = drive()
    assert slurm.tools.packages[0] == "ansible==9.1.0"
    (checkout / "scripts" / "setup.sh").write_text("")
    with pytest.raises(UsageProblem, match="does not say which Ansible it wants"):
        drive()


# -- the inventory


def test_groups_of_the_example_are_added_and_ours_kept(checkout, tmp_path):
    copy = tmp_path / "copy"
    finding.find(str(checkout), cache=tmp_path).copy(copy)
    inventory = config.write(copy, checkouts.this_host(tmp_path).inventory)
    assert inventory == copy / "config" / "inventory"
    assert (copy / "config" / "group_vars" / "slurm-cluster.yml").is_file()
    text = inventory.read_text()
    assert "[slurm-nfs-client:children]\nslurm-node\n" in text
    assert "[slurm-nfs]\n" in text
    assert text.count("[slurm-cluster") == 1
    assert "one ansible_connection=local deepops_address=10.86.0.11 ip=10.86.0.11" in text


def test_a_group_that_only_another_one_names_is_there_too():
    text = config.with_groups("[all]\none\n", {"parent": ["child"]})
    assert "[child]\n[parent:children]\nchild\n" in text


@pytest.mark.parametrize(
    "limit",
    ["slurm-cluster", "one", "slurm-node:!two", "slurm-node[0]", "o*", "one,two", "all", "~o.*"],
)
def test_a_limit_that_names_somebody(limit, checkout):
    config.refuse_limit(limit, checkout, ["one", "two"], ["slurm-cluster"])


@pytest.mark.parametrize("limit", ["three", "one:three", "!three", "slurm_node"])
def test_a_limit_that_names_nobody_is_refused(limit, checkout):
    with pytest.raises(UsageProblem) as refused:
        config.refuse_limit(limit, checkout, ["one", "two"], ["slurm-cluster"])
    assert "its nodes are one, two" in refused.value.message
    assert "slurm-nfs-client" in refused.value.hint


# -- what is refused


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("@/no/such/file.yml", "file '/no/such/file.yml' cannot be read: No such file"),
        ("no/such.yml", "file 'no/such.yml' cannot be read: No such file"),
        ("just-a-word", "neither name=value, nor JSON, nor a file"),
        ("{not json", "is no JSON"),
        ("1x=2", "neither name=value"),
    ],
)
def test_variables_that_are_none_are_refused(word, said):
    with pytest.raises(UsageProblem) as refused:
        variables.from_user(["a=b", word])
    assert said in refused.value.message
    assert "--deepops-extra-vars" in refused.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [\n", ":3:1: not YAML"),
        ("- a\n", ":1: a file of variables is a mapping, not a list"),
        ("a: 1\nb: !vault |\n  x\n", ":2:4: not YAML: '!vault' is not understood here"),
        ("a: 1\n\tb: 2\n", ":2:1: not YAML"),
    ],
)
def test_a_file_of_variables_is_refused_with_its_line(tmp_path, text, said):
    file = tmp_path / "mine.yml"
    file.write_text(text)
    with pytest.raises(UsageProblem) as refused:
        variables.from_user([f"@{file}"])
    assert f"{file}{said}" in refused.value.message


def test_what_is_encrypted_in_the_configuration_is_no_obstacle(drive, checkout):
    with (checkout / "config.example" / "group_vars" / "all.yml").open("a") as file:
        file.write("secret: !vault |\n  $ANSIBLE_VAULT;1.1\n")
    (slurm,) = drive()
    assert slurm.settings["secret"] is None


@pytest.mark.parametrize("word", ["generic/host.yml", "playbooks/hosts.yml", "../../etc/passwd"])
def test_a_playbook_that_is_not_there_is_refused(drive, word):
    with pytest.raises(UsageProblem) as refused:
        drive(word)
    assert f"there is no playbook '{word}' in the checkout" in refused.value.message
    if "etc" not in word:
        assert "playbooks/generic/hosts.yml" in refused.value.message


def test_a_playbook_may_be_named_in_every_way(drive, checkout):
    for word in ("generic/hosts.yml", "playbooks/generic/hosts.yml",
                 str(checkout / "playbooks" / "generic" / "hosts.yml")):  # fmt: skip
        assert drive(word)[0].named == (Path("playbooks/generic/hosts.yml"),)


def test_a_part_whose_playbook_the_checkout_has_not_is_refused(drive, checkout):
    (checkout / "playbooks" / "slurm-cluster.yml").unlink()
    with pytest.raises(UsageProblem, match=r"no playbook 'playbooks/slurm-cluster.yml'"):
        drive()


# -- parts


def test_each_playbook_belongs_to_a_part(drive, checkout):
    (checkout / "playbooks" / "provisioner.yml").write_text("- hosts: kube_control_plane[0]\n")
    found = drive("generic/hosts.yml", "provisioner.yml", parts=BOTH)
    assert [(each.part, [path.name for path in each.named], each.limit) for each in found] == [
        ("slurm", ["hosts.yml"], "slurm-cluster"),
        ("kubernetes", ["provisioner.yml"], ""),
    ]


def test_kubespray_that_is_not_there_is_refused_only_where_it_is_needed(drive):
    assert drive("generic/hosts.yml", parts=("kubernetes",))
    # What the tests do not ask for may be absent.
    (kubernetes,) = drive(parts=("kubernetes",))
    assert kubernetes.scope.has("kubernetes"), "it will be there when it has been fetched"
    for ask in (lambda: kubernetes.refuse_what_is_wrong(fetch=True), kubernetes.inputs):
        with pytest.raises(UsageProblem, match="submodules/kubespray"):
            ask()


# -- what a checkpoint is compared by


def test_everything_that_decides_is_an_input(drive, checkout):
    def inputs(*playbooks, **wish):
        (made,) = drive(*playbooks, **wish)
        return made.inputs()

    base = inputs("generic/hosts.yml")
    assert base == inputs("generic/hosts.yml")
    assert base != inputs("generic/hosts.yml", tags="a")
    assert base != inputs("generic/hosts.yml", limit="one")
    assert base != inputs("generic/hosts.yml", variables={"a": "b"})
    assert base != inputs("generic/hosts.yml", "generic/chrony-client.yml")
    setup = checkout / "scripts" / "setup.sh"
    setup.write_text(setup.read_text().replace("10.7.0", "10.6.0"))
    after = inputs("generic/hosts.yml")
    assert base["source"] != after["source"]
    assert base["playbooks"] != after["playbooks"]
