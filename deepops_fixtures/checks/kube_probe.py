"""Sends ``remote/web_probe.py`` to a node and reads what it found: what a web server or a registry
answers to somebody who stands there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from deepops_fixtures.checks import remote_probe

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Seconds that a probe may take: a push is some requests, each with a deadline of its own.
PATIENCE = 240


def ask(node: Node, *words: str) -> dict[str, Any]:
    """Return what the probe finds; 'error' is in it where nothing answers. ``words``: its command
    line. Raises CheckFailed when the probe itself does not run."""
    __tracebackhide__ = True
    # It brings in http and ssl, which a run that asks no server does not need.
    from deepops_fixtures.checks.remote.web_probe import MARK

    return remote_probe.ask(node, "web_probe", MARK, words, PATIENCE, "The web probe")


def fault(found: Mapping[str, Any], good: Collection[int] = ()) -> str:
    """Return what is wrong with an answer, '' when nothing is; ``good``: the statuses that are
    fine, any when there is none."""
    if found.get("error"):
        return str(found["error"])
    status = int(found["status"])
    if good and status not in good:
        return f"status {status}: {str(found['text'])[:200].strip()}"
    return ""
