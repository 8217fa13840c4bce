"""Boxes that Vagrant downloads: fetched before anything is created, refused in one sentence."""

import pytest

from deepops_fixtures.cluster import box, public_box
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.journal import Journal

LISTED = """\
echo '1,,box-name,generic/rocky9'
echo '1,,box-provider,libvirt'
echo '1,,box-version,4'
"""
OFFLINE = """\
echo "$*" >>{calls}
[ "$2" = list ] && exit 0
echo "The box 'generic/rocky9' could not be found or"
echo "could not be accessed in the remote catalog. If this is a private"
echo "Error: Could not resolve host: vagrantcloud.com"
exit 1
"""


@pytest.fixture
def fetch(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    return lambda: public_box.ensure("generic/rocky9", "centos", tmp_path, journal)


def test_a_box_that_vagrant_has_is_not_fetched(fetch, programs):
    programs(vagrant=LISTED)
    assert fetch() is False


def test_a_box_that_cannot_be_had_is_told_in_one_sentence(fetch, programs, tmp_path):
    programs(vagrant=OFFLINE.format(calls=tmp_path / "calls"))
    with pytest.raises(UsageProblem) as caught:
        fetch()
    assert caught.value.message == (
        "Box 'generic/rocky9' of cluster 'centos' is not on this host, and Vagrant could not "
        "download it: Error: Could not resolve host: vagrantcloud.com"
    )
    assert caught.value.hint.startswith("vagrant box add --provider libvirt generic/rocky9 ")
    calls = (tmp_path / "calls").read_text()
    assert "box add --provider libvirt generic/rocky9" in calls


def test_a_box_is_fetched_where_vagrant_has_none(fetch, programs):
    programs(vagrant='[ "$2" = list ] || echo fetched')
    assert fetch() is True


def test_a_name_that_is_neither_a_recipe_nor_anybodys_box_is_refused(tmp_path, programs):
    programs(vagrant="")
    assert box.of_cluster("debian12", "debian", tmp_path).name == "debian12"
    assert box.of_cluster("almalinux/9", "centos", tmp_path) is None
    for name in ("debian13", "almalinux/", "/9"):
        with pytest.raises(UsageProblem, match=f"Box '{name}' of cluster 'mine' is neither"):
            box.of_cluster(name, "mine", tmp_path)
