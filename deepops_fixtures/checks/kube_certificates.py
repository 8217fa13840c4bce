"""The certificates of a node's Kubernetes: what they are for, until when, and who issued them.

Only certificates are read, never a key, though some files have both. Sources: kubeadm's and
Kubespray's layouts (facts.KUBE_CERTIFICATES), and the certificates within kubeconfig files.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from deepops_fixtures import facts

if TYPE_CHECKING:
    from deepops_fixtures.cluster.running import Node

#: Days that a certificate has to be valid yet: time enough to renew it.
DAYS = 7
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_READ = (
    f"for file in {' '.join(facts.KUBE_CERTIFICATES)}; do "
    'case "$file" in *-key.pem) continue;; esac; [ -r "$file" ] || continue; '
    'echo "file $file"; sed -n \'/BEGIN CERTIFICATE/,/END CERTIFICATE/p\' "$file"; done; '
    'for file in /etc/kubernetes/*.conf; do [ -r "$file" ] || continue; echo "file $file"; '
    "sed -n 's/^ *client-certificate-data: */data /p' \"$file\"; done; true"
)


@dataclass(frozen=True)
class Certificate:
    """A certificate in a file of a node."""

    path: str
    subject: str
    issuer: str
    begins: datetime
    ends: datetime
    #: Whether it may issue others.
    authority: bool
    parsed: Any

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.subject}, issued by {self.issuer}, valid until "
            f"{self.ends:%Y-%m-%d %H:%M} UTC)"
        )

    @property
    def days_left(self) -> float:
        """Days until it expires; negative when it has."""
        return (self.ends - datetime.now(timezone.utc)).total_seconds() / 86400

    @property
    def has_begun(self) -> bool:
        """Whether it is valid already."""
        return self.begins <= datetime.now(timezone.utc)

    def belongs_to(self, authorities: Iterable[Certificate]) -> bool:
        """Whether one of these issued it, or is it; what a kubelet signed for itself belongs
        nowhere and is fine."""
        if self.subject == self.issuer and not self.authority:
            return True
        return any(self.parsed == each.parsed or self._issued_by(each) for each in authorities)

    def _issued_by(self, authority: Certificate) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self.parsed.verify_directly_issued_by(authority.parsed)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    @classmethod
    def parse(cls, path: str, pem: str) -> Certificate:
        """Return the certificate of a PEM block. Raises ValueError when it is none."""
        from cryptography import x509

        parsed = x509.load_pem_x509_certificate(pem.encode())
        try:
            constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
            authority = bool(constraints.value.ca)
        except x509.ExtensionNotFound:
            authority = False
        return cls(
            path,
            parsed.subject.rfc4514_string(),
            parsed.issuer.rfc4514_string(),
            parsed.not_valid_before_utc,
            parsed.not_valid_after_utc,
            authority,
            parsed,
        )


def parse_all(text: str) -> list[Certificate]:
    """Return the certificates of what a node has shown: 'file PATH', then PEM blocks or lines
    'data BASE64'. Raises ValueError naming a file that has none that can be read."""
    found = []
    for part in re.split(r"^file ", text, flags=re.MULTILINE)[1:]:
        path, _, rest = part.partition("\n")
        packed = re.findall(r"^data (\S+)", rest, re.MULTILINE)
        inner = "".join(base64.b64decode(data).decode(errors="replace") for data in packed)
        for pem in _BLOCK.findall(rest + inner):
            try:
                found.append(Certificate.parse(path.strip(), pem))
            except ValueError as error:
                raise ValueError(f"{path.strip()} is no certificate: {error}") from None
    return found


def read(node: Node) -> list[Certificate]:
    """Return the certificates of a node; [] when it has none in a known place."""
    return parse_all(node.host.run("sh -c %s", _READ).stdout)
