"""Whose certificate is believed, and whose proof."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpq_supervisor import pki
from mpq_worker.errors import PeerFault, Refusal
from mpq_worker.trust import TrustAnchor, leaf_certificate, verify_hello
from mpq_worker.wire import Claims, Hello, encode_claims, hello_transcript

BINDING = b"b" * 32


@pytest.fixture(scope="module")
def authority() -> pki.Credential:
    return pki.issue_authority()


@pytest.fixture(scope="module")
def anchor(authority: pki.Credential) -> TrustAnchor:
    return TrustAnchor(authority.certificate_pem.decode())


def der(credential: pki.Credential) -> bytes:
    return credential.certificate.public_bytes(Encoding.DER)


def refusal(anchor: TrustAnchor, certificate: bytes, wall_time: float | None = None) -> tuple[Refusal, str]:
    with pytest.raises(PeerFault) as caught:
        anchor.identify(certificate, time.time() if wall_time is None else wall_time)
    return caught.value.refusal, caught.value.text


def custom(
    authority: pki.Credential,
    *,
    uris: tuple[str, ...] = ("mpq://site/ship1",),
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | None = None,
) -> bytes:
    """A leaf that `pki` would not make."""
    public = (key or ec.generate_private_key(ec.SECP256R1())).public_key()
    begin = datetime.now(UTC) - timedelta(hours=1)
    builder = x509.CertificateBuilder(
        authority.certificate.subject,
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]),
        public,
        x509.random_serial_number(),
        begin,
        begin + timedelta(days=10),
    )
    builder = builder.add_extension(x509.BasicConstraints(False, None), True)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(issuer, False)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_good_site(authority: pki.Credential, anchor: TrustAnchor) -> None:
    site = pki.issue_site(authority, "ship1")
    identity, key = anchor.identify(der(site), time.time())
    assert identity == "mpq://site/ship1"
    assert key == site.key.public_key()
    assert leaf_certificate((site.certificate_pem + authority.certificate_pem).decode()) == der(site)


def test_another_authority(anchor: TrustAnchor) -> None:
    other = pki.issue_authority()  # even of the same name
    assert refusal(anchor, der(pki.issue_site(other, "ship1")))[0] is Refusal.CERTIFICATE


def test_validity_to_the_second(authority: pki.Credential, anchor: TrustAnchor) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    site = der(pki.issue_site(authority, "ship1", begin=begin, lifetime=timedelta(days=1)))
    start, end = begin.timestamp(), begin.timestamp() + 86_400
    assert refusal(anchor, site, start - 1)[0] is Refusal.CLOCK
    assert anchor.identify(site, start)
    assert anchor.identify(site, end)
    kind, text = refusal(anchor, site, end + 1)
    assert kind is Refusal.CERTIFICATE
    assert "expired" in text


@pytest.mark.parametrize(
    "usage",
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING],
)
def test_other_purposes(authority: pki.Credential, anchor: TrustAnchor, usage: x509.ObjectIdentifier) -> None:
    assert refusal(anchor, custom(authority, usage=usage))[0] is Refusal.CERTIFICATE


@pytest.mark.parametrize("uris", [(), ("mpq://site/a", "mpq://site/b")])
def test_not_exactly_one_identity(authority: pki.Credential, anchor: TrustAnchor, uris: tuple[str, ...]) -> None:
    assert refusal(anchor, custom(authority, uris=uris))[0] is Refusal.CERTIFICATE


def test_another_kind_of_key(authority: pki.Credential, anchor: TrustAnchor) -> None:
    assert refusal(anchor, custom(authority, key=ed25519.Ed25519PrivateKey.generate()))[0] is Refusal.CERTIFICATE


def test_the_authority_itself_and_what_a_leaf_signed(authority: pki.Credential, anchor: TrustAnchor) -> None:
    assert refusal(anchor, der(authority))[0] is Refusal.CERTIFICATE
    leaf = pki.issue_site(authority, "ship1")
    assert refusal(anchor, der(pki.issue_site(leaf, "ship2")))[0] is Refusal.CERTIFICATE


@pytest.mark.parametrize("version", range(256))
def test_a_version_that_x509_does_not_have(authority: pki.Credential, anchor: TrustAnchor, version: int) -> None:
    """Parsed before anything is verified, so anybody may send it."""
    good = der(pki.issue_site(authority, "ship1"))
    field = bytes.fromhex("a003020102")
    bad = good.replace(field, field[:-1] + bytes((version,)))
    if version != 2:
        assert refusal(anchor, bad)[0] is Refusal.CERTIFICATE


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_garbage_is_refused_and_nothing_else_happens(authority: pki.Credential, anchor: TrustAnchor) -> None:
    noise = random.Random(11)
    good = der(pki.issue_site(authority, "ship1"))
    garbage = [good[:length] for length in range(len(good))]
    garbage += [noise.randbytes(noise.randrange(600)) for _ in range(200)]
    for _ in range(1500):
        mutant = bytearray(good)
        for _ in range(noise.choice((1, 1, 2, 5))):
            mutant[noise.randrange(len(good))] = noise.randrange(256)
        garbage.append(bytes(mutant))
    for certificate in garbage:
        if certificate != good:
            assert refusal(anchor, certificate)[0] in (Refusal.CERTIFICATE, Refusal.CLOCK)


def test_the_proof_is_of_this_hello_on_this_connection(authority: pki.Credential) -> None:
    site = pki.issue_site(authority, "ship1")
    unsigned = encode_claims(Claims((1,), 2, ("10.0.0.5",), der(site)))
    signature = site.key.sign(hello_transcript(unsigned, BINDING), ec.ECDSA(hashes.SHA256()))

    def hello(inner: str = "10.0.0.5", signature: bytes = signature) -> Hello:
        return Hello(encode_claims(Claims((1,), 2, (inner,), der(site))), signature)

    key = site.key.public_key()
    verify_hello(hello(), key, BINDING)
    plain = site.key.sign(hello_transcript(unsigned, BINDING)[1:], ec.ECDSA(hashes.SHA256()))
    for bad, binding, by in (
        (hello("10.0.0.6"), BINDING, key),
        (hello(), bytes(32), key),
        (hello(), b"", key),
        (hello(), BINDING, authority.key.public_key()),
        *((hello(signature=bad), BINDING, key) for bad in (b"", b"\x30", signature[:-1], signature + b"\x00", plain)),
    ):
        with pytest.raises(PeerFault) as caught:
            verify_hello(bad, by, binding)
        assert caught.value.refusal is Refusal.SIGNATURE
