"""A connection between two cores in memory, for the zygote to hold once before it forks.

Libraries make things on first use: OpenSSL fetches its algorithms, cryptography and pyOpenSSL fill caches, msgspec
builds its decoders, and Python specialises the code it has run. Done here, it is done once, its pages are shared by
all workers, and a worker's own first handshake is faster (docs/decisions/memory.md).
"""

from __future__ import annotations

import datetime
import time

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpq_worker.contract import (
    ConfigureHub,
    ConfigureSite,
    Credentials,
    Ready,
    SignRequest,
    SiteEntry,
    TrafficClass,
    door_of,
)
from mpq_worker.endpoint import Endpoint
from mpq_worker.errors import HostFault
from mpq_worker.hub import HubTunnel
from mpq_worker.quic.session import Address
from mpq_worker.tunnel import SiteTunnel

_HUB, _SITE = ("192.0.2.1", 1), ("192.0.2.2", 2, b"")
_NAME, _IDENTITY = "hub.invalid", "mpq://site/rehearsal"
_INNER = ("192.0.2.3", "2001:db8::3")
_TICK = 0.005
_DURATION = 2.0


def rehearse(wall_time: float) -> None:
    """Connect, admit, probe, report, in `_DURATION` seconds of imagined time. Raises HostFault if that fails here."""
    keys = {role: ec.generate_private_key(ec.SECP256R1()) for role in ("ca", "hub", "site")}
    begin = datetime.datetime.fromtimestamp(wall_time - 3600, datetime.UTC)
    ca = _certificate(begin, keys["ca"], keys["ca"])
    hub_name = x509.DNSName(_NAME), ExtendedKeyUsageOID.SERVER_AUTH
    site_name = x509.UniformResourceIdentifier(_IDENTITY), ExtendedKeyUsageOID.CLIENT_AUTH
    hub_certificate = _certificate(begin, keys["hub"], keys["ca"], *hub_name)
    site_certificate = _certificate(begin, keys["site"], keys["ca"], *site_name)
    hub = HubTunnel(
        ConfigureHub(
            name="hub",
            slot=1,
            inner=("192.0.2.4",),
            credentials=Credentials(ca, hub_certificate),
            reset_key=bytes(32),
            retry_key=bytes(32),
            sites=(SiteEntry("site", _IDENTITY, _INNER),),
        ),
        0.0,
        lambda: wall_time,
    )
    site = SiteTunnel(
        ConfigureSite(
            name="site",
            site="site",
            traffic_class=TrafficClass.CRITICAL,
            hub_name=_NAME,
            hub_address=_HUB,
            door=door_of(TrafficClass.CRITICAL),
            inner=_INNER,
            credentials=Credentials(ca, site_certificate),
        ),
        0.0,
    )
    ready = False
    for step in range(int(_DURATION / _TICK)):
        now = step * _TICK
        for core, peer, source, key in ((site, hub, _SITE, keys["site"]), (hub, site, _HUB, keys["hub"])):
            core.handle_timer(now)
            ready |= _exchange(core, peer, source, key, now)
    site.report(_DURATION)
    hub.report(_DURATION)
    if not ready:
        raise HostFault("the rehearsal of a connection failed: this host's libraries do not do what mpq needs")


def warm() -> None:
    """What a spare does before it is wanted: the same again, and a loop, so that their pages are its own."""
    rehearse(time.time())
    uvloop.new_event_loop().close()


def _exchange(core: Endpoint, peer: Endpoint, source: Address, key: ec.EllipticCurvePrivateKey, now: float) -> bool:
    """Carry what `core` has to say; True if it is a site that became Ready."""
    for data, _ in core.poll_transmit(now):
        peer.handle_udp(data, source, now)
    ready = False
    while (message := core.poll_message()) is not None:
        if isinstance(message, SignRequest):
            core.handle_signature(message.seq, key.sign(message.data, ec.ECDSA(hashes.SHA256())), now)
        ready |= isinstance(message, Ready) and isinstance(core, SiteTunnel)
    return ready


def _certificate(
    begin: datetime.datetime,
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    name: x509.GeneralName | None = None,
    usage: x509.ObjectIdentifier | None = None,
) -> str:
    """A PEM certificate of a day, for nobody but `rehearse`; without a name, the authority's."""
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rehearsal")])
    builder = x509.CertificateBuilder(
        issuer_name=authority,
        subject_name=authority if name is None else x509.Name([]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begin,
        not_valid_after=begin + datetime.timedelta(days=1),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=name is None, path_length=None), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    builder = builder.add_extension(identifier, critical=False)
    if name is None or usage is None:
        usages = x509.KeyUsage(
            False, False, False, False, False, True, True, False, False
        )  # sign certificates and CRLs
        builder = builder.add_extension(usages, critical=True)
        own_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(own_identifier, critical=False)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
