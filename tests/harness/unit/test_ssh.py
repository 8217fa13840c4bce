"""The generated ssh_config and key."""

import subprocess

from deepops_fixtures.cluster import ssh


def options(config, host: str) -> dict[str, str]:
    """Return what OpenSSH itself makes of the file."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), host], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_openssh_reads_the_file_as_meant(tmp_path):
    config = tmp_path / "a folder" / "ssh_config"
    config.parent.mkdir()
    key = config.parent / "id_ed25519"
    ssh.make_key(key, "mine")
    ssh.write_config(
        config, "mine", {"virtual-login": "10.87.1.5"}, user="vagrant", keys=[key],
        sockets=tmp_path / "sockets",
    )  # fmt: skip
    seen = options(config, "virtual-login")
    assert (seen["hostname"], seen["user"]) == ("10.87.1.5", "vagrant")
    assert seen["identityfile"] == str(key)
    assert seen["controlmaster"] == "auto"
    assert seen["controlpath"].startswith(str(tmp_path / "sockets"))
    assert seen["identitiesonly"] == "yes"


def test_the_key_is_for_its_owner_alone(tmp_path):
    ssh.make_key(tmp_path / "key", "mine")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    ssh.write_config(tmp_path / "c", "m", {}, user="u", keys=[], sockets=tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_two_instances_have_sockets_of_their_own():
    assert ssh.socket_dir("one") != ssh.socket_dir("two")
    # A socket's path has about a hundred characters, 40 of them are OpenSSH's hash.
    assert len(str(ssh.socket_dir("x" * 32))) < 64
