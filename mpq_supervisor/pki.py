"""`mpq-supervisor pki`: a small certificate authority for hubs and sites.

ECDSA P-256 throughout. A hub's certificate names its DNS names and addresses (serverAuth), a site's its URI
`mpq://site/NAME` (clientAuth). Profiles follow RFC 5280, closely enough for `cryptography.x509.verification`.
Keys are written 0600 and never over an existing file, unless told to.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpq_supervisor.files import read_regular
from mpq_supervisor.schema import Address, site_uri

AUTHORITY_DAYS = 3650
LEAF_DAYS = 730
BACKDATED = timedelta(hours=1)
"""Certificates are valid from a little before now, for clocks that are a little behind."""
MAX_CERTIFICATES = 16_384
"""Bytes of a file of them: of a host's two every worker is told in one message (`contract.MAX_MESSAGE`)."""
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 64, 65, 66, 73

_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*")
_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Damaged(ValueError):
    """A file that does not hold what it should; the text names it."""


class Credential(msgspec.Struct, frozen=True):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, PEM, PKCS #8, unencrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue_authority(
    name: str = "mpq CA",
    *,
    begin: datetime | None = None,
    lifetime: timedelta = timedelta(days=AUTHORITY_DAYS),
) -> Credential:
    """A new self-signed CA, which may sign leaves only. `begin` is by default a little before now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), key.public_key(), begin, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return Credential(builder.sign(key, hashes.SHA256()), key)


def issue_hub(
    authority: Credential,
    name: str,
    addresses: tuple[Address, ...] = (),
    *,
    begin: datetime | None = None,
    lifetime: timedelta = timedelta(days=LEAF_DAYS),
) -> Credential:
    """A hub's certificate for a host name (or an address) and further addresses. Raises ValueError."""
    names: list[x509.GeneralName] = [x509.IPAddress(address) for address in addresses]
    try:
        names.insert(0, x509.IPAddress(ip_address(name)))
    except ValueError:
        if not _HOST_NAME.fullmatch(name) or len(name) > 253:
            raise ValueError(f'"{name}" is no host name (lower-case letters, digits, - and .)') from None
        names.insert(0, x509.DNSName(name))
    return _issue_leaf(authority, name, names, ExtendedKeyUsageOID.SERVER_AUTH, begin, lifetime)


def issue_site(
    authority: Credential,
    name: str,
    *,
    begin: datetime | None = None,
    lifetime: timedelta = timedelta(days=LEAF_DAYS),
) -> Credential:
    """A site's certificate. Raises ValueError."""
    if not _SITE_NAME.fullmatch(name):
        raise ValueError(f'"{name}" is no site name (up to 63 letters, digits, - _ and .)')
    uri = x509.UniformResourceIdentifier(site_uri(name))
    return _issue_leaf(authority, name, [uri], ExtendedKeyUsageOID.CLIENT_AUTH, begin, lifetime)


def site_names(certificate: x509.Certificate) -> list[str]:
    """The SAN URIs of a certificate."""
    return _alternative_names(certificate).get_values_for_type(x509.UniformResourceIdentifier)


def hub_names(certificate: x509.Certificate) -> list[str]:
    """The SAN host names and addresses of a certificate, as text."""
    found = _alternative_names(certificate)
    addresses = found.get_values_for_type(x509.IPAddress)
    return [*found.get_values_for_type(x509.DNSName), *map(str, addresses)]


def save(credential: Credential, directory: Path, stem: str, *, force: bool = False) -> None:
    """Writes `stem.key` (0600) and `stem.crt` into a directory. Raises FileExistsError and other OSErrors.

    Each file appears whole or not at all; root leaves them to the directory's owner.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    key, certificate = directory / f"{stem}.key", directory / f"{stem}.crt"
    for path in (key, certificate):
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists; --force replaces it")
    _write(key, credential.key_pem, 0o600, force)
    _write(certificate, credential.certificate_pem, 0o644, force)


def load_authority(directory: Path) -> Credential:
    """The CA in a directory. Raises OSError, or Damaged when it is none."""
    certificate, key = read_certificates(directory / "ca.crt")[0], read_key(directory / "ca.key")
    if key.public_key() != certificate.public_key():
        raise Damaged(f"{directory}/ca.key is not the key of {directory}/ca.crt")
    return Credential(certificate, key)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one. Raises OSError, Damaged."""
    data = read_regular(path)
    if len(data) > MAX_CERTIFICATES:
        raise Damaged(f"{path}: {len(data)} bytes, of certificates there may be {MAX_CERTIFICATES}")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise Damaged(f"{path}: no certificate in PEM") from error


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file. Raises OSError, Damaged."""
    try:
        key = serialization.load_pem_private_key(read_regular(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise Damaged(f"{path}: no unencrypted P-256 private key in PEM")


# ---------------------------------------------------------------- command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mpq-supervisor pki`."""
    commands = parser.add_subparsers(dest="pki_command", required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="make a certificate authority")
    hub = commands.add_parser("hub", help="issue a hub's certificate")
    site = commands.add_parser("site", help="issue a site's certificate")
    show = commands.add_parser("show", help="list the certificates of a directory")
    for command in (init, hub, site, show):
        command.add_argument("directory", metavar="DIR", type=Path)
    init.add_argument("--name", default="mpq CA", help="its common name (default: %(default)s)")
    hub.add_argument("--name", required=True, help="host name that sites give in [hub] name")
    hub.add_argument("--address", action="append", default=[], type=ip_address, help="a further address")
    site.add_argument("--name", required=True, help="the site's name at its hub")
    for command, days in ((init, AUTHORITY_DAYS), (hub, LEAF_DAYS), (site, LEAF_DAYS)):
        command.add_argument("--days", type=_days, default=days, help="validity (default: %(default)s)")
        command.add_argument("--force", action="store_true", help="replace existing files")


