"""pytest hooks: options, markers, header, who runs what on a broken cluster, teardown, summary.

The controller (or the only process) makes the run's folder, shows progress, tears down and writes
the report; xdist workers are told the folder and only ever ask for stages. What a hook has to do
beyond deciding *when* is in ``session``, ``rehearsal`` and ``report``. pytest loads this module in
every run, so what only a run with a cluster needs is imported where it is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deepops_fixtures import collecting, header, remarking, reporting, signals
from deepops_fixtures.errors import DeepopsError, of_system
from deepops_fixtures.session import (
    KEY,
    Session,
    needs_cluster,
    remember,
    runs_on_cluster,
    session_of,
)
from deepops_fixtures.settings import Settings, ini_key, option, several, variable
from deepops_fixtures.subject import new_run_dir

if TYPE_CHECKING:
    from deepops_fixtures.live import Live

MARKERS = (
    "slurm: a statement about the cluster's Slurm",
    "kubernetes: a statement about the cluster's Kubernetes",
    "gpu: a statement about the cluster's GPUs",
    "services: a statement about the hosts' services (munge, NFS, chrony, rsyslog, ssh)",
    "destructive: reboots or breaks something; skipped on hosts that we did not make",
    "late: looks at what goes on in the background meanwhile; runs after the others",
    "slow: takes more than half a minute",
    "faults: breaks the cluster on purpose to see the checks turn red",
    "nodes(*groups): run once for each node of these DeepOps groups, or for each node at all",
    "piece(*names): about these pieces of DeepOps (hosts, nfs, …); skipped where none is deployed",
)
_LIVE: pytest.StashKey[Live] = pytest.StashKey()
#: Exit statuses with which pytest asks for a summary; after a signal it does not.
_SUMMARIZED = frozenset(pytest.ExitCode) - {pytest.ExitCode.INTERNAL_ERROR}
_WORKER_KEY = "deepops_run"


# -- configuration ------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the options and ini keys from the table in ``settings``."""
    group = parser.getgroup("deepops", "DeepOps Virtual")
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f" (default: {field.default})"
        text = f"{field.description}{default} [{variable(name)}]".replace("%", "%%")
        if field.annotation is bool:
            group.addoption(option(name), action="store_true", default=None, help=text)
        else:
            metavar = name.rsplit("_", 1)[-1].upper()
            action = "append" if several(name) else "store"
            group.addoption(option(name), action=action, default=None, metavar=metavar, help=text)
        parser.addini(ini_key(name), f"default of {option(name)}", default=None)


def _settings(config: pytest.Config) -> Settings:
    options = {
        name: config.getoption(option(name).lstrip("-").replace("-", "_"))
        for name in Settings.model_fields
    }
    ini = {}
    for name in Settings.model_fields:
        value = config.getini(ini_key(name))
        if value not in (None, ""):
            ini[name] = value
    return Settings.load(options, ini)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, refuse bad ones, make the session; register the fixtures after
    testinfra's own."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    worker = getattr(config, "workerinput", None)
    with _usage_errors():
        settings = _settings(config)
        collecting.refuse_upgrade(config, settings)
        if worker:
            run_dir, controller = worker[_WORKER_KEY]
            session = Session(settings, Path(run_dir), worker["workerid"], controller)
        else:
            session = Session(settings, new_run_dir(settings))
    remember(config, session)
    if not getattr(config.option, "hosts", None):
        from deepops_fixtures import fixtures

        # testinfra has a fixture 'host' of its own; of two plugins' fixtures the later registered
        # counts.
        config.pluginmanager.register(fixtures, "deepops-fixtures")
    if not worker:
        signals.install(lambda message, status: pytest.exit(message, returncode=status))
        with _usage_errors():
            reporting.configure(config, session)
        config.pluginmanager.register(_Outcomes(session), "deepops-outcomes")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist which run it belongs to, and which process will take it down."""
    node.workerinput[_WORKER_KEY] = (str(session_of(node.config).run_dir), os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the signals back, and leave no folder of a run that needed none."""
    if _is_worker(config):
        return
    signals.restore()
    ours = config.stash.get(KEY, None)
    if ours and not ours.used:
        reporting.discard(ours.run_dir)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what this run would work on. xdist's controller collects nothing, so it says all of it
    here."""
    ours = session_of(config)
    with _usage_errors():
        return [*header.subject(ours), *(header.cluster(ours) if _has_workers(config) else [])]


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """Say what the cluster is, once it is known that a test needs it."""
    ours, wanted = session_of(config), [item for item in items if runs_on_cluster(item)]
    with _usage_errors():
        # Nobody sees what a worker says.
        if not wanted or _is_worker(config):
            return ours.change.lines() if ours.left_out and ours.change else []
        # pytest's own reporter comes before ``pytest_collection_finish`` of a plugin.
        ours.look_at(wanted)
        return header.cluster(ours)


def _has_workers(config: pytest.Config) -> bool:
    return config.pluginmanager.has_plugin("dsession")


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Make pytest's own refusal of ours."""
    try:
        yield
    except DeepopsError as error:
        raise pytest.UsageError(str(error)) from None
    except OSError as error:
        raise pytest.UsageError(str(of_system(error))) from None


