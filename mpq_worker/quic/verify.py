"""The hub's certificate as a site judges it: chain, dates, name and purpose (RFC 5280, RFC 9525), by one call into
cryptography's verifier.

aioquic asks pyOpenSSL and service_identity, which take longer and touch more memory (docs/decisions/memory.md), and
do not look at the purpose: a site's certificate with the hub's name would do.
"""

from __future__ import annotations

import datetime
import ipaddress
from functools import lru_cache

from aioquic import tls
from cryptography import x509
from cryptography.x509 import verification


def verify_certificate(
    certificate: x509.Certificate,
    chain: list[x509.Certificate] = [],  # noqa: B006 - the signature is the library's
    server_name: str | None = None,
    cadata: bytes | None = None,
    cafile: str | None = None,
    capath: str | None = None,
) -> None:
    """Takes the place of `aioquic.tls.verify_certificate`, whose parameters these are.

    `cadata` (PEM) is all that may be trusted. Raises AlertCertificateExpired outside the dates of `certificate`, and
    AlertBadCertificate for any other reason, one of them that there is nothing to check it against.
    """
    if cadata is None or server_name is None or cafile is not None or capath is not None:
        raise tls.AlertBadCertificate("a certificate is checked against our CA and the hub's name, nothing else")
    now = datetime.datetime.now(datetime.UTC)
    if now < certificate.not_valid_before_utc:
        raise tls.AlertCertificateExpired("Certificate is not valid yet")
    if now > certificate.not_valid_after_utc:
        raise tls.AlertCertificateExpired("Certificate is no longer valid")
    try:
        builder = verification.PolicyBuilder().store(_store(cadata)).time(now.replace(tzinfo=None))
        builder.build_server_verifier(_subject(server_name)).verify(certificate, chain)
    except (ValueError, verification.VerificationError) as error:
        reason = str(error).split(" (encountered", 1)[0]
        raise tls.AlertBadCertificate(f"certificate for {server_name}: {reason}") from error


@lru_cache(maxsize=1)
def _store(cadata: bytes) -> verification.Store:
    return verification.Store(x509.load_pem_x509_certificates(cadata))


def _subject(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
