"""Where ``deepops-virtual`` begins: Ctrl-C counts from the first moment on.

Reading the commands takes some tenths of a second, in which an impatient user gets a trace of
Python's imports otherwise. Not for the commands: those are ``cli``'s.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from deepops_fixtures.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    run()
