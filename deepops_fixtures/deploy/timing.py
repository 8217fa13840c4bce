"""How long the tasks of a deployment took, beside the same tasks of an earlier one.

Two deployments are compared only where they had the same to do: same cluster (sizes included),
same accelerator, same source and playbook, the same parts on the cluster before.
Not for judging: a slower task fails nothing, hosts are noisy, and emulated nodes more so.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from deepops_fixtures.deploy.results import DeployResult, TaskResult
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.live import duration

#: A task is slower, or faster, when it took this many times as long, or as short, …
RATIO = 1.5
#: … and that is this many seconds, below which an emulated node's times say nothing.
SECONDS = 5.0
#: Tasks of at least as many seconds tell how fast the whole host was.
_TELLING = 1.0

_Key = tuple[str, str, str, int]


class Difference(BaseModel):
    """A task, and its seconds in both runs; None in the one that has no such task."""

    model_config = ConfigDict(frozen=True)

    task: str
    where: str
    before: float | None
    after: float | None

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.task}: {duration(self.before or self.after or 0)}"
        return f"{self.task}: {duration(self.before)} -> {duration(self.after)}"


class Deployed(BaseModel):
    """One run of a playbook in the reports: which, of what, on what."""

    run: str
    number: int
    start: Literal["box", "checkpoint", "unknown"]
    #: What has to be the same in two runs that are compared.
    ground: dict[str, Any]
    result: DeployResult

    @property
    def comparable(self) -> bool:
        """Whether it went through, and onto a cluster that it says something of."""
        good = self.result.status == "successful" and self.result.finished
        return good and self.result.onto is not None and self.ground["cluster"] is not None


class Comparison(BaseModel):
    """One run of a playbook against an earlier one. Seconds; ``pace`` is how many times as long
    the tasks took in the middle (median): what the whole host was slower or faster."""

    playbook: str
    run: str
    base: str
    #: '' or why the two are not quite alike.
    remark: str
    seconds: float
    base_seconds: float
    pace: float
    slower: list[Difference]
    faster: list[Difference]
    new: list[Difference]
    gone: list[Difference]

    @property
    def lists(self) -> dict[str, list[Difference]]:
        """The tasks that differ, by how they do."""
        return {
            "slower": self.slower,
            "faster": self.faster,
            "new": self.new,
            "gone": self.gone,
        }

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> str:
        """What the comparison found, in one sentence."""
        counts = [
            f"{len(found)} task{'' if len(found) == 1 else 's'} {word}"
            for word, found in self.lists.items()
            if found
        ]
        paced = (
            f"; its tasks took {self.pace:.2g} times as long throughout, which is allowed for"
            if self.pace >= 1.1
            else ""
        )
        return (
            f"{self.playbook}: {duration(self.seconds)}, in run {self.base} "
            f"{duration(self.base_seconds)}; {', '.join(counts) or 'no task differs much'}{paced}"
            f"{self.remark and f' ({self.remark})'}."
        )


# -- comparing --------------------------------------------------------------------------------


def compare(this: Deployed, base: Deployed) -> Comparison:
    """Return how the tasks' times differ, each list with the greatest difference first.

    Tasks are the same when play, role and name are; those of one name are matched in their order.
    Where the whole run was slower, as on a busy host, a task counts as slower only beyond that.
    """
    after, before = _by_key(this.result.tasks), _by_key(base.result.tasks)
    common = [(before[key], after[key]) for key in after if key in before]
    ratios = [
        new.seconds / old.seconds
        for old, new in common
        if min(old.seconds, new.seconds) >= _TELLING
    ]
    pace = max(1.0, statistics.median(ratios)) if len(ratios) >= 3 else 1.0
    remark = (
        f"started from {this.start}, that run from {base.start}"
        if this.start != base.start
        else ""
    )
    return Comparison(
        playbook=this.result.playbook,
        run=this.run,
        base=base.run,
        remark=remark,
        seconds=this.result.seconds,
        base_seconds=base.result.seconds,
        pace=round(pace, 2),
        slower=_sorted(_difference(o, n) for o, n in common if _exceeds(n, o, pace)),
        faster=_sorted(_difference(o, n) for o, n in common if _exceeds(o, n, 1.0)),
        new=_sorted(_difference(None, after[key]) for key in after if key not in before),
        gone=_sorted(_difference(before[key], None) for key in before if key not in after),
    )


def _exceeds(long: TaskResult, short: TaskResult, pace: float) -> bool:
    expected = short.seconds * pace
    return long.seconds >= RATIO * expected and long.seconds - expected >= SECONDS


def _by_key(tasks: Iterable[TaskResult]) -> dict[_Key, TaskResult]:
    seen: Counter[tuple[str, str, str]] = Counter()
    found: dict[_Key, TaskResult] = {}
    for task in tasks:
        if task.status == "skipped":
            continue
        name = (task.play, task.role, task.task)
        key = (*name, seen[name])
        found[key] = task
        seen[name] += 1
    return found


def _difference(before: TaskResult | None, after: TaskResult | None) -> Difference:
    task = after or before
    assert task
    return Difference(
        task=task.label,
        where=task.where,
        before=before.seconds if before else None,
        after=after.seconds if after else None,
    )


def _sorted(found: Iterable[Difference]) -> list[Difference]:
    return sorted(found, key=lambda item: -abs((item.after or 0) - (item.before or 0)))


# -- finding what to compare with -------------------------------------------------------------


def deployments(run_dir: Path) -> list[Deployed]:
    """Return the runs of playbooks that a run's folder has kept, in their order; what cannot be
    read is left out."""
    folders = [path.parent for path in run_dir.glob("deploy/*/result.json")]
    ground = {"cluster": _read(run_dir / "spec.json"), "accelerator": None}
    running = _read(run_dir / "cluster.json")
    if running:
        ground["accelerator"] = running.get("accelerator")
    found = []
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        with suppress(OSError, ValueError):
            result = DeployResult.model_validate_json((folder / "result.json").read_text())
            # A checkout is called 'DeepOps COMMIT (BRANCH)': its commits are what is compared.
            kind = result.source.split(" ")[0]
            ours = {"source": kind, "playbook": result.playbook, "onto": result.onto}
            found.append(
                Deployed(
                    run=run_dir.name,
                    number=int(folder.name),
                    start=_start(run_dir),
                    ground={**ground, **ours},
                    result=result,
                )
            )
    return found


def _start(run_dir: Path) -> Literal["box", "checkpoint", "unknown"]:
    if (run_dir / "origin").exists():
        return "checkpoint"
    return "box" if (run_dir / "instance").exists() else "unknown"


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        data = json.loads(path.read_text())
        return data if isinstance(data, dict) else None
    return None


def earlier_runs(run_dir: Path) -> Iterator[Path]:
    """Give the folders of the runs before this one in the same reports folder, newest first."""
    # A folder's name begins with the time; 'latest' is a link.
    names = [
        path.name
        for path in run_dir.parent.glob("[0-9]*")
        if path.is_dir() and not path.is_symlink() and path.name < run_dir.name
    ]
    for name in sorted(names, reverse=True):
        yield run_dir.parent / name


def against_earlier(run_dir: Path, base: Path | None = None) -> list[Comparison]:
    """Compare each deployment that went through with the newest earlier one that had the same to
    do, or with that of run ``base``; empty where there is none."""
    found = []
    for this in deployments(run_dir):
        if not this.comparable:
            continue
        folders = [base] if base else earlier_runs(run_dir)
        candidates = (item for folder in folders for item in reversed(deployments(folder)))
        for other in candidates:
            if other.comparable and other.ground == this.ground:
                found.append(compare(this, other))
                break
    return found


def folder_of(name: str, reports: Path) -> Path:
    """Return the folder of a run, given by its path or by its name in the reports folder.

    Raises UsageProblem when there is none, or when nothing was deployed in it.
    """
    for path in (reports / name, Path(name)):
        if path.is_dir():
            path = path.resolve()
            if not list(path.glob("deploy/*/result.json")):
                raise UsageProblem(
                    f"Nothing was deployed in run '{path.name}': its folder has no "
                    "deploy/*/result.json.",
                    hint="name a run that did not start from a checkpoint of its deployment",
                )
            return path
    runs = sorted(path.name for path in reports.glob("[0-9]*") if path.is_dir())
    raise UsageProblem(
        f"There is no run '{name}' in {reports}.",
        hint=f"name one of the last: {', '.join(runs[-5:])}" if runs else "pytest, to make one",
    )
