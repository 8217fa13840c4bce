"""Whether this host has room for the cluster: processors, memory and disk, subnets.

The arithmetic is that of `cluster.capacity` and `cluster.instance`; here it becomes verdicts.
"""

from __future__ import annotations

from deepops_fixtures.cluster import capacity, instance
from deepops_fixtures.cluster.accelerator import choose_accelerator
from deepops_fixtures.cluster.ledger import LedgerBook
from deepops_fixtures.doctor.case import Case
from deepops_fixtures.doctor.model import Question, Verdict, fail, ok, skip, warn


def processors(case: Case) -> Verdict:
    """Compare the cluster's virtual CPUs with the processors; more of them take turns."""
    assert case.spec is not None
    if not case.cpus:
        return skip("'/proc/cpuinfo' cannot be read")
    wanted = sum(node.cpus for node in case.spec.nodes.values())
    detail = f"CPUs: {wanted} in the nodes, {case.cpus} on this host"
    if wanted <= case.cpus:
        return ok(detail)
    return warn(f"{detail}; they take turns", "lower 'cpus' of the nodes, or take a larger host")


def room(case: Case) -> Verdict:
    """Compare memory and disk with what the cluster may come to take."""
    assert case.spec is not None
    book = LedgerBook(case.settings.state_dir)
    kind = choose_accelerator(case.settings).kind
    lack = capacity.shortage(case.spec, kind, book)
    if not lack:
        needed = capacity.needed_memory(case.spec, kind) // 1024**2
        return ok(f"there are {needed} MiB of memory and {case.spec.disk} GiB of disk for it")
    blockers = capacity.blockers(book)
    if blockers:
        names = ", ".join(f"'{item.name}'" for item in blockers)
        return warn(f"{lack.message} A run would wait for {names}.", lack.hint)
    return fail(lack.message, lack.hint)


def subnets(case: Case) -> Verdict:
    """Look for two subnets that nobody on this host uses. Raises UsageProblem for none."""
    assert case.spec is not None
    own, management = instance.choose_subnets(case.spec, LedgerBook(case.settings.state_dir))
    return ok(f"{own} and {management} are free")


QUESTIONS = (
    Question("cpus", processors),
    Question("memory-and-disk", room, here=True),
    Question("subnets", subnets, here=True),
)
