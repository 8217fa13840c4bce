"""deepops-fixtures: rehearse a DeepOps cluster on real virtual machines under pytest, and say what
broke.

The public surface is the pytest plugin (options and fixtures), the command ``deepops-virtual`` and
the classes of ``deepops_fixtures.checks``. How the rooms of this package fit together is in
``docs/architecture.md``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("deepops-fixtures")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"
