"""Several questions to a node in one remote command, and one question to several nodes at once.

A remote command costs far more than what it runs, above all on emulated guests. Not a replacement
for testinfra's modules: those stay the way to ask one thing.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from deepops_fixtures.checks.waiting import failure
from deepops_fixtures.cluster.running import Node

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What one command said: its exit status and its output, standard error included."""

    rc: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.rc == 0


def run(node: Node, command: str, *, user: str = "root") -> Answer:
    """Run a shell command on a node and return its answer, whatever its exit status.

    ``user`` is 'root', '' for the user that logs in, or any other user's name (a login shell of
    his). Raises CheckFailed when the node itself does not answer.
    """
    __tracebackhide__ = True
    if user not in ("", "root"):
        command = shlex.join(["runuser", "-l", user, "-c", command])
    host = node.host if user else node.user_host
    try:
        result = host.run(f"{{ {command}\n}} 2>&1")
    except RuntimeError as error:  # testinfra's ssh backend on exit status 255
        raise failure(f"Node '{node.name}' does not answer over ssh.", str(error)) from None
    return Answer(result.rc, result.stdout)


def ask(node: Node, commands: Mapping[str, str], *, user: str = "root") -> dict[str, Answer]:
    """Run several shell commands on a node in one remote call and return an answer for each.

    >>> ask(node, {"cpus": "nproc", "kernel": "uname -r"})["cpus"].text
    '2'
    """
    __tracebackhide__ = True
    mark = f"answer-{secrets.token_hex(4)}"
    script = "\n".join(
        f"( {command}\n) </dev/null 2>&1; printf '\\n%s %s\\n' {mark} $?"
        for command in commands.values()
    )
    said = run(node, script, user=user)
    pieces = re.split(rf"\n{mark} (\d+)\n", said.text)
    answers = [
        Answer(int(rc), text.strip())
        for text, rc in zip(pieces[0:-1:2], pieces[1::2], strict=True)
    ]
    if len(answers) != len(commands):
        raise failure(f"Node '{node.name}' did not finish answering.", said.text[-2000:])
    return dict(zip(commands, answers, strict=True))


def everywhere(nodes: Iterable[Node], question: Callable[[Node], T]) -> dict[str, T]:
    """Put the question to all nodes at once; return the answers by node name, in the nodes' order.
    """
    listed = list(nodes)
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(listed)))) as pool:
        return dict(zip((node.name for node in listed), pool.map(question, listed), strict=True))


def odd_ones_out(values: Mapping[str, str], prefer: str = "") -> dict[str, str]:
    """Return the names whose value differs from the most frequent one; a tie goes to ``prefer``'s.

    >>> odd_ones_out({"login": "a", "n1": "b", "n2": "a"})
    {'n1': 'b'}
    """
    counts: dict[str, float] = {}
    for name, value in values.items():
        counts[value] = counts.get(value, 0) + (1.5 if name == prefer else 1)
    usual = max(counts, key=lambda value: counts[value], default="")
    return {name: value for name, value in values.items() if value != usual}