# -- collection ---------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked ``nodes(...)`` once for each node of these groups."""
    collecting.parametrise(metafunc)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip destructive tests on hosts we did not make; run them after all others elsewhere, late
    ones before. Skip tests of GPUs where the virtual machines will have none."""
    ours = session_of(config)
    with _usage_errors():
        collecting.refuse(items, ours)
        collecting.skip_gpus_that_will_not_be_there(items, ours, config.option.markexpr)
        collecting.skip_destruction_of_what_is_not_ours(items, ours)
        collecting.arrange(config, items, ours)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse what cannot work before the first test, once it is known that a test needs the
    cluster."""
    config, ours = session.config, session_of(session.config)
    items = [item for item in session.items if runs_on_cluster(item)]
    if items:
        with _usage_errors():
            ours.look_at(items)
    if _is_worker(config) or config.option.collectonly:
        return
    if not items:
        reporting.without_cluster(config, ours)
        return
    _say_abandoned(config, ours)
    with _usage_errors():
        ours.rehearsal.preflight()
    _start_live(config, ours)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Under xdist the controller collects nothing, so it follows the run from here."""
    config = session.config
    if not _is_worker(config) and _has_workers(config):
        with _usage_errors():
            session_of(config).read_request()
        _start_live(config, session_of(config))


def _start_live(config: pytest.Config, ours: Session) -> None:
    from deepops_fixtures.live import Live, colours_wanted

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0:
        return
    stream = os.fdopen(os.dup(sys.__stdout__.fileno() if sys.__stdout__ else 1), "w")

    def write(line: str) -> None:
        # Past pytest's capture, under which a fixture works; what the reporter does at a line's
        # begin has to be done here then.
        with suppress(ValueError, OSError):
            begun = "\n" if reporter.currentfspath else ""
            reporter.currentfspath = None
            stream.write(f"{begun}{line}\n")
            stream.flush()

    live = Live(ours.rehearsal.journal.path, write, colour=colours_wanted(stream))
    config.stash[_LIVE] = live
    live.start()


def _say_abandoned(config: pytest.Config, ours: Session) -> None:
    """Name the instances of runs that were killed, and how to remove them; and ledgers that cannot
    be read."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    with suppress(DeepopsError):
        book = ours.rehearsal.book
        names = ", ".join(item.name for item in book.orphans())
        lines = [f"A run that was killed left: {names}. Next: deepops-virtual clean"]
        for text in (lines if names else []) + book.rejected:
            if reporter:
                reporter.write_line(text, yellow=True)