def main(arguments: argparse.Namespace) -> int:
    """Runs `mpq-supervisor pki`; the exit code is one of docs/exit-codes.md."""
    directory: Path = arguments.directory
    try:
        _warn_of_mode(directory / "ca.key")
        if arguments.pki_command == "show":
            return _show(directory)
        lifetime = timedelta(days=arguments.days)
        if arguments.pki_command == "init":
            credential, stem = issue_authority(arguments.name, lifetime=lifetime), "ca"
        else:
            stem = arguments.name
            authority = load_authority(directory)
            credential = (
                issue_hub(authority, stem, tuple(arguments.address), lifetime=lifetime)
                if arguments.pki_command == "hub"
                else issue_site(authority, stem, lifetime=lifetime)
            )
            _warn_of_end(credential.certificate, authority.certificate)
            if stem == "ca":
                raise ValueError('the name "ca" is the authority\'s own')
        save(credential, directory, stem, force=arguments.force)
    except FileNotFoundError as error:
        _say(f"{error.filename}: not found")
        return EX_NOINPUT
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EX_CANTCREAT
    except Damaged as error:
        _say(str(error))
        return EX_DATAERR
    except ValueError as error:
        _say(str(error))
        return EX_USAGE
    print(_describe(directory / f"{stem}.crt", credential.certificate))
    return 0


def _show(directory: Path) -> int:
    paths = sorted(directory.glob("*.crt"))
    if not paths:
        raise FileNotFoundError(None, None, f"{directory}/*.crt")
    code = 0
    for path in paths:
        try:
            print(_describe(path, read_certificates(path)[0]))
        except Damaged as damaged:  # the others are shown
            _say(str(damaged))
            code = EX_DATAERR
    return code


def _warn_of_mode(key: Path) -> None:
    if key.exists() and (mode := key.stat().st_mode & 0o777) & 0o077:
        _say(f"warning: {key}: mode is {mode:04o}, others may read it: chmod 600, or a new CA if somebody has")


def _warn_of_end(leaf: x509.Certificate, authority: x509.Certificate) -> None:
    end = authority.not_valid_after_utc
    if leaf.not_valid_after_utc > end:
        _say(f"warning: its CA is valid until {end:%Y-%m-%d} only; the certificate is no good after that")


def _say(text: str) -> None:
    print(f"mpq-supervisor pki: {text}", file=sys.stderr)


def _describe(path: Path, certificate: x509.Certificate) -> str:
    names = ["CA", certificate.subject.rfc4514_string()] if _is_authority(certificate) else []
    names = names or site_names(certificate) + hub_names(certificate)
    return f"{path}\t{' '.join(names)}\t{describe_validity(certificate, datetime.now(UTC))}"


def describe_validity(certificate: x509.Certificate, now: datetime) -> str:
    """Whether a certificate is valid at `now`, in words."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"NOT YET VALID, from {begin:%Y-%m-%d %H:%M} UTC"
    if now > end:
        return f"EXPIRED on {end:%Y-%m-%d}"
    return f"valid until {end:%Y-%m-%d} ({(end - now).days} days)"


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 36_500:
        raise argparse.ArgumentTypeError("1 to 36500 days")
    return days


# ---------------------------------------------------------------- certificates and files


def _issue_leaf(
    authority: Credential,
    name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    begin: datetime | None,
    lifetime: timedelta,
) -> Credential:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # RFC 5280 ub-common-name
    issuer = authority.certificate
    builder = _builder(issuer.subject, subject, authority.key.public_key(), key.public_key(), begin, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Credential(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
    key: ec.EllipticCurvePublicKey,
    begin: datetime | None,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    begin = begin or datetime.now(UTC) - BACKDATED
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), begin, begin + lifetime)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _write(path: Path, content: bytes, mode: int, force: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(fd, "wb") as file:
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike rename, fails where something exists
    finally:
        temporary.unlink(missing_ok=True)
