"""The parts of the HTML report that pytest-html does not have: verdict, cluster picture, timeline,
provenance, evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import humanize
import jinja2
from markupsafe import Markup

from deepops_fixtures.cluster.running import NodeData
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.live import duration
from deepops_fixtures.records import CheckOutcome, CommandRecord
from deepops_fixtures.report import timeline as timelines
from deepops_fixtures.report.remarks import Remark
from deepops_fixtures.report.scrub import scrub
from deepops_fixtures.report.timeline import Timeline

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("deepops_fixtures.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["duration"] = duration
#: No more than this of a command's output goes into the page; the rest is in the bundle.
_OUTPUT_LINES = 40


@dataclass(frozen=True)
class NodeCard:
    """One node in the cluster picture."""

    name: str
    groups: list[str]
    address: str
    size: str
    failures: int
    checks: int

    @property
    def kind(self) -> str:
        """The colour: 'bad' when a check of this node failed, 'good' when some passed, else
        'idle'."""
        return "bad" if self.failures else ("good" if self.checks else "idle")


@dataclass(frozen=True)
class RunFacts:
    """What the page tells of a run."""

    title: str
    verdict: str
    good: bool
    problems: list[str]
    cards: list[NodeCard]
    network: str
    timeline: Timeline
    provenance: dict[str, str]
    files: list[tuple[str, list[tuple[str, str]]]]
    roles: dict[str, float] = field(default_factory=dict)
    failures: list[CheckOutcome] = field(default_factory=list)
    slowest: list[CheckOutcome] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def cards(
    nodes: Sequence[NodeData], spec: ClusterSpec | None, checks: Sequence[CheckOutcome]
) -> list[NodeCard]:
    """Return the cards of the cluster picture."""
    found = []
    for node in nodes:
        mine = [item for item in checks if item.node == node.name and item.outcome != "skipped"]
        bad = sum(item.bad for item in mine)
        plan = spec.nodes.get(node.name) if spec else None
        size = ""
        if plan:
            memory = humanize.naturalsize(plan.memory * 2**20, binary=True)
            size = f"{plan.cpus} CPU{'s' if plan.cpus > 1 else ''}, {memory}, {plan.disk} GiB disk"
        found.append(NodeCard(node.name, list(node.groups), node.address, size, bad, len(mine)))
    return found


def style() -> str:
    """Return the style sheet of our parts."""
    return _ENVIRONMENT.get_template("style.css").render()


def summary(run: RunFacts) -> str:
    """Return the HTML that stands above pytest-html's table."""
    chart = timelines.layout(run.timeline) if run.timeline.segments else None
    css = Markup(style())
    return _ENVIRONMENT.get_template("summary.html").render(run=run, chart=chart, css=css)


def evidence(commands: Sequence[CommandRecord], logs: Mapping[str, str]) -> str:
    """Return the HTML under a failed check: its commands on the nodes, and the nodes' logs of that
    time."""
    rows = [
        {
            "node": item.node,
            "user": item.user,
            "command": scrub(item.command),
            "status": item.exit_status,
            "seconds": item.seconds,
            "output": _short(item),
        }
        for item in commands
    ]
    clean = {node: scrub(text) for node, text in logs.items() if text.strip()}
    return _ENVIRONMENT.get_template("evidence.html").render(rows=rows, logs=clean)


def _short(item: CommandRecord) -> str:
    text = scrub("\n".join(part.rstrip() for part in (item.stdout, item.stderr) if part.strip()))
    lines = text.splitlines()
    if len(lines) > _OUTPUT_LINES:
        half = _OUTPUT_LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
    return "\n".join(line[:400] for line in lines)


def files_of(run_dir: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what the run's files are, each with its (path from the run's folder, shown name)."""
    patterns = [
        ("test results for CI", "junit.xml"),
        ("every step with its time", "events.jsonl"),
        ("Ansible's output", "deploy/*/stdout.log"),
        ("tasks with their times", "deploy/*/result.json"),
        ("output of Vagrant", "logs/*.log"),
        ("serial consoles", "consoles/*.log"),
        ("DeepOps' own validators", "validators/*.log"),
        ("failure bundle, for a ticket", "bundle.tar.gz"),
    ]
    nodes = sorted(path.name for path in run_dir.glob("bundle/*") if path.is_dir())
    patterns += [(f"state of {node}", f"bundle/{node}/*.txt") for node in nodes]
    found = []
    for what, pattern in patterns:
        paths = sorted(run_dir.glob(pattern))
        names = [
            (str(path.relative_to(run_dir)), path.stem if "bundle/" in pattern else path.name)
            for path in paths
        ]
        if names:
            found.append((what, names))
    return found
