"""Takes secrets out of whatever is written to a report: private keys, munge credentials,
passwords, tokens."""

from __future__ import annotations

import re

_RULES = (
    (
        re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL),
        r"<\1 removed>",
    ),
    (re.compile(r"MUNGE:[A-Za-z0-9+/=]{20,}:?"), "<munge credential removed>"),
    (
        re.compile(r"(?im)^(\s*(?:storage|db|mysql)?_?pass(?:word|wd)?\s*[=:]\s*)(\S+)"),
        r"\1<removed>",
    ),
    (
        re.compile(
            r"(?i)\b(password|passwd|storagepass|token|secret)([\"']?\s*[=:]\s*[\"']?)([^\s\"',]+)"
        ),
        r"\1\2<removed>",
    ),
    (re.compile(r"(?i)(--password[ =])(\S+)"), r"\1<removed>"),
)


def scrub(text: str) -> str:
    """Return the text without anything that opens a door.

    >>> scrub("StoragePass=hunter2")
    'StoragePass=<removed>'
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
