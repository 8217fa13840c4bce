"""What a web server or a container registry answers, asked from this node.

    python3 - get https://10.0.0.2/ name.example     status and the beginning of the answer
    python3 - registry http://127.0.0.1:31500 deepops-check 1
                                                     pushes a small image and pulls it back

It prints one line of JSON after the mark 'WEB-PROBE '. Certificates are not looked at: what is
asked is whether something answers. The image holds one program that ends with status 42, so that
it is known when a pod ran it. Source: OCI Distribution Specification, API version 2 of a registry.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import ssl
import struct
import sys
import tarfile
import urllib.error
import urllib.request
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, Tuple
from urllib.parse import urljoin

MARK = "WEB-PROBE "
SECONDS = 20
#: Exit status of the program in the image.
STATUS = 42
#: exit(42) in machine code, ELF's number of the machine, the registry's name of it.
PROGRAMS = {
    "x86_64": (b"\xbf\x2a\0\0\0\xb8\x3c\0\0\0\x0f\x05", 62, "amd64"),
    "aarch64": (b"\x40\x05\x80\xd2\xa8\x0b\x80\xd2\x01\0\0\xd4", 183, "arm64"),
}
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def request(
    method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> Tuple[int, Dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body of an answer, whatever the status;
    redirections are followed, no proxy is asked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    data = None if method == "GET" else body
    asked = urllib.request.Request(url, data=data, headers=dict(headers), method=method)
    try:
        answer = opener.open(asked, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        return int(answer.getcode()), told, bytes(answer.read(1 << 20))


def get(url: str, host: str = "") -> Dict[str, Any]:
    """Return what a server answers; ``host`` is the name that it is asked for."""
    headers = {"Host": host} if host else {}
    status, _, body = request("GET", url, headers=headers)
    return {"status": status, "text": body[:2000].decode(errors="replace")}


def program(machine: str) -> Tuple[bytes, str]:
    """Return a program for Linux that ends with status 42, and the machine as images name it."""
    code, number, name = PROGRAMS[machine]
    base, size = 0x400000, 120 + len(code)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, number, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code, name


def image(machine: str, mark: str) -> Dict[str, bytes]:
    """Return the parts of an image of its own: 'layer', 'config', 'manifest'."""
    binary, architecture = program(machine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("run", binary), ("mark", mark.encode())):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    plain = buffer.getvalue()
    layer = gzip.compress(plain)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/run"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        "history": [{"created_by": "deepops-fixtures"}],
    }
    parts = {"layer": layer, "config": json.dumps(config).encode()}
    told = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": part(CONFIG, parts["config"]),
        "layers": [part(LAYER, layer)],
    }
    parts["manifest"] = json.dumps(told).encode()
    return parts


def digest(data: bytes) -> str:
    """Return the name that a registry knows this content by."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def part(kind: str, data: bytes) -> Dict[str, Any]:
    """Return what a manifest says of a blob."""
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


def expect(status: int, wanted: List[int], what: str, body: bytes) -> None:
    """Raise RuntimeError when a registry does not answer as it has to."""
    if status not in wanted:
        said = body[:300].decode(errors="replace").strip()
        raise RuntimeError(f"{what} was answered with status {status}: {said}")


def push(base: str, repository: str, tag: str, parts: Dict[str, bytes]) -> None:
    """Push an image to a registry."""
    for name in ("layer", "config"):
        start = f"{base}/v2/{repository}/blobs/uploads/"
        status, told, body = request("POST", start)
        expect(status, [202], "the upload of a blob", body)
        place = urljoin(start, told["location"])
        place += ("&" if "?" in place else "?") + "digest=" + digest(parts[name])
        kind = {"Content-Type": "application/octet-stream"}
        status, _, body = request("PUT", place, parts[name], kind)
        expect(status, [201], "a blob", body)
    place = f"{base}/v2/{repository}/manifests/{tag}"
    status, _, body = request("PUT", place, parts["manifest"], {"Content-Type": MANIFEST})
    expect(status, [201], "the manifest", body)


def registry(base: str, repository: str, tag: str) -> Dict[str, Any]:
    """Push an image, pull it back, and return whether it is the same."""
    status, _, body = request("GET", base + "/v2/")
    expect(status, [200], "GET /v2/", body)
    parts = image(platform.machine(), os.urandom(8).hex())
    push(base, repository, tag, parts)
    place = f"{base}/v2/{repository}/manifests/{tag}"
    status, _, body = request("GET", place, headers={"Accept": MANIFEST})
    expect(status, [200], "the manifest that was pushed", body)
    same = body == parts["manifest"]
    for name in ("layer", "config"):
        place = f"{base}/v2/{repository}/blobs/{digest(parts[name])}"
        status, _, body = request("GET", place)
        expect(status, [200], "the blob that was pushed", body)
        same = same and body == parts[name]
    return {"digest": digest(parts["manifest"]), "same": same}


def main(argv: List[str]) -> None:
    """Do what the command line asks for."""
    verbs: Dict[str, Callable[..., Dict[str, Any]]] = {"get": get, "registry": registry}
    try:
        found = verbs[argv[0]](*argv[1:])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        found = {"error": str(reason) or type(error).__name__}
    print(MARK + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
