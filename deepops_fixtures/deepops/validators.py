"""A second opinion: the validators that a DeepOps checkout brings (``scripts/validation``), run
where they are meant to run, their verdict beside ours.

Their protocol, by their own docstrings: ``--json`` prints one object with ``ok``; exit status 0
all well, 1 something is not, 2 not run where it should be. Not for deciding how a run of ours
ends: what they check is a floor for our checks, and where both disagree that is said.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from deepops_fixtures import facts
from deepops_fixtures.errors import DeepopsError
from deepops_fixtures.proc import Deadline, run_logged
from deepops_fixtures.records import CheckOutcome

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node, Nodes

FOLDER = "scripts/validation"
#: Seconds that one of them may take; their own jobs wait up to five minutes for a GPU.
SECONDS = 420
#: … and on a node of a cluster without GPUs, where they run no job.
_WITHOUT_JOBS = 120
Verdict = Literal["content", "complains", "silent"]
_STATUS = "DEEPOPS-VALIDATOR-STATUS"
#: On a node. DeepOps installs Slurm below /usr/local (slurm_install_prefix), Kubespray kubectl.
_SCRIPT = """\
PATH=$PATH:/usr/local/sbin:/usr/local/bin
export PATH {variables}
command -v python3 >/dev/null || {{ echo "{status} 127"; exit; }}
timeout -k 5 {seconds} python3 - {arguments} <<'DEEPOPS_VALIDATOR_ENDS'
{source}
DEEPOPS_VALIDATOR_ENDS
echo "{status} $?"
"""
#: What they say of a cluster without GPUs, which a rehearsal on a host without any has to be.
_WITHOUT_GPUS = ("no GPUs (gres/gpu) configured", "no allocatable nvidia.com/gpu")


class Validator(NamedTuple):
    """A script of the checkout: what it is about, and how it is asked."""

    script: str
    #: The part of DeepOps, '' for the machine that provisions.
    part: str
    #: First node of this group that there is; '' for the machine that provisions.
    group: str
    options: tuple[str, ...] = ()
    #: Added where the cluster has no GPU.
    without_gpus: tuple[str, ...] = ()
    variables: str = ""


#: Their docstrings say where each is to be run.
VALIDATORS = (
    Validator("deepops_doctor.py", "", "", ("--remote",)),
    Validator("validate_slurm.py", "slurm", "slurm-master"),
    Validator(
        "validate_k8s.py",
        "kubernetes",
        "kube_control_plane",
        without_gpus=("--allow-no-gpus",),
        variables=f"KUBECONFIG={facts.KUBE_ADMIN_CONF}",
    ),
)


@dataclass(frozen=True)
class Provisioner:
    """The machine that provisions: a checkout with its config and Ansible, as the playbooks had
    it."""

    root: Path
    inventory: Path
    #: What the environment has beyond ours: PATH to its Ansible, ANSIBLE_* of the run.
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opinion:
    """What one of them said. ``failures``: what it complains of; ``why``: why it is silent."""

    script: str
    part: str
    where: str
    verdict: Verdict
    failures: tuple[str, ...] = ()
    why: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        place = f"{self.script} ({self.where})" if self.where else self.script
        if self.verdict == "silent":
            return f"{place}: no verdict: {self.why}"
        return f"{place}: {'content' if self.verdict == 'content' else '; '.join(self.failures)}"


def ask(
    here: Provisioner,
    nodes: Nodes,
    parts: Iterable[str],
    logs: Path,
    *,
    seconds: float = SECONDS,
) -> list[Opinion]:
    """Ask each validator that the checkout has and that is about these parts, or about the machine
    that provisions; what it printed is kept in folder ``logs``.

    Never raises for what a validator does: one that cannot be asked is silent, with the reason.
    """
    folder = here.root / FOLDER
    found = []
    parts = list(parts)
    for item in VALIDATORS:
        if (folder / item.script).is_file() and (not item.part or item.part in parts):
            found.append(_ask(item, here, nodes, logs, seconds))
    unknown = {path.name for path in folder.glob("*.py")} - {item.script for item in VALIDATORS}
    found += [
        Opinion(name, "", "", "silent", why="it is new to this harness, and was not run")
        for name in sorted(unknown)
    ]
    return found


def _ask(item: Validator, here: Provisioner, nodes: Nodes, logs: Path, seconds: float) -> Opinion:
    try:
        source = (here.root / FOLDER / item.script).read_text()
    except (OSError, UnicodeDecodeError) as error:
        return Opinion(item.script, item.part, "", "silent", why=f"it cannot be read: {error}")
    has_gpus = any(node.devices for node in nodes.cluster.nodes)
    wanted = ["--json", *item.options, *(() if has_gpus else item.without_gpus)]
    # Their options have come one by one: what this checkout's script does not know is left out.
    options = [word for word in wanted if f'"{word}"' in source]
    group = nodes.group(item.group) if item.group else []
    if item.group and not group:
        why = f"no node is in group {item.group}"
        return Opinion(item.script, item.part, "", "silent", why=why)
    where = group[0].name if group else "this host"
    if group and not has_gpus:
        seconds = min(seconds, _WITHOUT_JOBS)
    begin = time.monotonic()
    try:
        if group:
            status, text = _on_node(item, group[0], source, options, seconds)
        else:
            status, text = _here(item, here, options, logs / f"{item.script}.log", seconds)
    except (DeepopsError, OSError, subprocess.SubprocessError) as error:
        said = error.message if isinstance(error, DeepopsError) else str(error)
        return Opinion(item.script, item.part, where, "silent", why=said)
    _keep(logs / f"{item.script}.log", text)
    verdict, failures, why = judge(status, text, has_gpus=has_gpus, seconds=seconds)
    took = round(time.monotonic() - begin, 3)
    return Opinion(item.script, item.part, where, verdict, failures, why, took)


def _on_node(
    item: Validator, node: Node, source: str, options: Sequence[str], seconds: float
) -> tuple[int, str]:
    script = _SCRIPT.format(
        variables=item.variables,
        status=_STATUS,
        seconds=round(seconds),
        arguments=shlex.join(options),
        source=source,
    )
    text = node.run_script(script, seconds + 30)
    body, found, status = text.rpartition(_STATUS)
    if not found:
        # No connection, or the shell was ended.
        return 255, text
    return int(status.strip() or 255), body


def _here(
    item: Validator, here: Provisioner, options: Sequence[str], log: Path, seconds: float
) -> tuple[int, str]:
    command = ["python3", f"{FOLDER}/{item.script}", *options]
    command += ["--inventory", str(here.inventory)]
    log.unlink(missing_ok=True)
    status = run_logged(
        command,
        log=log,
        deadline=Deadline.after(seconds),
        what=f"{FOLDER}/{item.script}",
        cwd=here.root,
        env={"DEEPOPS_CONFIG_DIR": str(here.root / "config"), **here.environment},
    )
    return status, log.read_text(errors="replace").partition("\n$ ")[2].partition("\n")[2]


def _keep(log: Path, text: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)


# -- what it means ----------------------------------------------------------------------------


def judge(
    status: int, text: str, *, has_gpus: bool, seconds: float = SECONDS
) -> tuple[Verdict, tuple[str, ...], str]:
    """Return verdict, failures and why there is no verdict, from exit status and output.

    Where status and JSON contradict each other there is no verdict. That a cluster without GPUs
    has none is no failure.
    """
    last = text.strip().splitlines()[-1] if text.strip() else "nothing was printed"
    if status in (124, 137):
        return "silent", (), f"it did not end within {seconds:.0f} s and was stopped"
    if status == 127:
        return "silent", (), "there is no python3"
    if status not in (0, 1):
        return "silent", (), f"it ended with status {status}: {last}"
    data = _json_in(text)
    if not isinstance(data, dict) or not isinstance(data.get("ok"), bool):
        return "silent", (), f"it printed no JSON with 'ok' (status {status}): {last}"
    if data["ok"] != (status == 0):
        return "silent", (), f"it says ok={data['ok']} and ends with status {status}"
    failures = _failures(data)
    serious = [text for text in failures if has_gpus or not text.startswith(_WITHOUT_GPUS)]
    if data["ok"] or (failures and not serious):
        return "content", (), ""
    return "complains", tuple(serious) or ("it does not say of what",), ""


def _failures(data: Mapping[str, Any]) -> list[str]:
    """Return what it complains of: 'failures' of validate_*, 'checks' that are not ok of the
    doctor."""
    found = [str(text) for text in _listed(data, "failures")]
    for item in _listed(data, "checks"):
        if isinstance(item, dict) and not item.get("ok"):
            found.append(f"{item.get('name')}: {item.get('detail')}")
    return found


def _listed(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _json_in(text: str) -> Any:
    """Return the first JSON object that begins a line; warnings may stand around it."""
    decoder = json.JSONDecoder()
    place = 0
    for line in text.splitlines(keepends=True):
        if line.startswith("{"):
            try:
                return decoder.raw_decode(text, place)[0]
            except ValueError:
                pass
        place += len(line)
    return None


def disagreement(opinion: Opinion, checks: Iterable[CheckOutcome], *, deployed: bool) -> str:
    """Return where their verdict and ours differ, '' where they do not or one of them is silent.

    Ours about a part are its checks; ours about the machine that provisions is whether the
    deployment went through.
    """
    if opinion.part:
        mine = [item for item in checks if opinion.part in item.parts]
        passed, bad = sum(item.outcome == "passed" for item in mine), sum(i.bad for i in mine)
        ours_good, ours_bad = bool(passed) and not bad, bool(bad)
        well = f"{passed} of our checks of {opinion.part} passed and none failed"
        ill = f"{bad} of our checks of {opinion.part} failed"
    else:
        ours_good, ours_bad = deployed, not deployed
        well, ill = "the deployment went through", "the deployment failed"
    if opinion.verdict == "complains" and ours_good:
        return f"{opinion.script} complains, and {well}"
    if opinion.verdict == "content" and ours_bad:
        return f"{opinion.script} is content, and {ill}"
    return ""
