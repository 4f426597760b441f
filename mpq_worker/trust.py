"""Who a site is: its certificate, and its proof that it holds the key, here and now. Pure."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from mpq_worker.errors import PeerFault, Refusal
from mpq_worker.wire import Hello, hello_transcript


class TrustAnchor:
    """The CA whose signature makes a site certificate good."""

    def __init__(self, ca_pem: str) -> None:
        self._store = verification.Store(x509.load_pem_x509_certificates(ca_pem.encode()))

    def identify(self, certificate: bytes, wall_time: float) -> tuple[str, ec.EllipticCurvePublicKey]:
        """`(SAN URI, public key)` of a site's DER certificate at `wall_time` (Unix time).

        Raises PeerFault: not from our CA, expired, not yet valid, without exactly one URI, not for a client.
        """
        when = datetime.datetime.fromtimestamp(wall_time, datetime.UTC)
        try:
            leaf = x509.load_der_x509_certificate(certificate)
            if when < leaf.not_valid_before_utc:
                raise PeerFault(Refusal.CLOCK, f"certificate not valid before {leaf.not_valid_before_utc}")
            if when > leaf.not_valid_after_utc:
                raise PeerFault(Refusal.CERTIFICATE, f"certificate expired on {leaf.not_valid_after_utc}")
            builder = verification.PolicyBuilder().store(self._store).time(when.replace(tzinfo=None))
            builder.build_client_verifier().verify(leaf, [])
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            identities = names.get_values_for_type(x509.UniformResourceIdentifier)
            key = leaf.public_key()
        except PeerFault:
            raise
        except Exception as error:  # the library raises whatever it likes: TypeError for a name that is a bit string
            raise PeerFault(Refusal.CERTIFICATE, f"certificate: {error}") from error
        if len(identities) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
            raise PeerFault(Refusal.CERTIFICATE, "certificate needs one SAN URI and an EC key")
        return identities[0], key


def verify_hello(hello: Hello, key: ec.EllipticCurvePublicKey, binding: bytes) -> None:
    """Raises PeerFault unless the signature is of this Hello on this connection."""
    try:
        key.verify(hello.signature, hello_transcript(hello.claims, binding), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise PeerFault(Refusal.SIGNATURE, "the proof is not for this connection") from error


def leaf_certificate(pem: str) -> bytes:
    """The first certificate of a PEM text, as DER."""
    return x509.load_pem_x509_certificates(pem.encode())[0].public_bytes(Encoding.DER)
