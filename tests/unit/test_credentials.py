"""What a configuration needs of its host: files that are safe and fit together, uids, CPUs."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mpq_supervisor import pki
from tests.unit.test_config import HUB, SITE, changed, loading


@pytest.fixture(scope="module")
def authority() -> pki.Credential:
    return pki.issue_authority(begin=datetime.now(UTC) - timedelta(days=1000))


def _write(directory: Path, text: str, stem: str, authority: pki.Credential, leaf: pki.Credential) -> Path:
    """A sample whose files are there."""
    pki.save(leaf, directory, stem)
    (directory / "ca.crt").write_bytes(authority.certificate_pem)
    path = directory / "mpq.toml"
    path.write_text(text.replace("/etc/mpq/pki", str(directory)))
    return path


def test_load_good_files(tmp_path: Path, authority: pki.Credential) -> None:
    site = _write(tmp_path / "site", SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    hub = _write(tmp_path / "hub", HUB, "hub.example.net", authority, pki.issue_hub(authority, "hub.example.net"))
    assert loading(site) == []
    assert loading(hub) == []


@pytest.mark.parametrize("begin", [-800, 300], ids=["expired", "not yet valid"])
def test_load_does_not_judge_the_clock(tmp_path: Path, authority: pki.Credential, begin: int) -> None:
    leaf = pki.issue_site(authority, "ship1", begin=datetime.now(UTC) + timedelta(days=begin))
    assert loading(_write(tmp_path, SITE, "ship1", authority, leaf)) == []


def test_load_finds_missing_files_and_all_else(tmp_path: Path) -> None:
    path = tmp_path / "mpq.toml"
    path.write_text(changed(SITE, ('"wan5"\n\n[[wan]]', '"wan4"\n\n[[wan]]')).replace("/etc/mpq/pki", str(tmp_path)))
    assert loading(path) == [
        'wan[1].interface: "wan4" is taken: wan[0] has the same WAN interface',
        "identity.key: DIR/ship1.key: No such file or directory",
        "identity.certificate: DIR/ship1.crt: No such file or directory",
        "identity.ca: DIR/ca.crt: No such file or directory",
    ]


def test_load_refuses_more_certificates_than_a_worker_is_told(tmp_path: Path, authority: pki.Credential) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem * 50)
    (line,) = loading(path)
    assert re.fullmatch(r"identity\.ca: DIR/ca\.crt: \d+ bytes, of certificates there may be 16384", line)


def test_load_refuses_unsafe_or_foreign_files(tmp_path: Path, authority: pki.Credential) -> None:
    leaf = pki.issue_site(authority, "ship2")
    path = _write(tmp_path, SITE, "ship1", pki.issue_authority(), leaf)
    (tmp_path / "ship1.key").write_bytes(pki.issue_site(authority, "ship1").key_pem)
    (tmp_path / "ship1.key").chmod(0o640)
    mode, key, name, chain = loading(path)
    assert mode == "identity.key: DIR/ship1.key: mode is 0640, must be 0600 or less"
    assert key == "identity.key: is not the key of DIR/ship1.crt"
    assert name == "identity.certificate: is mpq://site/ship2, not mpq://site/ship1"
    assert chain.startswith("identity.certificate: is not good for its CA: ")


def test_load_refuses_the_other_roles_certificate(tmp_path: Path, authority: pki.Credential) -> None:
    site = _write(tmp_path / "s", SITE, "ship1", authority, pki.issue_hub(authority, "ship1"))
    hub = _write(tmp_path / "h", HUB, "hub.example.net", authority, pki.issue_site(authority, "hub.example.net"))
    assert "no URI mpq://site/NAME" in loading(site)[0]
    assert "names no host" in loading(hub)[0]


def test_load_looks_at_files_beside_fields_that_cannot_be_read(tmp_path: Path, authority: pki.Credential) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ca.crt").write_text("garbage")
    path.write_text(re.sub(r"(?m)^key = .*", "key = 7", path.read_text()))
    assert loading(path) == [
        "identity.key: Expected `str`, got `int`",
        "identity.ca: DIR/ca.crt: no certificate in PEM",
    ]


def test_load_refuses_garbage(tmp_path: Path, authority: pki.Credential) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ship1.key").write_text("garbage")
    (tmp_path / "ca.crt").write_text("garbage")
    assert loading(path) == [
        "identity.key: DIR/ship1.key: no unencrypted P-256 private key in PEM",
        "identity.ca: DIR/ca.crt: no certificate in PEM",
    ]


def test_load_refuses_credentials_that_never_end_and_a_ca_that_is_none(
    tmp_path: Path, authority: pki.Credential
) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ca.crt").write_bytes((tmp_path / "ship1.crt").read_bytes())
    assert loading(path) == ["identity.ca: DIR/ca.crt: holds a certificate that is no CA's"]
    (tmp_path / "ship1.key").unlink()
    os.mkfifo(tmp_path / "ship1.key", 0o600)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.crt").symlink_to("/dev/zero")
    assert loading(path) == [
        "identity.key: DIR/ship1.key: not a regular file",
        "identity.ca: DIR/ca.crt: not a regular file",
    ]


def test_load_checks_uids_and_cpus(tmp_path: Path, authority: pki.Credential) -> None:
    text = changed(SITE, ("[supervisor]", "[supervisor]\nuid_base = 65520\ncpus = [0, 4000]"))
    first, second = loading(_write(tmp_path, text, "ship1", authority, pki.issue_site(authority, "ship1")))
    assert first == "supervisor.uid_base: uid 65534 belongs to the user nobody"
    assert second.startswith("supervisor.cpus[1]: 4000: this host has 0 to ")
