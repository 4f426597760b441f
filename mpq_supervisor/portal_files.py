"""The files that `[portal]` names: as the portal takes them, and what `check` has to say of them.

The portal reads them with the supervisor's uid and groups, before it gives up both.
"""

from __future__ import annotations

import os
import pwd
import ssl
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mpq_supervisor.decode import Problem
from mpq_supervisor.files import read_regular, reading_as
from mpq_supervisor.schema import Portal

SERVICE_USER = "mpq"
"""Of the systemd unit: as whom root's `check` looks at the files, where there is such a user."""
_MISMATCH = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # of the same kind, or not


class Unusable(Exception):
    """A file that the portal cannot run with; `field` is that of `[portal]`."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """For a server with this certificate. Raises Unusable."""
    _contents("certificate", certificate)  # OpenSSL would wait for a pipe
    _contents("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # it would ask a terminal
    except OSError as error:  # ssl.SSLError is one
        raise _unusable(certificate, key, error) from error
    return context


def webhook_secret(name: str) -> bytes:
    """The key of the signature. Raises Unusable."""
    secret = _contents("webhook.secret_file", name).strip()
    if not secret:
        raise Unusable("webhook.secret_file", f"{name}: is empty")
    return secret


def check_portal(portal: Portal, unread: Container[str]) -> list[Problem]:
    """What would keep the portal from starting; `unread` are the paths of fields that could not be read."""
    with _as_the_service():
        return [Problem(f"portal.{found.field}", str(found)) for found in _look(portal, unread)]


# ---------------------------------------------------------------- helpers


def _look(portal: Portal, unread: Container[str]) -> Iterator[Unusable]:
    pair = [(field, getattr(portal, field)) for field in ("certificate", "key") if f"portal.{field}" not in unread]
    good = 0
    for field, name in pair:
        try:
            good += bool(name and _contents(field, name))
        except Unusable as unusable:
            yield unusable
    try:
        if good == 2:
            tls_context(portal.certificate, portal.key)
    except Unusable as unusable:
        yield unusable
    try:
        if portal.webhook is not None and "portal.webhook.secret_file" not in unread:
            webhook_secret(portal.webhook.secret_file)
    except Unusable as unusable:
        yield unusable


def _contents(field: str, name: str) -> bytes:
    try:
        contents = read_regular(Path(name))
    except OSError as error:
        raise Unusable(field, f"{name}: {error.strerror}") from error
    if not contents:
        raise Unusable(field, f"{name}: is empty")
    return contents


def _unusable(certificate: str, key: str, error: OSError) -> Unusable:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    if reason in _MISMATCH:
        return Unusable("key", f"is not the key of {certificate}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except OSError:
        return Unusable("certificate", f"{certificate}: no certificate in PEM")
    if reason.isupper() and "KEY" in reason:  # OpenSSL's word, such as EE_KEY_TOO_SMALL
        return Unusable("certificate", f"{certificate}: {reason}")
    return Unusable("key", f"{key}: no unencrypted private key in PEM")


def _as_the_service() -> AbstractContextManager[None]:
    try:
        user = pwd.getpwnam(SERVICE_USER) if os.geteuid() == 0 else None
    except KeyError:
        user = None
    if user is None:
        return nullcontext()
    return reading_as(user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid))
