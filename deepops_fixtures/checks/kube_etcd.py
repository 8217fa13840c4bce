"""etcd on one node, asked with etcdctl(1) and the certificates that are found there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node


class Etcd:
    """An etcd member.

    >>> Etcd(node).run("endpoint health").rc
    0
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def run(self, *commands: str) -> Any:
        """Run etcdctl once for each command, until one fails; return testinfra's result, all
        outputs in one. A node without etcdctl or certificates gives status 127 and says so."""
        sets = " ".join(
            f'take "{ca}" "{certificate}" "{key}" ||'
            for ca, certificate, key in facts.ETCD_CERTIFICATES
        )
        script = (
            "PATH=$PATH:/usr/local/bin; "
            'first() { for file in $1; do [ -r "$file" ] && echo "$file" && return; done; }; '
            'take() { ca=$(first "$1"); cert=$(first "$2"); key=$(first "$3"); '
            '[ -n "$ca" ] && [ -n "$cert" ] && [ -n "$key" ]; }; '
            f"{sets} {{ echo no client certificate of etcd was found >&2; exit 127; }}; "
            "command -v etcdctl >/dev/null || { echo etcdctl is not installed >&2; exit 127; }; "
            "ask() { ETCDCTL_API=3 timeout 30 etcdctl --cacert $ca --cert $cert --key $key "
            f'--endpoints https://127.0.0.1:{facts.ETCD_PORT} --command-timeout 15s "$@"; }}; '
            + " && ".join(f"ask {command}" for command in commands)
        )
        return self.node.host.run("sh -c %s", script)

    def why_unhealthy(self) -> str:
        """Return what keeps the member from its work: its unit's state where that does not run,
        and etcdctl's own words; '' for a healthy one."""
        done = self.run("endpoint health")
        if done.rc == 0:
            return ""
        # What etcdctl logs on the way is JSON.
        said = [text for text in (done.stderr or done.stdout).splitlines() if text[:1] != "{"]
        unit = self.node.host.run("systemctl show --property=LoadState,ActiveState --value etcd")
        loaded, _, state = unit.stdout.strip().partition("\n")
        dead = [f"etcd.service is {state}"] if loaded == "loaded" and state != "active" else []
        return "; ".join([*dead, *said])
