"""Where a setting comes from, and what is refused."""

from pathlib import Path

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.settings import Settings, ini_key, option, variable


def test_option_over_variable_over_ini_file_over_default(monkeypatch):
    assert Settings.load().cluster == "debian"
    ini = {"cluster": "from-ini", "keep": "always"}
    assert Settings.load({}, ini).cluster == "from-ini"
    monkeypatch.setenv("DEEPOPS_CLUSTER", "from-variable")
    assert Settings.load({}, ini).cluster == "from-variable"
    assert Settings.load({"cluster": "from-option"}, ini).cluster == "from-option"
    assert Settings.load({"cluster": None}, ini).keep == "always"


def test_paths_are_expanded_and_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = Settings.load({"reports": "out", "state_dir": "~/state"})
    assert settings.reports == tmp_path / "out"
    assert settings.state_dir == tmp_path / "home" / "state"
    assert Settings.load().reports == tmp_path / "reports"


def test_this_host_itself_is_an_inventory_unless_a_file_is_called_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (
        "localhost ansible_connection=local"
        in Settings.load({"inventory": "local"}).inventory.read_text()
    )
    (tmp_path / "local").touch()
    assert Settings.load({"inventory": "local"}).inventory == tmp_path / "local"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a b"}, "'a b' is refused: a name is 2 to 32 of a-z, 0-9 and '-'"),
        ({"reports": "/dev/null/x"}, "is refused: '/dev/null' is there and is no folder"),
        ({"state_dir": __file__}, "(DEEPOPS_STATE_DIR)"),
        ({"keep": "sometimes"}, "--deepops-keep (DEEPOPS_KEEP): 'sometimes' is refused"),
        ({"up_timeout": "soon"}, "--deepops-up-timeout (DEEPOPS_UP_TIMEOUT): 'soon' is refused"),
        ({"up_timeout": 3}, "greater than or equal to 30"),
        ({"accelerator": "warp"}, "'warp' is refused"),
        ({"name": "Bad_Name"}, "--deepops-name"),
        ({"name": "-x"}, "--deepops-name"),
        ({"inventory": Path("a"), "attach": "b"}, "exclude each other"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_value_is_refused_by_its_names(given, said):
    with pytest.raises(UsageProblem, match=r"(?s).*") as caught:
        Settings.load(given)
    assert said in str(caught.value)


def test_one_setting_has_three_spellings():
    assert (option("up_timeout"), variable("up_timeout"), ini_key("up_timeout")) == (
        "--deepops-up-timeout",
        "DEEPOPS_UP_TIMEOUT",
        "deepops_up_timeout",
    )


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