# -- tests --------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the cluster while a test runs: alone when it breaks something."""
    ours = session_of(item.config)
    ours.commands.clear()
    if not needs_cluster(item) or not ours.rehearsal.disposable:
        return (yield)
    with ours.isolation.hold(item):
        try:
            return (yield)
        finally:
            if ours.used:
                ours.isolation.after()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """On a broken cluster the test that met the failure errors; the rest skip with the reason.
    What a destructive test did is undone before the next test.

    pytest's own skips come before this, the fixtures after it.
    """
    ours = session_of(item.config)
    if needs_cluster(item):
        reason = ours.rehearsal.stages.failure_reason() or collecting.why_not_deployed(item)
        if reason:
            pytest.skip(reason)
        if ours.rehearsal.disposable:
            try:
                ours.isolation.before(item)
            except DeepopsError as error:
                raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """Hang what a test did on the nodes on its report."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    reporting.decorate(item, call, report, session_of(item.config))


class _Outcomes:
    """Hears every report where they come together (the controller); registered for one run."""

    def __init__(self, ours: Session) -> None:
        self._ours = ours

    def pytest_collectreport(self) -> None:
        """Have a signal end the collection."""
        signals.insist()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how the test ended."""
        reporting.remember_outcome(self._ours, report)


# -- the end ------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tear down (the controller alone), audit, and let a leak fail the run."""
    config = session.config
    if _is_worker(config):
        return
    ours = session_of(config)
    if ours.used:
        _end_workers(config)
        _collect(ours)
        _tear_down(session, ours, failed=bool(exitstatus))
        failure = ours.rehearsal.stages.failure()
        if failure and failure.usage:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        reporting.make_sure_of_room(config, ours)
        reporting.point_latest(ours)
    elif not config.option.collectonly:
        reporting.without_cluster(config, ours)
    live = config.stash.get(_LIVE, None)
    if live:
        live.stop()
    if ours.used and session.exitstatus not in _SUMMARIZED:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.ensure_newline()
            reporting.summarize(reporter, config, ours)


@pytest.hookimpl(optionalhook=True)
def pytest_html_report_title(report: Any) -> None:
    """Give the page our title."""
    report.title = "DeepOps Virtual"


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_summary(prefix: list[str], session: pytest.Session) -> None:
    """Put verdict, cluster picture, timeline and provenance above the table."""
    ours = session_of(session.config)
    if ours.used:
        prefix.append(reporting.summary_html(ours))


def _end_workers(config: pytest.Config) -> None:
    """End xdist's workers first: one that still brings the cluster up must not go on during
    teardown."""
    dsession = config.pluginmanager.get_plugin("dsession")
    manager = getattr(dsession, "nodemanager", None)
    if manager is not None:
        manager.teardown_nodes()


def _collect(ours: Session) -> None:
    """Collect what the report needs of the living nodes. Nothing that goes wrong here, a full disk
    or an impatient user, may keep the teardown from happening."""
    try:
        reporting.learn_versions(ours)
        ours.remarks = remarking.gather(ours)
        reporting.collect_bundle(ours)
    except KeyboardInterrupt:
        ours.problems.append("The state of the nodes was not collected: interrupted.")
    except Exception as error:
        ours.problems.append(f"The state of the nodes could not be kept: {error}.")


def _tear_down(session: pytest.Session, ours: Session, *, failed: bool) -> None:
    with signals.teardown():
        try:
            stays = ours.settings.attach or (ours.settings.keep == "always" and not failed)
            problem = ours.isolation.at_the_end() if stays else ""
            ours.kept = ours.rehearsal.down(failed=failed)
            if problem:
                raise DeepopsError(problem)
        except (DeepopsError, KeyboardInterrupt) as error:
            message = str(error) or "The teardown was interrupted."
            if isinstance(error, KeyboardInterrupt) and ours.rehearsal.instance:
                message += f"\nNext: deepops-virtual destroy {ours.rehearsal.instance}"
            ours.problems.append(message)
            if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was found, what is left and where the report is, in the last lines."""
    ours = session_of(config)
    if ours.used and not config.option.collectonly:
        reporting.summarize(terminalreporter, config, ours)
