"""DeepOps' own variables mean here what they mean there, and ours count over them."""

import pytest

from deepops_fixtures import resources, subject
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import Settings


@pytest.fixture
def load(monkeypatch):
    """Set variables, load the settings."""

    def load(given=None, ini=None, **variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name if name == "GPUDATA" else f"DEEPOPS_{name}", value)
        return Settings.load(given, ini)

    return load


def test_without_a_variable_of_theirs_nothing_is_chosen(load):
    settings = load()
    assert (settings.cluster, settings.parts, settings.chosen_by) == ("debian", "", ())


@pytest.mark.parametrize(
    ("variables", "cluster"),
    [
        ({"VAGRANT_OS": "ubuntu"}, "ubuntu-22.04"),
        ({"VAGRANT_OS": "ubuntu", "OS_VERSION": "24.04"}, "ubuntu-24.04"),
        ({"OS_VERSION": "24.04"}, "ubuntu-24.04"),
        ({"FULL_INSTALL": "true"}, "ubuntu-22.04-full"),
        ({"FULL_INSTALL": "multinode", "LARGE_SLURM": "1"}, "ubuntu-22.04-full"),
        ({"LARGE_SLURM": "1"}, "ubuntu-22.04-large-slurm"),
        ({"VAGRANT_OS": "centos"}, "centos"),
        ({"VAGRANT_OS": "centos", "OS_VERSION": "9", "FULL_INSTALL": "x"}, "centos-full"),
        ({"VAGRANT_OS": "debian", "FULL_INSTALL": ""}, "debian"),
        ({"VAGRANT_OS": "", "FULL_INSTALL": ""}, "debian"),
    ],
    ids=str,
)
def test_system_version_and_size_choose_the_cluster(load, variables, cluster):
    settings = load(**variables)
    assert settings.cluster == cluster
    assert subject.cluster(settings).name == cluster


def test_which_variable_chose_what_is_told(load):
    settings = load(VAGRANT_OS="centos", FULL_INSTALL="true", ENABLE_SLURM="1", GPUDATA="3-0x86")
    assert settings.chosen_by == (
        "cluster 'centos-full' by DEEPOPS_VAGRANT_OS=centos, DEEPOPS_FULL_INSTALL=true",
        "parts 'slurm,kubernetes' by DEEPOPS_ENABLE_SLURM=1",
        "GPUs by GPUDATA=3-0x86",
    )


@pytest.mark.parametrize(
    ("file", "cluster"),
    [
        ("./Vagrantfile-centos", "centos"),
        ("Vagrantfile-ubuntu", "ubuntu-22.04"),
        ("Vagrantfile-debian", "debian"),
        ("/elsewhere/virtual/Vagrantfile-ubuntu22.04-full", "ubuntu-22.04-full"),
        ("./Vagrantfile-ubuntu24.04-large-slurm", "ubuntu-24.04-large-slurm"),
        (str(resources.vagrant() / "Vagrantfile-ubuntu"), "ubuntu-22.04"),
    ],
)
def test_a_vagrantfile_of_the_project_stands_for_its_cluster(load, file, cluster):
    settings = load(VAGRANT_FILE=file, VAGRANT_OS="debian", FULL_INSTALL="1")
    assert (settings.cluster, settings.vagrant_file) == (cluster, None)
    assert settings.chosen_by == (f"cluster '{cluster}' by DEEPOPS_VAGRANT_FILE={file}",)


def test_a_vagrantfile_of_somebodys_own_is_taken_as_it_is(load, tmp_path, monkeypatch):
    own = tmp_path / "Vagrantfile-centos"
    own.write_text("# mine")
    monkeypatch.chdir(tmp_path)
    settings = load(VAGRANT_FILE="./Vagrantfile-centos")
    assert settings.vagrant_file == settings.existing == own
    assert subject.cluster(settings) is None
    assert load(VAGRANT_FILE="").vagrant_file is None


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"VAGRANT_OS": "ubuntu", "OS_VERSION": "18.04"},
         "(It is cluster 'ubuntu-18.04' by DEEPOPS_VAGRANT_OS=ubuntu, DEEPOPS_OS_VERSION=18.04.)"),
        ({"VAGRANT_OS": "centos", "OS_VERSION": "8"}, "named 'centos-8'"),
        ({"VAGRANT_OS": "fedora"}, "named 'fedora'"),
        ({"VAGRANT_FILE": "./Vagrantfile-centos7-full"}, "named 'centos-7-full'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_there_is_not_is_refused_where_the_cluster_is_needed(load, variables, said):
    settings = load(**variables)
    with pytest.raises(UsageProblem) as caught:
        subject.cluster(settings)
    assert said in caught.value.message
    assert "ubuntu-22.04" in caught.value.hint


# -- ours count over theirs -----------------------------------------------------------------


def test_a_cluster_that_is_named_counts_over_their_variables(load):
    theirs = {"VAGRANT_OS": "centos", "VAGRANT_FILE": "./Vagrantfile-centos"}
    settings = load({"cluster": "tiny"}, **theirs)
    assert (settings.cluster, settings.vagrant_file) == ("tiny", None)
    assert settings.chosen_by == (
        "Vagrantfile './Vagrantfile-centos' is not used: the cluster is named",
    )
    assert load(ini={"cluster": "tiny"}).cluster == "centos"
    assert load(CLUSTER="tiny").cluster == "tiny"
    named = load({"vagrant_file": "Vagrantfile-ubuntu"})
    assert named.cluster == "ubuntu-22.04"
    assert named.chosen_by == ("cluster 'ubuntu-22.04' by Vagrantfile=Vagrantfile-ubuntu",)


def test_an_ini_files_cluster_counts_over_their_system(load):
    assert load(ini={"cluster": "tiny"}, VAGRANT_OS="centos").cluster == "tiny"


def test_hosts_that_exist_and_a_cluster_that_is_up_are_not_chosen_anew(load):
    theirs = {"VAGRANT_OS": "centos", "VAGRANT_FILE": "Vagrantfile-centos", "ENABLE_SLURM": "1"}
    existing = load({"inventory": "hosts.ini"}, **theirs)
    assert (existing.cluster, existing.vagrant_file) == ("debian", None)
    attached = load({"attach": "mine"})
    assert (attached.cluster, attached.vagrant_file) == ("debian", None)
    assert attached.parts == "slurm,kubernetes"


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"ENABLE_SLURM": "1"}, "slurm,kubernetes"),
        ({"ENABLE_SLURM": "false"}, "slurm,kubernetes"),
        ({"ENABLE_SLURM": "1", "DISABLE_K8S": "1"}, "slurm"),
        ({"DISABLE_K8S": "1"}, "slurm"),
        ({"ENABLE_SLURM": "", "DISABLE_K8S": ""}, ""),
    ],
    ids=str,
)
def test_their_switches_choose_the_parts(load, variables, parts):
    assert load(**variables).parts == parts
    assert load({"parts": "kubernetes"}).parts == "kubernetes"


def test_gpus_that_are_asked_for_count_over_gpudata(load):
    assert load({"gpu": "auto"}, GPUDATA="3-0x86").chosen_by == ()
