"""Sends a program of ``remote/`` to a node over its connection and reads the line of JSON that it
prints after its mark. Not for what the answer means."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepops_fixtures.errors import CheckFailed

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

_SCRIPT = """\
for python in python3 /usr/libexec/platform-python; do
  command -v $python >/dev/null && break
done
$python - {arguments} <<'PROBE_ENDS'
{source}
PROBE_ENDS
"""


def ask(
    node: Node, name: str, mark: str, words: Sequence[str], seconds: float, what: str
) -> dict[str, Any]:
    """Return what the probe in ``remote/NAME.py`` finds with this command line, within
    ``seconds``.

    Raises CheckFailed, which calls it ``what``, when the probe itself does not run.
    """
    __tracebackhide__ = True
    source = Path(__file__).with_name("remote") / f"{name}.py"
    script = _SCRIPT.format(arguments=shlex.join(words), source=source.read_text())
    try:
        text = node.run_script(script, seconds)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise CheckFailed(f"{what} on '{node.name}' did not end: {error}") from None
    line = next((each for each in text.splitlines() if each.startswith(mark)), "")
    if not line:
        said = "\n".join(text.strip().splitlines()[-8:]) or "it printed nothing"
        raise CheckFailed(f"{what} on '{node.name}' gave no answer:\n{said}")
    found: dict[str, Any] = json.loads(line[len(mark) :])
    return found
