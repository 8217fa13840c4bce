"""What the documents tell a user to type exists: options, commands, scripts, workflows."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from deepops_fixtures import cli
from deepops_fixtures.settings import Settings, option
from tests.harness.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Where a command ends that begins somewhere in a line.
END = re.compile(r"\s#|&&|\|\||;|\||\)\"|$")


def named(path: Path) -> str:
    return path.stem


def code(page: Path) -> Iterator[str]:
    """Return what a page shows as code, a line each; lines that go on are joined."""
    text = page.read_text()
    for _language, block in BLOCK.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    rest = BLOCK.sub("", text)
    yield from re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


def test_calls_are_found_however_a_page_shows_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Say `deepops-virtual up --name x` or\n\n    ./setup.sh deepops-virtual clean  # all\n\n"
        "```sh\ndeepops-virtual deploy x \\\n  --parts slurm && true\n```\n"
    )
    assert [words for _, words in commands(page)] == [
        ["deploy", "x", "--parts", "slurm"],
        ["clean"],
        ["up", "--name", "x"],
    ]


def blocks(language: str) -> list:
    found = [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (kind, block) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]
    assert found
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_option_of_pytest_exists(page):
    known = {option(name) for name in Settings.model_fields}
    told = set(re.findall(r"--deepops-[a-z][a-z-]*", page.read_text()))
    assert told - known == set()


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Return each call of deepops-virtual that a page shows, with its words."""
    for line in code(page):
        for match in re.finditer(r"(?<![\w'-])deepops-virtual ((?!\.).*)", line):
            text = END.split(match[1], maxsplit=1)[0]
            try:
                words = shlex.split(text)
            except ValueError:
                words = text.split()
            if words and re.fullmatch(r"[a-z-]+", words[0]):
                yield match[0], words


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_and_its_options_exist(page):
    wrong = []
    for shown, words in commands(page):
        command: click.Command = cli.cli
        while isinstance(command, click.Group) and words:
            name, *words = words
            found = command.commands.get(name)
            if found is None:
                wrong.append(f"{shown}: no command '{name}'")
                break
            command = found
        known = {flag for item in command.params for flag in (*item.opts, "--help")}
        if not command.ignore_unknown_options:
            wrong += [
                f"{shown}: no option '{word}'"
                for word in words
                if word.startswith("--") and word.partition("=")[0].rstrip(",.") not in known
            ]
    assert wrong == []


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_is_yaml(block):
    assert isinstance(yaml.safe_load(block), dict)


def test_the_workflow_has_what_a_workflow_needs():
    page = ROOT / "docs" / "how-to" / "ci-github-actions.md"
    (workflow,) = [yaml.safe_load(text) for kind, text in BLOCK.findall(page.read_text()) if kind]
    # YAML 1.1 reads 'on' as true.
    assert set(workflow) == {"name", True, "concurrency", "permissions", "jobs"}
    for job in workflow["jobs"].values():
        assert job["runs-on"][0] == "self-hosted"
        assert job["timeout-minutes"] > 0
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        last = [step for step in job["steps"] if step.get("if") == "always()"]
        assert any("deepops-virtual clean" in step.get("run", "") for step in last)
        assert any("upload-artifact" in step.get("uses", "") for step in last)


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_is_shell(block):
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", blocks("groovy"))
def test_the_braces_of_a_pipeline_are_balanced(block):
    text = re.sub(r"'''.*?'''|'[^'\n]*'|//[^\n]*", "", block, flags=re.DOTALL)
    for opening, closing in ("{}", "()", "[]"):
        assert text.count(opening) == text.count(closing)


def test_the_page_of_the_example_shows_the_example():
    page = (ROOT / "docs" / "how-to" / "own-tests.md").read_text()
    example = ROOT / "examples" / "deepops-tests"
    for name in ("conftest.py", "test_slurm.py"):
        _doc, _, body = (example / name).read_text().partition('"""\n\n')
        assert body in page


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES[1:]}
    assert {page for page in pages if page not in readme} == set()
