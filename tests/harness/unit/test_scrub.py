"""No secret gets into a report."""

import subprocess

import pytest

from deepops_fixtures.report.scrub import scrub


def test_a_private_key_is_removed_even_when_cut_off(tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = key.read_text()
    secret = text.splitlines()[2]
    assert secret not in scrub(f"before\n{text}after")
    assert "after" in scrub(f"before\n{text}after")
    assert secret not in scrub(text[:-40])


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("StoragePass=hunter2", "hunter2"),
        ("password: hunter2", "hunter2"),
        ('{"token": "hunter2"}', "hunter2"),
        ("mysql --password=hunter2 slurm", "hunter2"),
        ("MUNGE:AwQFAAC0vYkWmFuyTtGTVQh8oXn1e4R2:", "AwQFAAC0vYkWmFuyTtGTVQh8oXn1e4R2"),
    ],
)
def test_a_password_is_removed(text, secret):
    assert secret in text
    assert secret not in scrub(text)


def test_what_is_no_secret_stays():
    text = "munge.key is munge:munge 600; JobState=COMPLETED; Passed 3 checks"
    assert scrub(text) == text
