"""The GPUs that are asked for: whether the host has them, in whole groups, free, and which node
would get which.

The rules are those of `passthrough.candidates` and `passthrough.selection`.
"""

from __future__ import annotations

from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn
from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough.candidates import Rules


def devices(case: Case) -> Verdict:
    """Look at the GPUs asked for, or at all there are: whole IOMMU groups, refusals, leases."""
    if case.asked:
        return _asked(case)
    gpus = [gpu for unit in case.units for gpu in unit.gpus]
    if not gpus:
        return skip("there is no GPU on this host")
    rules = Rules(case.host, case.holders, case.guests)
    refusals = [text for text in map(rules.refusal, case.units) if text]
    free = len(case.units) - len(refusals)
    detail = f"{len(gpus)} GPUs; {free} of {len(case.units)} units may be handed through"
    if free == len(case.units):
        return ok(detail)
    return warn(f"{detail}: {refusals[0]}", case.host.reading("gpu list"))


def _asked(case: Case) -> Verdict:
    """Try the choice that a run would make, without taking a lease."""
    try:
        placement = case.placement(leases_end=True)
    except UsageProblem as error:
        return fail(_whole(error), error.hint)
    told = "; ".join(
        f"'{node}' would get {', '.join(map(str, placed)) or 'none'}"
        for node, placed in placement.nodes.items()
    )
    try:
        case.placement()
    except UsageProblem as error:
        # Leases end by themselves: a run waits for them.
        return warn(f"a run would wait: {_whole(error)}", case.host.reading("gpu list"))
    if placement.warnings:
        return warn(f"{told}. {' '.join(placement.warnings)}", "ask for other GPUs: --gpu")
    return ok(told)


def _whole(error: UsageProblem) -> str:
    """Return what is refused and the first reason; a DGX has sixteen devices with the same one."""
    first, *others = error.detail.splitlines() or [""]
    return " ".join((error.message, first, f"(and {len(others)} more)" if others else ""))


QUESTIONS = (Question("gpus", devices, about="passthrough"),)
