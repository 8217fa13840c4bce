"""Artifacts: built once, whoever asks, never taken for complete when they are not."""

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepops_fixtures import debian
from deepops_fixtures.deploy import artifacts
from deepops_fixtures.deploy.artifacts import Artifact, Builder
from deepops_fixtures.errors import ArtifactError, StepTimeout, UsageProblem
from deepops_fixtures.journal import Journal

RECIPE = """\
about: two words for a test
suite: bookworm
mirror: http://mirror.example/debian
security_mirror: http://mirror.example/security
minutes: 1
disk_gib: 0.001
packages: [zstd, jq]
variables: {VERSION: "1.0 ~'x", WORDS: [one, two]}
versions: {thing: "1.0"}
files: [thing.tar, other.tar]
"""

# Stands for mmdebstrap: notes how it was called, then does what a copy-out hook would.
MMDEBSTRAP = """\
#!{python}
import pathlib, shlex, sys, time
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write("\\n".join(sys.argv[1:]) + "\\n--\\n")
{behaviour}
for argument in sys.argv:
    if argument.startswith("--customize-hook=copy-out "):
        _, source, target = shlex.split(argument.partition("=")[2])
        name = pathlib.Path(source).name
        (pathlib.Path(target) / name).write_text("content of " + name)
"""


@pytest.fixture
def recipes(tmp_path) -> Path:
    folder = tmp_path / "recipes" / "thing"
    folder.mkdir(parents=True)
    (folder / "recipe.yml").write_text(RECIPE)
    (folder / "build.sh").write_text("echo built\n")
    return folder.parent


@pytest.fixture
def artifact(tmp_path, recipes, monkeypatch) -> Artifact:
    monkeypatch.delenv("DEEPOPS_DEBIAN_MIRROR", raising=False)
    return Artifact("thing", tmp_path / "cache", recipes)


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "events.jsonl")


@pytest.fixture
def mmdebstrap(tmp_path, monkeypatch):
    """Return a function that puts an mmdebstrap of this behaviour on PATH; calls are noted."""

    def install(behaviour: str = "") -> Path:
        program = tmp_path / "bin" / "mmdebstrap"
        program.parent.mkdir(exist_ok=True)
        text = MMDEBSTRAP.format(
            python=sys.executable, folder=str(tmp_path), behaviour=textwrap.dedent(behaviour)
        )
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return tmp_path / "calls"

    return install


# -- what is built ---------------------------------------------------------------------------


def test_a_build_appears_with_a_manifest_and_is_made_once(artifact, journal, mmdebstrap):
    calls = mmdebstrap()
    folder = artifact.ensure(journal)
    assert folder == artifact.cache / f"thing-{artifact.key[:16]}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["name"], manifest["key"]) == ("thing", artifact.key)
    assert manifest["versions"] == {"thing": "1.0"}
    contents = {name: f"content of {name}".encode() for name in ("thing.tar", "other.tar")}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
    assert {name: (folder / name).read_bytes() for name in contents} == contents
    assert artifact.ensure(journal) == folder
    assert calls.read_text().count("--\n") == 1
    assert [event.status for event in journal.events() if event.kind == "end"] == ["ok"]


def test_the_throw_away_root_gets_the_recipe_and_nothing_of_the_host(
    artifact, journal, mmdebstrap
):
    calls = mmdebstrap()
    artifact.ensure(journal)
    lines = calls.read_text().splitlines()
    assert {"--format=null", "--include=zstd,jq", "bookworm", "/dev/null"} <= set(lines)
    assert "deb http://mirror.example/debian bookworm main" in lines
    assert "deb http://mirror.example/security bookworm-security main" in lines
    assert not [line for line in lines if line.startswith("deb-src")]
    (run,) = [line for line in lines if "build.sh" in line]
    assert run.startswith("--customize-hook=env -i ")


def test_sources_are_asked_for_where_the_recipe_wants_them(artifact):
    recipe = artifact.recipe.model_copy(update={"source_packages": True})
    artifact.recipe = recipe
    command = Builder(artifact, Journal(Path("/nowhere"))).command()
    assert "deb-src http://mirror.example/debian bookworm main" in command


def test_variables_reach_the_script_as_they_are(artifact, journal):
    builder = Builder(artifact, journal)
    builder.work.mkdir(parents=True)
    builder._copy_recipe()
    script = f'. {builder.work}/recipe/variables; printf "%s|%s|%s" "$VERSION" "$WORDS" "$HOME"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == "1.0 ~'x|one two|/root"


@pytest.mark.parametrize("file", ["build.sh", "recipe.yml", "new.awk"])
def test_the_key_changes_with_every_file_of_the_recipe(artifact, recipes, tmp_path, file):
    before, path = artifact.key, recipes / "thing" / file
    path.write_text((path.read_text() if path.exists() else "").replace("1.0", "2.0") + "\n# x\n")
    assert Artifact("thing", tmp_path, recipes).key != before


