"""What Grafana's dashboards ask of Prometheus, and whether Prometheus has it.

Pure functions from dashboards and answers of Prometheus' API to names and verdicts; who asks them
is ``kube_deepops``. Sources: Prometheus' documentation of its query language and HTTP API,
Grafana's JSON model of a dashboard, dcgm-exporter for the names DCGM_….
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from deepops_fixtures import facts
from deepops_fixtures.checks.gpu_rules import Verdict

#: An expression that gives a sample for each name of DCGM's that Prometheus has now (it forgets
#: one that nobody has told for five minutes).
PRESENT = 'count by (__name__) ({__name__=~"(.+:)?DCGM_.+"})'

_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_BY_NAME = re.compile(r'__name__\s*=\s*(?:"([^"]+)"|\'([^\']+)\')')
_GRAFANA = re.compile(r"\$\{[^}]*\}|\[\[[^\]]*\]\]|\$\w+")
_SELECTOR = re.compile(r"\{[^{}]*\}")
_LABELS = re.compile(
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", re.IGNORECASE
)
_COMMENT = re.compile(r"#[^\n]*")
_NAME = re.compile(r"(?<![\w:])[a-zA-Z_:][\w:]*\$?")


def metrics(expression: str) -> set[str]:
    """Return the metrics of DCGM's that an expression of Prometheus' query language, as Grafana
    has it, asks for.

    Labels, strings and comments are no metrics; a name that a variable of Grafana is part of is
    not known before Grafana fills it in, and is left out.

    >>> sorted(metrics('sum(DCGM_FI_DEV_POWER_USAGE{instance="$hostname:9400"}) by (gpu)'))
    ['DCGM_FI_DEV_POWER_USAGE']
    """
    named = {one or other for one, other in _BY_NAME.findall(expression)}
    text = _COMMENT.sub(" ", _STRING.sub('""', expression))
    text = _GRAFANA.sub("$", text)
    text = _LABELS.sub(" ", _SELECTOR.sub(" ", text))
    # '$' stands for a variable: 'DCGM_FI_DEV_$' is no name, nor is what comes after a variable.
    found = {
        match.group()
        for match in _NAME.finditer(text)
        if not match.group().endswith("$") and text[: match.start()][-1:] != "$"
    }
    return {name for name in found | named if "DCGM_" in name and "$" not in name}


@dataclass(frozen=True)
class Dashboard:
    """A dashboard of Grafana, as far as DCGM has a part in it."""

    title: str
    #: The metrics of DCGM's that its panels, variables and annotations ask for.
    metrics: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Dashboard:
        """Return the dashboard of a JSON document, as it is in a ConfigMap or under 'dashboard' in
        an answer of Grafana's API. Raises ValueError."""
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        model = found.get("dashboard", found)
        asked: set[str] = set()
        for expression in _expressions(model):
            asked |= metrics(expression)
        return cls(str(model.get("title", "")), frozenset(asked))


def _expressions(model: Any) -> Iterator[str]:
    """Yield every expression of a dashboard, wherever panels are nested: 'expr' of targets and
    annotations, 'query' of variables."""
    if isinstance(model, list):
        for each in model:
            yield from _expressions(each)
    elif isinstance(model, dict):
        for key, value in model.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)


def dashboards(config_maps: Iterable[dict[str, Any]]) -> tuple[list[Dashboard], list[str]]:
    """Return the dashboards in ConfigMaps, and sentences about those that cannot be read."""
    found: list[Dashboard] = []
    unreadable: list[str] = []
    for item in config_maps:
        where = f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
        for name, text in (item.get("data") or {}).items():
            if not name.endswith(".json"):
                continue
            try:
                found.append(Dashboard.parse(text))
            except ValueError as error:
                unreadable.append(
                    f"the dashboard '{name}' of ConfigMap {where} is broken: {error}"
                )
    return found, unreadable


def names(answer: dict[str, Any]) -> set[str]:
    """Return the names in Prometheus' answer to ``PRESENT``. Raises ValueError with what it says
    when it is an error."""
    if answer.get("status") != "success":
        raise ValueError(str(answer.get("error") or answer))
    return {each["metric"]["__name__"] for each in answer["data"]["result"]}


def judge(found: Iterable[Dashboard], unreadable: Iterable[str], present: set[str]) -> Verdict:
    """Whether Prometheus has every metric of DCGM's that a dashboard asks for."""
    asking = [each for each in found if each.metrics]
    faults = list(unreadable)
    for each in asking:
        missing = sorted(each.metrics - present)
        if missing and not present:
            faults.append(f"Prometheus has no metric of DCGM's at all; the dashboard "
                          f"'{each.title}' asks for {len(missing)}")  # fmt: skip
        elif missing:
            faults.append(f"the dashboard '{each.title}' asks for what Prometheus does not have: "
                          + ", ".join(missing))  # fmt: skip
    none = f"no dashboard (ConfigMaps with label {facts.DASHBOARD_LABEL}) asks for DCGM's metrics"
    unjudged = () if asking else (none,)
    return Verdict("Grafana", tuple(faults), unjudged, sum(len(each.metrics) for each in asking))
