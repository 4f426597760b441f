"""What may be signed, and what may not."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mpq_supervisor.signer import SignatureRefused, Signer
from mpq_worker.errors import HostFault
from mpq_worker.wire import HELLO_CONTEXT, Claims, encode_claims, hello_transcript

KEY = ec.generate_private_key(ec.SECP256R1())
TLS = b" " * 64 + b"TLS 1.3, server CertificateVerify\x00"
HELLO = hello_transcript(encode_claims(Claims((1,), 0, ("10.0.0.1",), b"c")), b"binding")


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


HUB, SITE = Signer(pem(KEY), "hub"), Signer(pem(KEY), "site")


@pytest.mark.parametrize(
    ("signer", "purpose", "data"),
    [(HUB, "tls", TLS + b"h" * 32), (HUB, "tls", TLS + b"h" * 48), (SITE, "hello", HELLO)],
)
def test_signs_what_is_due(signer: Signer, purpose: str, data: bytes) -> None:
    signature = signer.sign(purpose, data)
    KEY.public_key().verify(signature, data, ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(signature, data + b"x", ec.ECDSA(SHA256()))


@pytest.mark.parametrize(
    ("signer", "purpose", "data"),
    [
        (SITE, "tls", TLS + b"h" * 32),
        (HUB, "hello", HELLO),
        (HUB, "hello", TLS + b"h" * 32),
        (HUB, "tls", HELLO),
        (SITE, "hello", TLS + b"h" * 32),
        (HUB, "tls", TLS),
        (HUB, "tls", TLS + b"h" * 33),
        (HUB, "tls", b" " * 64 + b"TLS 1.3, client CertificateVerify\x00" + b"h" * 32),
        (HUB, "tls", (TLS + b"h" * 32)[1:]),
        (HUB, "tls", b""),
        (SITE, "hello", HELLO_CONTEXT + b"x" * 9000),
        (SITE, "hello", b"x" + HELLO),
        (SITE, "anything", HELLO),
    ],
)
def test_refuses_the_rest(signer: Signer, purpose: str, data: bytes) -> None:
    with pytest.raises(SignatureRefused):
        signer.sign(purpose, data)


@pytest.mark.parametrize("text", [b"", b"nonsense", pem(ed25519.Ed25519PrivateKey.generate())])
def test_key_that_cannot_be_used(text: bytes) -> None:
    with pytest.raises(HostFault):
        Signer(text, "hub")