def test_the_key_changes_with_the_mirror(artifact, recipes, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPOPS_DEBIAN_MIRROR", "http://other.example/debian")
    other = Artifact("thing", tmp_path, recipes)
    assert other.key != artifact.key
    assert other.recipe.mirror == debian.mirror_wanted()


def test_what_an_artifact_uses_is_built_first_and_decides_its_key(
    recipes, tmp_path, journal, mmdebstrap
):
    calls = mmdebstrap()
    (recipes / "other").mkdir()
    (recipes / "other" / "recipe.yml").write_text(f"{RECIPE}uses: [thing]\n")
    (recipes / "other" / "build.sh").write_text("ls /used\n")
    other = Artifact("other", tmp_path / "cache", recipes)
    assert other.ensure(journal).is_dir()
    assert other.used[0].built
    first, second = calls.read_text().split("--\n")[:2]
    assert "/used" not in first
    assert f"--customize-hook=copy-in {other.cache}/other.building/used /" in second
    (recipes / "thing" / "build.sh").write_text("echo built otherwise\n")
    assert Artifact("other", tmp_path / "cache", recipes).key != other.key


# -- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("print('E: no network'); sys.exit(25)", "ended with status 25"),
        ("print('E: no network'); sys.exit(0)", "left no thing.tar, other.tar"),
    ],
    ids=["failed", "nothing-made"],
)
def test_a_failed_build_says_why_and_leaves_nothing(artifact, journal, mmdebstrap, behaviour, why):
    mmdebstrap(behaviour)
    with pytest.raises(ArtifactError) as failure:
        artifact.ensure(journal)
    text = str(failure.value)
    assert why in failure.value.message
    assert "  | E: no network" in text
    assert f"read {artifact.cache / 'thing-build.log'}" in text
    assert "deepops-virtual artifact build thing" in text
    assert not artifact.built
    assert [path.name for path in artifact.cache.iterdir() if path.is_dir()] == []
    with pytest.raises(ArtifactError, match="is not built") as refusal:
        artifact.ensure(journal, build=False)
    assert refusal.value.hint == "deepops-virtual artifact build thing"


def test_a_mirror_that_cannot_be_reached_is_named_with_apts_reason(artifact, journal, mmdebstrap):
    url = "http://mirror.example/debian/dists/bookworm/InRelease"
    said = f"E: Failed to fetch {url}  Could not connect to mirror.example:80 (192.0.2.7).\n"
    mmdebstrap(f"print({said!r}); print('E: mmdebstrap failed to run'); sys.exit(25)")
    with pytest.raises(ArtifactError) as failure:
        artifact.ensure(journal)
    assert failure.value.message == (
        f"Building artifact 'thing' failed: {url} could not be fetched (Could not connect to "
        "mirror.example:80 (192.0.2.7))."
    )
    assert failure.value.hint == (
        f"try it: curl -I {url}; another mirror: DEEPOPS_DEBIAN_MIRROR=URL "
        "deepops-virtual artifact build thing"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.joinpath("thing.tar").unlink(),
        lambda path: path.joinpath("thing.tar").write_text("half"),
        lambda path: path.joinpath("manifest.json").write_text("{"),
    ],
    ids=["a file is gone", "a file is cut off", "the manifest is none"],
)
def test_a_damaged_artifact_is_built_anew(artifact, journal, mmdebstrap, damage):
    mmdebstrap()
    path = artifact.ensure(journal)
    damage(path)
    assert not artifact.built
    assert artifact.ensure(journal) == path
    assert artifact.built


def test_a_build_that_takes_too_long_is_stopped(artifact, journal, mmdebstrap, monkeypatch):
    mmdebstrap("time.sleep(60)")
    after = artifacts.Deadline.after
    monkeypatch.setattr(artifacts.Deadline, "after", lambda seconds: after(seconds / 100))
    begin = time.monotonic()
    with pytest.raises(StepTimeout, match="Building artifact 'thing' did not end within"):
        artifact.ensure(journal)
    assert time.monotonic() - begin < 20
    assert not artifact.built


@pytest.mark.parametrize("step", ["_copy_recipe", "_run", "_describe"])
def test_a_build_cut_short_leaves_nothing_that_is_taken_for_an_artifact(
    artifact, journal, mmdebstrap, monkeypatch, step
):
    mmdebstrap()

    def interrupted(builder: Builder) -> None:
        (builder.work / "out").mkdir(exist_ok=True)
        (builder.work / "out" / "thing.tar").write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Builder, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            artifact.ensure(journal)
    assert not artifact.path.exists()
    assert not list(artifact.cache.glob("*.building"))
    assert artifact.ensure(journal) == artifact.path


def test_a_recipe_edited_meanwhile_is_not_built_under_the_old_key(
    artifact, journal, mmdebstrap, recipes
):
    calls = mmdebstrap()
    assert artifact.built is False
    (recipes / "thing" / "build.sh").write_text("echo another\n")
    with pytest.raises(ArtifactError, match="was edited while it waited"):
        artifact.ensure(journal)
    assert not calls.exists()


