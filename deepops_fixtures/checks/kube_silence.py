"""What the words of ssl, urllib3 and openssl mean where an API server could not be asked.

Not for asking it, nor for what is to be typed next: that is ``kube_api``.
"""

from __future__ import annotations

import shutil
import subprocess

from deepops_fixtures import facts

#: Seconds for a connection.
CONNECT = 5.0
_CAUSES = (
    ("refused", "connection refused"),
    ("No route to host", "no route to the node"),
    ("unreachable", "no route to the node"),
    ("Connect timed out", f"no connection within {CONNECT:.0f} s"),
    ("connect timeout", f"no connection within {CONNECT:.0f} s"),
    ("timed out", "it takes the connection and does not answer in time"),
    ("reset by peer", "the connection was reset"),
    ("RemoteDisconnected", "the connection was closed without an answer"),
    ("EOF", "the connection was closed without an answer"),
    ("resolve", "its name is not known here"),
)


def cause(text: str) -> str:
    """Return why there was no answer, in a few words; the text itself where that is not known."""
    return next((said for sign, said in _CAUSES if sign in text), text)


def is_distrusted(text: str) -> bool:
    """Return whether it is we who do not trust the server's certificate."""
    return "CERTIFICATE_VERIFY_FAILED" in text or "CertificateError" in text


def distrust(text: str) -> str:
    """Return what is wrong with a server's certificate (openssl-verification-options(1))."""
    why = text.split("CERTIFICATE_VERIFY_FAILED] ", 1)[-1].split(" (_ssl.c")[0]
    if "expired" in text:
        return "its certificate has expired"
    if "not yet valid" in text:
        return "its certificate is not valid yet, by the clock of this host"
    if "mismatch" in text:
        return f"its certificate is for other names ({why})"
    return f"{facts.KUBE_ADMIN_CONF} is of another cluster ({why})"


def refuses_us(text: str) -> bool:
    """Return whether it is the server that does not take our certificate (alerts of TLS, RFC 8446,
    6.2)."""
    return "_ALERT_" in text and ("CERTIFICATE" in text or "UNKNOWN_CA" in text)


def was_closed(text: str) -> bool:
    """Return whether the server took a connection and ended it without an answer."""
    return any(sign in text for sign in ("reset by peer", "RemoteDisconnected", "EOF"))


def ended(certificate: str | None) -> str:
    """Return the date on which a client certificate in a file has expired, '' where it has not or
    openssl cannot tell."""
    if not certificate or not shutil.which("openssl"):
        return ""
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-checkend", "0", "-in", certificate],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    ends = done.stdout.partition("notAfter=")[2].partition("\n")[0]
    return ends if done.returncode == 1 else ""
