"""The private key of this host, and the two things that may be signed with it.

A worker asks over its channel and never sees the key. It is not trusted with what it asks either: only a TLS 1.3
server CertificateVerify (RFC 8446 section 4.4.3) at a hub, and only a `Hello` at a site; the prefixes of the two
exclude each other, so neither can be passed off as the other.
"""

from __future__ import annotations

from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mpq_worker.errors import HostFault
from mpq_worker.wire import HELLO_CONTEXT, MAX_CONTROL_MESSAGE

TLS_CONTEXT = b" " * 64 + b"TLS 1.3, server CertificateVerify\x00"
_TRANSCRIPT_HASHES = (32, 48)  # SHA-256, SHA-384


class SignatureRefused(HostFault):
    """A worker asked for a signature that it has no business with."""


class Signer:
    """Signs for one host. Raises HostFault when `key_pem` is not an unencrypted EC key."""

    def __init__(self, key_pem: bytes, role: Literal["site", "hub"]) -> None:
        try:
            key = load_pem_private_key(key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise HostFault(f"private key: {error}") from error
        if not isinstance(key, EllipticCurvePrivateKey):
            raise HostFault("private key: not an elliptic curve key")
        self._key = key
        self._role = role

    def sign(self, purpose: str, data: bytes) -> bytes:
        """DER signature, ECDSA with SHA-256. Raises SignatureRefused."""
        permitted = {"hub": _is_certificate_verify, "site": _is_hello}[self._role]
        if purpose != {"hub": "tls", "site": "hello"}[self._role] or not permitted(data):
            raise SignatureRefused(f'{len(data)} bytes for "{purpose[:20]}" are nothing a {self._role} signs')
        return self._key.sign(data, ECDSA(SHA256()))


def _is_certificate_verify(data: bytes) -> bool:
    return data.startswith(TLS_CONTEXT) and len(data) - len(TLS_CONTEXT) in _TRANSCRIPT_HASHES


def _is_hello(data: bytes) -> bool:
    return data.startswith(HELLO_CONTEXT) and len(data) <= len(HELLO_CONTEXT) + MAX_CONTROL_MESSAGE
