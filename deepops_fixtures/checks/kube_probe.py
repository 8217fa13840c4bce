"""Sends ``remote/web_probe.py`` to a node and reads what it found: what a web server or a registry
answers to somebody who stands there."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Seconds that a probe may take: a push is some requests, each with a deadline of its own.
PATIENCE = 240
_SOURCE = Path(__file__).with_name("remote") / "web_probe.py"
_SCRIPT = """\
for python in python3 /usr/libexec/platform-python; do
  command -v $python >/dev/null && break
done
$python - {arguments} <<'WEB_PROBE_ENDS'
{source}
WEB_PROBE_ENDS
"""


def ask(node: Node, *words: str) -> dict[str, Any]:
    """Return what the probe finds; 'error' is in it where nothing answers. ``words``: its command
    line. Raises CheckFailed when the probe itself does not run."""
    __tracebackhide__ = True
    # It brings in http and ssl, which a run that asks no server does not need.
    from deepops_fixtures.checks.remote.web_probe import MARK

    script = _SCRIPT.format(arguments=shlex.join(words), source=_SOURCE.read_text())
    try:
        text = node.run_script(script, PATIENCE)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise CheckFailed(f"The web probe on '{node.name}' did not end: {error}") from None
    line = next((each for each in text.splitlines() if each.startswith(MARK)), "")
    if not line:
        said = "\n".join(text.strip().splitlines()[-8:]) or "it printed nothing"
        raise CheckFailed(f"The web probe on '{node.name}' gave no answer:\n{said}")
    found: dict[str, Any] = json.loads(line[len(MARK) :])
    return found


def fault(found: Mapping[str, Any], good: Collection[int] = ()) -> str:
    """Return what is wrong with an answer, '' when nothing is; ``good``: the statuses that are
    fine, any when there is none."""
    if found.get("error"):
        return str(found["error"])
    status = int(found["status"])
    if good and status not in good:
        return f"status {status}: {str(found['text'])[:200].strip()}"
    return ""
