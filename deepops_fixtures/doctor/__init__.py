"""Is this host ready? Each check is one function that gives one verdict and one line to mend it.

Nothing is mended here: `deepops_fixtures.passthrough` prepares a host, `./setup.sh` its programs.
"""

from __future__ import annotations

from deepops_fixtures.doctor.model import Check, Report
from deepops_fixtures.doctor.run import preflight, refuse_unready

__all__ = ["Check", "Report", "preflight", "refuse_unready"]
