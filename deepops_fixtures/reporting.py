"""Joins pytest's reports with the ``report`` room: what is hung on a test's report, written at the
end, and said.

Each function is called by one hook of ``plugin``. A run that asks for no cluster passes through
here too, so the ``report`` room is imported where something is written. Not for how anything
looks: that is in ``report``.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_html import extras
from pytest_html.basereport import BaseReport

from deepops_fixtures import facts, isolation, simulation, upgrade
from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.records import CheckOutcome
from deepops_fixtures.report.scrub import scrub
from deepops_fixtures.session import Session, needs_cluster

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Nodes, RunningCluster
    from deepops_fixtures.report import page

_JOURNAL = "timeout 10 journalctl --no-pager -q -o short-iso --since=@{since} -n 40"
#: Room that the reports of a run take at most.
_REPORT_BYTES = 2 * 1024 * 1024


# -- before the first test ----------------------------------------------------------------


def configure(config: pytest.Config, ours: Session) -> None:
    """Have pytest-html and JUnit write into the run's folder, unless the user said where.

    Raises OSError: the folder cannot be made (pytest-html would make it, and end with a
    traceback).
    """
    if config.option.collectonly:
        return
    ours.run_dir.mkdir(parents=True, exist_ok=True)
    if not config.option.htmlpath:
        config.option.htmlpath = str(ours.run_dir / "report.html")
        config.option.self_contained_html = True
        ours.own_html = True
    if not config.option.xmlpath:
        config.option.xmlpath = str(ours.run_dir / "junit.xml")


def without_cluster(config: pytest.Config, ours: Session) -> None:
    """Withdraw our report from a run that turned out to need no cluster."""
    _withdraw(config, ours)
    discard(ours.run_dir)


def _withdraw(config: pytest.Config, ours: Session) -> None:
    """Have pytest-html and JUnit write nothing into the run's folder."""
    manager = config.pluginmanager
    if ours.own_html:
        for plugin in [item for item in manager.get_plugins() if isinstance(item, BaseReport)]:
            manager.unregister(plugin)
    if Path(config.option.xmlpath).is_relative_to(ours.run_dir):
        # What pytest's own plugin does at the end of a run.
        junit: Any = manager.get_plugin("junitxml")
        junit.pytest_unconfigure(config)


def discard(run_dir: Path) -> None:
    """Remove the run's folder when all that is in it is an empty report."""
    for name in ("report.html", "junit.xml"):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / isolation.FOLDER, ignore_errors=True)
    with suppress(OSError):
        run_dir.rmdir()
        run_dir.parent.rmdir()


# -- on each test -------------------------------------------------------------------------


def decorate(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, ours: Session
) -> None:
    """Hang on a report which node it was about and, when it failed, what was done and said
    there."""
    if not needs_cluster(item):
        return
    node = _node_of(item)
    if report.when == "call" and node:
        report.user_properties.append(("node", node))
    if not report.failed:
        return
    from deepops_fixtures.report import page

    ours.failures += 1
    _shorten_for_summary(call, report)
    commands = list(ours.commands)
    logs = _journals(ours, sorted({command.node for command in commands}), call.start)
    evidence = extras.html(page.evidence(commands[-30:], logs))
    # pytest-html reads this attribute; it travels with the report from xdist's workers.
    vars(report)["extras"] = [*vars(report).get("extras", []), evidence]
    lines = [
        f"{c.node}$ {c.command[:300]}   [exit {c.exit_status}, {c.seconds:.1f} s]"
        for c in commands[-6:]
    ]
    if lines:
        report.sections.append(("last commands on the nodes", scrub("\n".join(lines))))


