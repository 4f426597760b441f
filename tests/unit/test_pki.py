"""Certificates: what a verifier at either end makes of them, and the files they are kept in."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aioquic import tls
from cryptography import x509
from cryptography.x509 import verification

from mpq_supervisor import pki
from mpq_supervisor.__main__ import main
from mpq_worker.quic.verify import verify_certificate


@pytest.fixture(scope="module")
def authority() -> pki.Credential:
    return pki.issue_authority()


def _policy(authority: pki.Credential) -> verification.PolicyBuilder:
    return verification.PolicyBuilder().store(verification.Store([authority.certificate]))


def _verify_by_tls(authority: pki.Credential, leaf: pki.Credential, name: str) -> None:
    verify_certificate(certificate=leaf.certificate, chain=[], server_name=name, cadata=authority.certificate_pem)


def test_hub_is_good_for_its_names_only(authority: pki.Credential) -> None:
    hub = pki.issue_hub(authority, "hub.example.net", (ip_address("198.51.100.2"), ip_address("2001:db8::2")))
    for name in ("hub.example.net", "198.51.100.2", "2001:db8::2"):
        _verify_by_tls(authority, hub, name)
    with pytest.raises(tls.AlertBadCertificate, match=r"no matching subjectAltName$"):
        _verify_by_tls(authority, hub, "other.example.net")
    verifier = _policy(authority).build_server_verifier(x509.DNSName("hub.example.net"))
    assert verifier.verify(hub.certificate, []) == [hub.certificate, authority.certificate]


def test_hub_may_be_called_by_its_address(authority: pki.Credential) -> None:
    hub = pki.issue_hub(authority, "198.51.100.2")
    _verify_by_tls(authority, hub, "198.51.100.2")
    assert pki.hub_names(hub.certificate) == ["198.51.100.2"]


def test_site_is_a_client_with_a_uri(authority: pki.Credential) -> None:
    site = pki.issue_site(authority, "ship1")
    verified = _policy(authority).build_client_verifier().verify(site.certificate, [])
    assert verified.chain == [site.certificate, authority.certificate]
    assert pki.site_names(site.certificate) == ["mpq://site/ship1"]
    assert pki.hub_names(site.certificate) == []


def test_roles_are_not_interchangeable(authority: pki.Credential) -> None:
    hub = pki.issue_hub(authority, "hub.example.net")
    with pytest.raises(verification.VerificationError):
        _policy(authority).build_client_verifier().verify(hub.certificate, [])
    site = pki.issue_site(authority, "ship1")
    server = _policy(authority).build_server_verifier(x509.DNSName("ship1"))
    with pytest.raises(verification.VerificationError):
        server.verify(site.certificate, [])


def test_another_authority_of_the_same_name_is_refused(authority: pki.Credential) -> None:
    hub = pki.issue_hub(pki.issue_authority(), "hub.example.net")
    with pytest.raises(tls.AlertBadCertificate):
        _verify_by_tls(authority, hub, "hub.example.net")


@pytest.mark.parametrize(("offset", "state"), [(-10, "EXPIRED"), (+10, "NOT YET VALID"), (-1, "valid until")])
def test_validity(authority: pki.Credential, offset: int, state: str) -> None:
    now = datetime.now(UTC)
    hub = pki.issue_hub(authority, "hub.example.net", begin=now + timedelta(days=offset), lifetime=timedelta(days=5))
    assert pki.describe_validity(hub.certificate, now).startswith(state)
    if state == "valid until":
        _verify_by_tls(authority, hub, "hub.example.net")
    else:
        with pytest.raises((tls.AlertCertificateExpired, tls.AlertBadCertificate)):
            _verify_by_tls(authority, hub, "hub.example.net")


def test_leaf_cannot_sign(authority: pki.Credential) -> None:
    site = pki.issue_site(authority, "ship1")
    forged = pki.issue_site(site, "ship2")
    with pytest.raises(verification.VerificationError):
        _policy(authority).build_client_verifier().verify(forged.certificate, [site.certificate])


def test_authority_signs_leaves_only(authority: pki.Credential) -> None:
    found = authority.certificate.extensions
    assert found.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    usage = found.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)


@pytest.mark.parametrize("name", ["", "a b", "../x", "hub_1.net", "-hub.net", "HUB.net", "*.example.net"])
def test_bad_hub_name(authority: pki.Credential, name: str) -> None:
    with pytest.raises(ValueError, match="no host name"):
        pki.issue_hub(authority, name)


@pytest.mark.parametrize("name", ["", "a b", "../x", "ship/1", "x" * 64])
def test_bad_site_name(authority: pki.Credential, name: str) -> None:
    with pytest.raises(ValueError, match="no site name"):
        pki.issue_site(authority, name)


def test_command_makes_what_the_ends_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "pki"
    assert main(["pki", "init", str(directory), "--name", "fleet CA"]) == 0
    assert main(["pki", "hub", str(directory), "--name", "hub.example.net", "--address", "198.51.100.2"]) == 0
    assert main(["pki", "site", str(directory), "--name", "ship1", "--days", "30"]) == 0
    assert sorted(path.name for path in directory.iterdir()) == [
        *("ca.crt", "ca.key"),
        *("hub.example.net.crt", "hub.example.net.key"),
        *("ship1.crt", "ship1.key"),
    ]
    for key in directory.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    capsys.readouterr()
    assert main(["pki", "show", str(directory)]) == 0
    ca, hub, site = capsys.readouterr().out.splitlines()
    assert "CA CN=fleet CA" in ca
    assert "hub.example.net 198.51.100.2" in hub
    assert "mpq://site/ship1" in site
    assert "(29 days)" in site


def test_nothing_is_overwritten_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "init", str(tmp_path)]) == 0
    before = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.crt").unlink()
    assert main(["pki", "init", str(tmp_path)]) == 73
    assert "ca.key exists; --force replaces it" in capsys.readouterr().err
    assert (tmp_path / "ca.key").read_bytes() == before
    assert not (tmp_path / "ca.crt").exists()
    assert main(["pki", "init", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "ca.key").read_bytes() != before
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, authority: pki.Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.key").write_text("somebody else's")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(FileExistsError):
        pki.save(authority, tmp_path, "ca")
    assert (tmp_path / "ca.key").read_text() == "somebody else's"
    assert [path.name for path in tmp_path.iterdir()] == ["ca.key"]


def test_command_without_an_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "site", str(tmp_path), "--name", "ship1"]) == 66
    assert capsys.readouterr().err == f"mpq-supervisor pki: {tmp_path}/ca.crt: not found\n"
    assert main(["pki", "show", str(tmp_path)]) == 66


def test_command_with_a_bad_name(tmp_path: Path) -> None:
    main(["pki", "init", str(tmp_path)])
    assert main(["pki", "site", str(tmp_path), "--name", "../ship1"]) == 64
    assert main(["pki", "site", str(tmp_path), "--name", "ca", "--force"]) == 64


def test_authority_of_another_key_is_refused(tmp_path: Path) -> None:
    main(["pki", "init", str(tmp_path)])
    (tmp_path / "ca.key").write_bytes(pki.issue_authority().key_pem)
    with pytest.raises(ValueError, match="is not the key of"):
        pki.load_authority(tmp_path)


def test_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pki", "init", str(tmp_path)])
    main(["pki", "site", str(tmp_path), "--name", "ship1"])
    (tmp_path / "hub.crt").write_text("garbage")
    capsys.readouterr()
    assert main(["pki", "show", str(tmp_path)]) == 65
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2, "the others are shown"
    assert err == f"mpq-supervisor pki: {tmp_path}/hub.crt: no certificate in PEM\n"
    for name, what in (("ca.key", "no unencrypted P-256 private key"), ("ca.crt", "no certificate")):
        (tmp_path / name).write_text("garbage")
        assert main(["pki", "site", str(tmp_path), "--name", "ship2"]) == 65
        assert capsys.readouterr().err == f"mpq-supervisor pki: {tmp_path}/{name}: {what} in PEM\n"
    assert not (tmp_path / "ship2.key").exists()


@pytest.mark.parametrize("command", [["show"], ["site", "--name", "ship1"]])
def test_a_key_that_others_can_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    main(["pki", "init", str(tmp_path)])
    arguments = ["pki", command[0], str(tmp_path), *command[1:]]
    assert main(arguments) == 0
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "ca.key").chmod(0o640)
    assert main([*arguments, *(["--force"] if command[0] == "site" else [])]) == 0
    assert f"warning: {tmp_path}/ca.key: mode is 0640" in capsys.readouterr().err


def test_a_certificate_that_outlives_its_authority_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pki", "init", str(tmp_path), "--days", "100"])
    assert main(["pki", "site", str(tmp_path), "--name", "ship1", "--days", "99"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["pki", "site", str(tmp_path), "--name", "ship2", "--days", "101"]) == 0
    assert "warning: its CA is valid until" in capsys.readouterr().err
