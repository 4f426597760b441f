"""A private key that lives elsewhere: signing stops the TLS handshake until the supervisor has answered.

aioquic signs in the middle of `receive_datagram`. `RemoteKey.sign` runs in a greenlet of its own and switches out
with the bytes to be signed; whoever holds the greenlet switches back in with the signature. So the worker's loop
never waits, and the handshake's half-done state stays on the greenlet's stack.
"""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from greenlet import getcurrent


class SignatureRefused(Exception):
    """The supervisor would not sign."""


class RemoteKey(ec.EllipticCurvePrivateKey):
    """The P-256 key aioquic is given; only `sign` and `curve` work."""

    @property
    def curve(self) -> ec.EllipticCurve:
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        return 256

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Switch to the greenlet's parent with `data`; the parent switches back with the DER signature."""
        parent = getcurrent().parent
        if parent is None:
            raise SignatureRefused("nobody to ask")
        signature: bytes = parent.switch(bytes(data))
        if not signature:
            raise SignatureRefused("the supervisor refused to sign")
        return signature

    def _elsewhere(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the private key is in the supervisor")

    exchange = public_key = private_numbers = private_bytes = _elsewhere
    __copy__ = __deepcopy__ = _elsewhere