def _shorten_for_summary(call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Keep a stage's failure to one line where pytest repeats it: under CI its short summary would
    print the whole message, serial consoles and all, a second time."""
    crash = getattr(report.longrepr, "reprcrash", None)
    told = call.excinfo is not None and isinstance(call.excinfo.value, pytest.fail.Exception)
    if crash is not None and told and crash.message.strip():
        crash.message = crash.message.strip().splitlines()[0]


def _node_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("node", "")) if callspec else ""


def _journals(ours: Session, names: list[str], since: float) -> dict[str, str]:
    """Return the nodes' journals from when the test began; a node that does not answer says so."""
    nodes = running_nodes(ours)
    logs = {}
    for name in names:
        if nodes is not None and name in [node.name for node in nodes]:
            script = _JOURNAL.format(since=int(since) - 1)
            try:
                logs[name] = nodes[name].run_script(script, 20)
            except Exception as error:
                logs[name] = f"not to be had: {error}"
    return logs


def _running(ours: Session) -> RunningCluster | None:
    from deepops_fixtures.cluster.running import RunningCluster

    with suppress(OSError, ValueError):
        return RunningCluster.model_validate_json((ours.run_dir / "cluster.json").read_text())
    return None


def running_nodes(ours: Session) -> Nodes | None:
    """Return the nodes of the run's cluster, their commands not recorded; None where none came
    up."""
    from deepops_fixtures.cluster.running import Nodes

    running = _running(ours)
    return Nodes(running) if running else None


def remember_outcome(ours: Session, report: pytest.TestReport) -> None:
    """Keep how a test ended, for the page and the last lines; called where the reports come
    together."""
    if report.when != "call" and report.passed:
        return
    outcome = report.outcome if report.when == "call" or report.skipped else "error"
    check = CheckOutcome(
        nodeid=report.nodeid,
        outcome=outcome,
        # xdist's report of a test in which a worker died knows no time.
        begin=report.start or time.time(),
        seconds=round(report.duration, 3),
        node=str(dict(report.user_properties).get("node", "")) or _bracketed(report.nodeid, ours),
        message=_cause(report),
        worker=str(getattr(report, "worker_id", "")).replace("master", ""),
        parts=tuple(part for part in facts.PARTS if part in report.keywords),
    )
    ours.outcomes.append(check)
    if ours.used:
        ours.rehearsal.journal.note(
            "checks", check.nodeid, node=check.node, status=outcome, seconds=check.seconds
        )


def _bracketed(nodeid: str, ours: Session) -> str:
    nodeid = upgrade.phase_of(nodeid)[0]
    inside = nodeid.rpartition("[")[2].rstrip("]") if nodeid.endswith("]") else ""
    return inside if ours.used and ours.spec and inside in ours.spec.nodes else ""


def _cause(report: pytest.TestReport) -> str:
    """Return the first line of what a test said."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ").splitlines()[0]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", "") or report.longrepr).strip()
    line = text.splitlines()[0] if text else ""
    for prefix in ("deepops_fixtures.errors.", "AssertionError: ", "CheckFailed: ", "Failed: "):
        line = line.removeprefix(prefix)
    return scrub(line)[:400]


# -- at the end ---------------------------------------------------------------------------


def collect_bundle(ours: Session) -> None:
    """Collect the state of the nodes while they live, when anything failed."""
    from deepops_fixtures.report import bundle

    failed = ours.rehearsal.stages.failure() is not None or any(o.bad for o in ours.outcomes)
    nodes = running_nodes(ours)
    if not failed:
        return
    if nodes is not None and len(nodes):
        with ours.rehearsal.journal.step("report", "collecting the state of the nodes"):
            bundle.collect(nodes, ours.run_dir / "bundle")
    bundle.pack(
        ours.run_dir,
        ("bundle", "deploy", "logs", "consoles", "events.jsonl", "cluster.json", "spec.json"),
    )


def learn_versions(ours: Session) -> None:
    """Ask the cluster what runs on it, while it lives."""
    nodes = running_nodes(ours)
    if nodes is None or not nodes.group("slurm-master"):
        return
    script = "sinfo --version; . /etc/os-release; echo $PRETTY_NAME, Linux $(uname -r)"
    with suppress(Exception):
        lines = nodes.slurm_controller.run_script(script, 20).splitlines()
        slurm, system = lines[0].removeprefix("slurm-wlm ").removeprefix("slurm "), lines[-1]
        ours.versions = {"Slurm": slurm if slurm[:1].isdigit() else "", "nodes run": system}


def summary_html(ours: Session) -> str:
    """Return what stands above the table of pytest-html."""
    from deepops_fixtures.report import page

    return page.summary(_facts(ours))


def _facts(ours: Session) -> page.RunFacts:
    from deepops_fixtures.applying import history
    from deepops_fixtures.cluster.box import Box
    from deepops_fixtures.report import page, provenance, timeline

    rehearsal, checks, spec = ours.rehearsal, ours.outcomes, ours.spec
    events = rehearsal.journal.events()
    running = _running(ours)
    planned = running.nodes if running else _planned(ours)
    failure = rehearsal.stages.failure_reason()
    box = ""
    if spec and running and running.provider == "vagrant":
        box = spec.box
        with suppress(DeepopsError):
            made = Box(box, ours.settings.cache_dir)
            box = f"{box}, recipe {made.version}"
    network = f"{spec.name}: {spec.description}" if spec else ""
    return page.RunFacts(
        title="DeepOps Virtual",
        verdict=verdict(ours),
        good=_good(ours),
        problems=[*([failure] if failure else []), *ours.problems],
        cards=page.cards(planned, spec, checks),
        network=network,
        timeline=timeline.build(events, checks),
        provenance=provenance.collect(
            running,
            () if ours.settings.attach else ours.sources,
            history(ours.settings, ours.run_dir),
            box,
            running.name if running else rehearsal.instance,
            rehearsal.origin,
            ours.versions,
        ),
        files=page.files_of(ours.run_dir),
        roles=timeline.roles(events),
        failures=[item for item in checks if item.bad],
        remarks=ours.remarks,
        slowest=sorted(timeline.own_time(checks, events), key=lambda item: -item.seconds)[:10],
    )


def _planned(ours: Session) -> list[Any]:
    with suppress(DeepopsError):
        return ours.rehearsal.planned_nodes()
    return []


def _good(ours: Session) -> bool:
    ran = any(item.outcome == "passed" for item in ours.outcomes)
    bad = any(item.bad for item in ours.outcomes)
    return ran and not bad and not ours.problems and ours.rehearsal.stages.failure() is None


def verdict(ours: Session) -> str:
    """Return what the run found, in one sentence; another tells of GPUs that were SIMULATED."""
    return " ".join(filter(None, (_found(ours), simulation.note(ours))))


def _found(ours: Session) -> str:
    counts = {
        name: sum(o.outcome == name for o in ours.outcomes) for name in ("passed", "skipped")
    }
    bad = sum(o.bad for o in ours.outcomes)
    failure = ours.rehearsal.stages.failure_reason()
    if failure:
        return failure
    if not ours.outcomes:
        return "The run ended before any check did."
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    if bad:
        where = sorted({o.node for o in ours.outcomes if o.bad and o.node})
        on = f", on {', '.join(where)}" if where else ""
        return (
            f"The cluster is broken: {bad} of {bad + counts['passed']} checks failed{on}{skipped}."
        )
    if not counts["passed"]:
        return f"Nothing was checked: all {counts['skipped']} checks were skipped."
    plural = "" if counts["passed"] == 1 else "s"
    return f"The cluster works: {counts['passed']} check{plural} passed{skipped}."


def make_sure_of_room(config: pytest.Config, ours: Session) -> None:
    """See whether a report can be written at all; where not, say so instead of a traceback."""
    probe = ours.run_dir / ".room"
    try:
        probe.write_bytes(bytes(_REPORT_BYTES))
    except OSError as error:
        ours.problems.append(f"No report could be written to '{ours.run_dir}': {error.strerror}.")
        for plugin in config.pluginmanager.get_plugins():
            if isinstance(plugin, BaseReport):
                vars(plugin)["_report_path"] = Path(os.devnull)
            if type(plugin).__name__ == "LogXML":
                vars(plugin)["logfile"] = os.devnull
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def point_latest(ours: Session) -> None:
    """Let ``reports/latest`` point to this run."""
    link = ours.settings.reports / "latest"
    partial = ours.settings.reports / f".latest-{os.getpid()}"
    with suppress(OSError):
        if link.is_symlink() or not link.exists():
            partial.symlink_to(ours.run_dir.name)
            partial.replace(link)


def summarize(terminal: Any, config: pytest.Config, ours: Session) -> None:
    """Say in the last lines what was found, what is left, and where the report is."""
    from deepops_fixtures.live import duration
    from deepops_fixtures.report import timeline

    terminal.section("DeepOps Virtual", sep="=")
    phases = timeline.build(ours.rehearsal.journal.events(), ours.outcomes).phases
    if phases:
        terminal.write_line(
            "time: " + ", ".join(f"{k.lower()} {duration(v)}" for k, v in phases.items())
        )
    if ours.rehearsal.origin:
        terminal.write_line(f"start: {ours.rehearsal.origin}")
    for line, notable in (line for remark in ours.remarks for line in remark.lines):
        terminal.write_line(line, yellow=notable)
    failures = [item for item in ours.outcomes if item.bad]
    for item in failures[:20]:
        where = "" if item.node and item.node in item.message else f"{item.node or 'cluster'}: "
        terminal.write_line(f"  {where}{item.message or item.name}", red=True)
    if len(failures) > 20:
        terminal.write_line(f"  … and {len(failures) - 20} more")
    for problem in ours.problems:
        terminal.write_line(problem, red=True)
    terminal.write_line(_left(ours), yellow=bool(ours.kept))
    terminal.write_line(f"report: {_short(Path(config.option.htmlpath or ours.run_dir))}")
    good = _good(ours)
    terminal.write_line(verdict(ours), bold=True, green=good, red=not good)


def _left(ours: Session) -> str:
    if ours.settings.existing:
        return "hosts: left as they were"
    if ours.settings.attach:
        name = ours.settings.attach
        return f"cluster: '{name}' runs on; next: deepops-virtual destroy {name}"
    if ours.kept:
        return (
            f"cluster: '{ours.kept}' was kept; next: deepops-virtual ssh {ours.kept} NODE, "
            f"pytest --deepops-attach {ours.kept}, deepops-virtual destroy {ours.kept}"
        )
    if ours.problems:
        return "cluster: not taken down cleanly, see above"
    return (
        "cluster: destroyed; nothing of it is left on this host"
        if ours.rehearsal.instance
        else "cluster: none was made"
    )


def _short(path: Path) -> str:
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
