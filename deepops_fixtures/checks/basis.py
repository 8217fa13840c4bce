"""What the other checks stand on, looked at once: services, trust, shared folders, node states.

A check that needs what is broken would end in a long timeout and hide the cause. It asks here
first, and gives up at once with the cause. Each problem is *reported* by one check, named here;
not for asserting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from deepops_fixtures import facts
from deepops_fixtures.checks import remote, slurm_data
from deepops_fixtures.checks.munge import Munge
from deepops_fixtures.checks.nfs import Nfs
from deepops_fixtures.checks.units import Units
from deepops_fixtures.cluster.running import Node, Nodes
from deepops_fixtures.errors import CheckFailed

#: The check that reports a problem of each kind.
REPORTERS = {
    "ssh": "test_every_node_answers",
    "unit": "test_services_of_each_role_are_active_and_enabled",
    "trust": "test_munge_credential_made_on_one_node_decodes_on_every_other",
    "mount": "test_home_and_sw_are_mounted_from_the_server",
    "controller": "test_slurm_controller_answers",
    "state": "test_compute_node_accepts_jobs",
}
#: What a node needs for jobs to run on it, in the order in which one thing breaks the next.
FOR_JOBS = ("ssh", "munge", "trust", *facts.NFS_EXPORTS, "slurmd", "state")
#: … and what the node that runs slurmctld needs.
FOR_CONTROL = ("ssh", "munge", "trust", "nfs-server", "slurmctld", "controller")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong on one node. ``subject`` is a service, a folder, or a key of
    REPORTERS.
    """

    node: str
    subject: str
    sentence: str
    kind: str

    @property
    def reporter(self) -> str:
        """The name of the check that turns red for it, with its parameter."""
        name = REPORTERS[self.kind]
        return name if self.kind == "controller" else f"{name}[{self.node}]"


class Basis:
    """The state of a cluster's foundations at the first question.

    >>> [problem.sentence for problem in basis.problems(["slurmd"], ["virtual-gpu01"])]
    ["on 'virtual-gpu01' slurmd is inactive (dead) and enabled"]
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def forget(self) -> None:
        """Look again at the next question: something has changed the cluster."""
        self.__dict__.pop("all", None)

    @cached_property
    def all(self) -> list[Problem]:
        """Every problem found."""
        per_node = remote.everywhere(self.nodes, self._look_at)
        found = [problem for problems in per_node.values() for problem in problems]
        silent = {problem.node for problem in found if problem.subject in ("ssh", "munge")}
        members = [one for one in self.nodes.group("slurm-cluster") if one.name not in silent]
        found += [
            Problem(name, "trust", why, "trust")
            for name, why in Munge(members).strangers().items()
        ]
        if self.nodes.group("slurm-master"):
            found += self._look_at_slurm(found)
        return found

    def problems(self, subjects: Iterable[str], names: Iterable[str]) -> list[Problem]:
        """Return the problems with these subjects on these nodes, in the order of the subjects."""
        names = set(names)
        return [
            problem
            for subject in subjects
            for problem in self.all
            if problem.subject == subject and problem.node in names
        ]

    def against_slurm(self) -> list[Problem]:
        """Return what keeps Slurm as a whole from working: problems of the node that controls it.
        """
        return self.problems(FOR_CONTROL, [self.nodes.slurm_controller.name])

    def against_jobs(self) -> dict[str, Problem]:
        """Return the compute nodes that no check should send jobs to, each with its first problem.
        """
        unfit: dict[str, Problem] = {}
        for problem in self.problems(FOR_JOBS, [node.name for node in self.nodes.slurm_nodes]):
            unfit.setdefault(problem.node, problem)
        return unfit

    def _look_at(self, node: Node) -> list[Problem]:
        units = Units(node)
        nfs = Nfs(self.nodes) if node.groups and self.nodes.group("slurm-master") else None
        commands = {"units": units.command} if units.expected else {"true": "true"}
        folders = facts.NFS_EXPORTS if nfs and node in nfs.clients else ()
        commands |= {folder: Nfs.mount_command(folder) for folder in folders}
        try:
            said = remote.ask(node, commands)
        except CheckFailed as error:
            return [Problem(node.name, "ssh", str(error).splitlines()[0], "ssh")]
        found = [
            Problem(node.name, unit.name, f"on '{node.name}' {unit}", "unit")
            for unit in (units.parse(said["units"].text) if units.expected else [])
            if not unit.is_active
        ]
        for folder in folders:
            mount = Nfs.parse_mount(folder, said[folder].text)
            if nfs and not nfs.is_ours(mount):
                found.append(Problem(node.name, folder, f"on '{node.name}' {mount}", "mount"))
        return found

    def _look_at_slurm(self, so_far: list[Problem]) -> list[Problem]:
        controller = self.nodes.slurm_controller
        if any(one.node == controller.name and one.subject in FOR_CONTROL for one in so_far):
            return []  # it cannot answer, and why is known
        answer = remote.run(controller, "timeout 20 scontrol --oneliner show nodes")
        if not answer.ok:
            why = (answer.text.strip() or "no answer within 20 s").splitlines()[-1]
            sentence = f"slurmctld on '{controller.name}' does not answer: {why}"
            return [Problem(controller.name, "controller", sentence, "controller")]
        return [
            Problem(node.name, "state", f"node {node}", "state")
            for node in slurm_data.parse_nodes(answer.text)
            if not node.accepts_jobs
        ]
