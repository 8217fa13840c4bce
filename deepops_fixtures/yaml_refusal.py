"""What is said of a file that is to be YAML and is not: file, line, column, in one sentence.

PyYAML ends with more than its own errors: a date that is none is a ValueError, brackets within
brackets a RecursionError. Not for what the data means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from deepops_fixtures.errors import UsageProblem


@contextmanager
def refusing(
    file: Path, whose: str = "", kind: type[UsageProblem] = UsageProblem
) -> Iterator[None]:
    """Turn what goes wrong while a YAML file is read into a UsageProblem of this kind that names
    it. ``whose``: what the message begins with ('--deepops-extra-vars: ')."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or error
        named = f"{whose}file" if whose else "File"
        raise kind(f"{named} '{file}' cannot be read: {what}.", hint=f"ls -l {file}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else f"{file}"
        raise kind(
            f"{whose}{where}: not YAML: {getattr(error, 'problem', None) or error}.",
            hint=f"mend '{file}'",
        ) from None
    except RecursionError:
        raise kind(
            f"{whose}{file}: too deeply nested to be read.", hint=f"mend '{file}'"
        ) from None
    except ValueError as error:
        raise kind(f"{whose}{file}: not YAML: {error}.", hint=f"mend '{file}'") from None
