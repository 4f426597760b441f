"""A site takes nobody for its hub but its hub."""

from __future__ import annotations

import datetime

import pytest
from aioquic import tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpq_supervisor import pki
from mpq_worker.quic.connection import Connection
from mpq_worker.quic.verify import verify_certificate

NAME = "hub.example.net"
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> pki.Credential:
    return pki.issue_authority()


def leaf(
    authority: pki.Credential,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    begin: datetime.timedelta = -DAY,
) -> x509.Certificate:
    """A certificate in the hub's name, signed by `authority`, of two days from `begin`."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=authority.certificate.subject,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + begin,
        not_valid_after=now + begin + 2 * DAY,
    )
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer)
    for extension in (identifier, x509.SubjectAlternativeName([x509.DNSName(NAME)]), x509.ExtendedKeyUsage([usage])):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def test_aioquic_asks_us() -> None:
    assert Connection.__module__  # its module puts ours in the library's place
    assert tls.verify_certificate is verify_certificate


def test_hub_is_taken(authority: pki.Credential) -> None:
    verify_certificate(leaf(authority), [], NAME, authority.certificate_pem)


def test_another_authority_of_the_same_name_is_refused(authority: pki.Credential) -> None:
    with pytest.raises(tls.AlertBadCertificate, match="validation failed"):
        verify_certificate(leaf(pki.issue_authority()), [], NAME, authority.certificate_pem)


def test_a_site_in_the_hubs_name_is_refused(authority: pki.Credential) -> None:
    with pytest.raises(tls.AlertBadCertificate, match="EKU"):
        verify_certificate(leaf(authority, ExtendedKeyUsageOID.CLIENT_AUTH), [], NAME, authority.certificate_pem)


def test_dates(authority: pki.Credential) -> None:
    """The text "not valid yet" is what tells a wrong clock at boot from a certificate that will never do again."""
    for begin, text in ((DAY, "not valid yet"), (-3 * DAY, "no longer valid")):
        with pytest.raises(tls.AlertCertificateExpired, match=text):
            verify_certificate(leaf(authority, begin=begin), [], NAME, authority.certificate_pem)


def test_nothing_to_check_against_is_a_refusal(authority: pki.Credential) -> None:
    certificate, ca = leaf(authority), authority.certificate_pem
    for name, trusted, path in ((None, ca, None), (NAME, None, None), (NAME, ca, "/etc/ssl/certs")):
        with pytest.raises(tls.AlertBadCertificate, match="nothing else"):
            verify_certificate(certificate, [], name, trusted, capath=path)