def test_a_killed_build_and_a_half_removed_one_are_built_over(artifact, journal, mmdebstrap):
    mmdebstrap()
    for folder in (artifact.path, artifact.cache / "thing.building" / "out"):
        folder.mkdir(parents=True)
        (folder / "thing.tar").write_text("half of it")
    assert not artifact.built
    folder = artifact.ensure(journal)
    assert (folder / "thing.tar").read_text() == "content of thing.tar"


def test_without_mmdebstrap_it_is_said_before_anything_is_done(artifact, journal, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ArtifactError, match="'mmdebstrap' is not on this host") as failure:
        artifact.ensure(journal)
    assert failure.value.hint == "./setup.sh"


def test_too_little_room_is_said_before_anything_is_done(artifact, journal, mmdebstrap):
    calls = mmdebstrap()
    artifact.recipe = artifact.recipe.model_copy(update={"disk_gib": 1e6})
    with pytest.raises(ArtifactError, match=r"takes 1e\+06 GiB in /\S+ for a while") as failure:
        artifact.ensure(journal)
    assert "TMPDIR=" in failure.value.hint
    assert not calls.exists()


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path, recipes):
    with pytest.raises(UsageProblem) as failure:
        Artifact("thong", tmp_path, recipes)
    assert failure.value.hint == "choose one of: thing"


@pytest.mark.parametrize("text", ["", "about: [", RECIPE + "more: 1\n"])
def test_a_recipe_that_is_none_is_refused_by_its_path(tmp_path, recipes, text):
    file = recipes / "thing" / "recipe.yml"
    file.write_text(text)
    with pytest.raises(UsageProblem, match=re.escape(str(file))):
        Artifact("thing", tmp_path, recipes)


# -- two at once -----------------------------------------------------------------------------

ASK = """
import pathlib, sys
from deepops_fixtures.deploy.artifacts import Artifact
from deepops_fixtures.journal import Journal
folder = pathlib.Path(sys.argv[1])
thing = Artifact("thing", folder / "cache", folder / "recipes")
print(thing.ensure(Journal(folder / "events.jsonl")))
"""


def test_two_processes_build_once_and_the_second_waits(artifact, journal, mmdebstrap, tmp_path):
    calls = mmdebstrap("time.sleep(1)")

    def ask(_number: int) -> str:
        command = [sys.executable, "-c", ASK, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(ask, range(2))) == {str(artifact.path)}
    assert calls.read_text().count("--\n") == 1
    notes = [event.what for event in journal.events() if event.kind == "note"]
    assert notes == ["waiting for another process that builds artifact 'thing'"]


def test_who_waits_in_vain_is_told_for_whom(artifact, journal):
    lock = artifact.cache / "thing.lock"
    holder = ("artifact", "artifact 'thing'", 1.0, ArtifactError)
    with (
        debian.one_at_a_time(lock, journal, *holder),
        pytest.raises(
            ArtifactError, match="has been building artifact 'thing' for 0 s"
        ) as failure,
    ):
        artifact.ensure(journal, wait=0.1)
    assert f"fuser -v {lock}" in failure.value.hint


# -- the commands ----------------------------------------------------------------------------


def test_remove_forgets_older_builds_too_and_no_one_elses(artifact, journal, mmdebstrap):
    mmdebstrap()
    artifact.ensure(journal)
    older, other = (
        artifact.cache / f"{name}-0123456789abcdef" for name in ("thing", "thing-more")
    )
    for folder in (older, other):
        folder.mkdir()
    assert set(artifact.remove()) == {artifact.path, older}
    assert not artifact.path.exists()
    assert other.exists()


def test_list_tells_a_script_what_is_built(deepops, tmp_path):
    made = Artifact(artifacts.PACKAGES, tmp_path / "cache")
    made.path.mkdir(parents=True)
    (made.path / "manifest.json").write_text('{"files": {}}')
    status, out, _ = deepops("artifact", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert rows[artifacts.PACKAGES] == {
        "name": artifacts.PACKAGES, "about": made.recipe.about, "key": made.key[:16],
        "built": True, "bytes": 13, "path": str(made.path),
    }  # fmt: skip
    assert rows[artifacts.KUBERNETES]["built"] is False
    assert "kubernetes-debian12  not built  Kubernetes" in deepops("artifact", "list")[1]
    assert "(1 builds)" in deepops("artifact", "remove", artifacts.PACKAGES)[1]
    assert not made.path.exists()


def test_build_says_where_it_is(deepops, tmp_path, mmdebstrap):
    mmdebstrap()
    made = Artifact(artifacts.PACKAGES, tmp_path / "cache")
    assert f"was built: {made.path}" in deepops("artifact", "build", artifacts.PACKAGES)[1]
    assert f"was there already: {made.path}" in deepops("artifact", "build", made.name)[1]
