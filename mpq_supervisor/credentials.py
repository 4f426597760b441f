"""What a configuration needs of its host: its files, safe and fitting together; its uids and CPUs.

Validity dates are deliberately not looked at: a clock that is wrong at boot is no reason never to start (the
worker meets it, says so and tries again).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Container
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from mpq_supervisor.arithmetic import identity_name
from mpq_supervisor.decode import Problem
from mpq_supervisor.pki import Damaged, hub_names, read_certificates, read_key, site_names
from mpq_supervisor.schema import Config, Identity, SiteConfig, Supervisor, site_uri


def check_host(config: Config, unread: Container[str] = ()) -> list[Problem]:
    """Every problem that a configuration has on this host; `unread` are the paths of those fields that could not be
    read."""
    problems = _check_supervisor(config)
    if config.identity is not None:  # None: there is no such section
        problems += _check_identity(config.identity, isinstance(config, SiteConfig), unread)
    return problems


def check_state(supervisor: Supervisor) -> list[Problem]:
    """Whether we may write into the state directory, or make it."""
    reason = _why_not_kept(Path(supervisor.state_directory))
    return [Problem("supervisor.state_directory", reason)] if reason else []


def _why_not_kept(path: Path) -> str:
    while True:
        try:
            mode = path.stat().st_mode
            break
        except OSError as error:
            if os.path.islink(path) or not isinstance(error, FileNotFoundError | NotADirectoryError):
                return f"{path}: {error.strerror}"
            path = path.parent  # it can be made there
    if not stat.S_ISDIR(mode):
        return f"{path}: not a directory"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path}: the file system is read-only"
    return "" if os.access(path, os.W_OK | os.X_OK, effective_ids=True) else f"{path}: we may not write there"


def _check_identity(identity: Identity, site: bool, unread: Container[str]) -> list[Problem]:
    problems: list[Problem] = []
    key, chain, authorities = None, list[x509.Certificate](), list[x509.Certificate]()
    if "identity.key" not in unread:
        key = _read_key(Path(identity.key), problems)
    if "identity.certificate" not in unread:
        chain = _read_certificates("identity.certificate", Path(identity.certificate), problems)
    if "identity.ca" not in unread:
        authorities = _read_certificates("identity.ca", Path(identity.ca), problems)
    if chain and key is not None and chain[0].public_key() != key.public_key():
        problems.append(Problem("identity.key", f"is not the key of {identity.certificate}"))
    if chain and "identity.name" not in unread:
        problems += _check_names(identity, chain[0], site)
    if not all(_is_authority(certificate) for certificate in authorities):
        problems.append(Problem("identity.ca", f"{identity.ca}: holds a certificate that is no CA's"))
    elif chain and authorities:
        problems += _check_chain(chain, authorities, site)
    return problems


def _read_key(path: Path, problems: list[Problem]) -> ec.EllipticCurvePrivateKey | None:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            problems.append(Problem("identity.key", f"{path}: mode is {mode & 0o777:04o}, must be 0600 or less"))
        return read_key(path)
    except OSError as error:
        problems.append(Problem("identity.key", f"{path}: {error.strerror}"))
    except Damaged as damaged:
        problems.append(Problem("identity.key", str(damaged)))
    return None


def _read_certificates(where: str, path: Path, problems: list[Problem]) -> list[x509.Certificate]:
    try:
        return read_certificates(path)
    except OSError as error:
        problems.append(Problem(where, f"{path}: {error.strerror}"))
    except Damaged as damaged:
        problems.append(Problem(where, str(damaged)))
    return []


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):  # ValueError: an extension that is none
        return False


def _check_names(identity: Identity, certificate: x509.Certificate, site: bool) -> list[Problem]:
    if not site:
        names = hub_names(certificate)
        if not names:
            return [Problem("identity.certificate", "names no host: a hub's needs a DNS name or address as SAN")]
        if identity.name and identity.name not in names:
            return [Problem("identity.name", f"{identity.name} is not in the certificate: {', '.join(names)}")]
        return []
    names = site_names(certificate)
    wanted = site_uri(identity_name(identity))
    if wanted in names:
        return []
    if not names:
        return [Problem("identity.certificate", "is not a site's: there is no URI mpq://site/NAME as SAN")]
    return [Problem("identity.name" if identity.name else "identity.certificate", f"is {names[0]}, not {wanted}")]


def _check_chain(chain: list[x509.Certificate], authorities: list[x509.Certificate], site: bool) -> list[Problem]:
    certificate, *intermediates = chain
    # At a time when the certificate was valid, and its authority too, whatever the clock says now.
    end = certificate.not_valid_after_utc
    begin = max(b for c in (certificate, *authorities) if (b := c.not_valid_before_utc) <= end)
    builder = verification.PolicyBuilder().store(verification.Store(authorities)).time(begin)
    try:
        if site:
            builder.build_client_verifier().verify(certificate, intermediates)
        else:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            subject = next(name for name in names if isinstance(name, x509.DNSName | x509.IPAddress))
            builder.build_server_verifier(subject).verify(certificate, intermediates)
    except verification.VerificationError as error:
        return [Problem("identity.certificate", f"is not good for its CA: {error}")]
    except (x509.ExtensionNotFound, StopIteration):
        return []  # no name at all, which `_check_names` reports
    return []


def _check_supervisor(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    supervisor: Supervisor = config.supervisor
    count = 3 * (9 if isinstance(config, SiteConfig) else len(config.listener))
    first = supervisor.uid_base - (config.portal is not None)  # the portal's own comes before the workers'
    for uid in range(first, supervisor.uid_base + count):
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            continue  # as it should be: nobody's
        problems.append(Problem("supervisor.uid_base", f"uid {uid} belongs to the user {user}"))
    cpus = os.cpu_count() or 1
    for index, cpu in enumerate(supervisor.cpus):
        if cpu >= cpus:
            problems.append(Problem(f"supervisor.cpus[{index}]", f"{cpu}: this host has 0 to {cpus - 1}"))
    return problems
