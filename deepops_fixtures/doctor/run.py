"""The questions in their order, and asking them: each gives one check, whatever happens.

Used by ``deepops-virtual doctor``, which asks all of them, and before every run, which asks those
it could not go on without. How a report is shown is the command line's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from deepops_fixtures.cluster.gpus import requested
from deepops_fixtures.cluster.topology import ClusterSpec
from deepops_fixtures.doctor import bios, capacity, cpu, gpus, iommu, tools, vfio
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Check, Question, Verdict, fail, skip
from deepops_fixtures.errors import DeepopsError, UsageProblem
from deepops_fixtures.passthrough.pci import PCI_DEVICES, Host
from deepops_fixtures.settings import Settings

QUESTIONS: Final[tuple[Question, ...]] = (
    *cpu.QUESTIONS,
    *tools.QUESTIONS,
    *capacity.QUESTIONS,
    *bios.QUESTIONS,
    *iommu.QUESTIONS,
    *vfio.QUESTIONS,
    *gpus.QUESTIONS,
)


def examine(case: Case, questions: Iterable[Question] = QUESTIONS) -> Iterator[Check]:
    """Ask these questions one after the other; yield each check as soon as it is known."""
    for question in questions:
        verdict = _answer(case, question)
        yield Check(
            name=question.name,
            status=verdict.status,
            detail=" ".join(verdict.detail.split()),
            fix=verdict.fix,
        )


def _answer(case: Case, question: Question) -> Verdict:
    if question.here and not case.host.is_this_host:
        return skip("only the host itself can tell, not a saved tree")
    try:
        if question.about == "host":
            return question.look(case)
        if case.foreign:
            return skip(case.foreign)
        if not case.host.has_devices:
            return skip(f"{case.host.lacks(PCI_DEVICES)}, so that its devices are not known")
        if not case.asked and not case.units:
            return skip("no GPU is asked for, and this host has none")
        verdict = question.look(case)
    except DeepopsError as error:
        verdict = fail(str(error.message), error.hint)
    except Exception as error:  # a check that breaks is an answer too, and no other goes with it
        verdict = fail(
            f"the check itself broke: {type(error).__name__}: {error}",
            f"report it, with: {case.host.reading('doctor --json')}",
        )
    if verdict.status == "fail" and question.about == "passthrough" and not case.asked:
        # A host that cannot hand GPUs through is ready for a cluster without any.
        return Verdict("warn", verdict.detail, verdict.fix)
    return verdict


def preflight(settings: Settings, spec: ClusterSpec) -> list[Check]:
    """Return the checks of what a run needs; nothing is started or changed for them.

    What is about GPUs is asked only where the settings, or GPUDATA, ask for some. Raises
    UsageProblem when these are malformed.
    """
    case = Case(Host(), settings, spec, requested(settings))
    wanted = [
        question
        for question in QUESTIONS
        if question.preflight and (case.asked or question.about == "host")
    ]
    return list(examine(case, wanted))


def refuse_unready(checks: Iterable[Check]) -> None:
    """Raise one UsageProblem that lists every failing check with its fix, if any fails."""
    failed = [check for check in checks if check.status == "fail"]
    if not failed:
        return
    if len(failed) == 1:
        raise UsageProblem(failed[0].detail, hint=failed[0].fix)
    raise UsageProblem(
        f"This host is not ready: {len(failed)} checks fail.",
        detail="\n".join(
            line
            for check in failed
            for line in (f"{check.name}: {check.detail}", f"  Next: {check.fix}")
        ),
        hint="deepops-virtual doctor   (all checks)",
    )
