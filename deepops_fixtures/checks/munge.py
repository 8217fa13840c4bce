"""Munge: whether what one node signs another believes. Never shows a key. Source: munge(1),
unmunge(1).
"""

from __future__ import annotations

from deepops_fixtures.checks import remote
from deepops_fixtures.cluster.running import Node

KEY = "/etc/munge/munge.key"


class Munge:
    """The cluster's authentication service, over all nodes that take part in it.

    >>> Munge(nodes.group("slurm-cluster")).strangers()
    {}
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def decoded(self) -> dict[tuple[str, str], str]:
        """Return for each pair (origin, reader) '' if a credential made there decodes here, else
        why not.
        """
        munge = "timeout 10 munge -n"
        made = remote.everywhere(self.nodes, lambda node: remote.run(node, munge))

        def read(node: Node) -> dict[str, remote.Answer]:
            return remote.ask(
                node,
                {
                    origin: f"echo {credential.text.strip()} | timeout 10 unmunge -o /dev/null"
                    for origin, credential in made.items()
                    if credential.ok
                },
            )

        readings = remote.everywhere(self.nodes, read)
        outcome: dict[tuple[str, str], str] = {}
        for reader, answers in readings.items():
            for origin, credential in made.items():
                if not credential.ok:
                    outcome[origin, reader] = credential.text.strip() or "no credential was made"
                else:
                    answer = answers[origin]
                    outcome[origin, reader] = "" if answer.ok else answer.text or f"rc {answer.rc}"
        return outcome

    def strangers(self, decoded: dict[tuple[str, str], str] | None = None) -> dict[str, str]:
        """Return the nodes that do not share the others' trust, each with one example of it.

        The node that most others agree with is the measure (the first in the list on a tie), so
        that one wrong key is blamed on one node and not on everybody who meets it.
        """
        pairs = self.decoded() if decoded is None else decoded
        names = [node.name for node in self.nodes]

        def agree(one: str, other: str) -> bool:
            return not pairs[one, other] and not pairs[other, one]

        if not names:
            return {}
        measure = max(names, key=lambda one: sum(agree(one, other) for other in names))

        def example(name: str) -> str:
            origin, reader = (measure, name) if pairs[measure, name] else (name, measure)
            why = pairs[origin, reader]
            return f"a credential made on '{origin}' does not decode on '{reader}': {why}"

        return {name: example(name) for name in names if not agree(measure, name)}

    def keys(self) -> dict[str, str]:
        """Return for each node owner, mode and SHA-256 of its key file: 'munge munge 400 e3b0…'.
        """
        command = f"stat --format='%U %G %a' {KEY} && sha256sum {KEY} | cut -c1-64"
        said = remote.everywhere(self.nodes, lambda node: remote.run(node, command))
        return {name: " ".join(answer.text.split()) for name, answer in said.items()}
