"""Peers that a hub must refuse: a site's tunnel core over a socket of ours, from a host in the Internet."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mpq_supervisor import pki
from mpq_worker.contract import ConfigureSite, Credentials, FromWorker, SignRequest, TrafficClass, door_of
from mpq_worker.peer import Peer
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import Hello, encode_control
from tests.netns.product import System
from tools.lab_config import HUB_NAME
from tools.topology import HUB

PORT = 45010
WORKER = "mt4.bulk"


class Impostor(SiteTunnel):
    """A site's core that says what it is told to: `hello` replaces what it would send on its control stream."""

    hello: Callable[[Hello], bytes | None] = staticmethod(encode_control)

    def _on_signature(self, peer: Peer, signature: bytes, now: float) -> None:
        hello = Hello(self._claims[peer], signature)
        send = peer.session.send_control

        def replaced(data: bytes) -> None:
            message = self.hello(hello)
            send(data if message is None else message)

        peer.session.send_control = replaced  # type: ignore[method-assign]  # in its place, for the test
        super()._on_signature(peer, signature, now)


class Stranger:
    """Runs an impostor with some credential until `close`. `messages` is what it told its supervisor."""

    def __init__(
        self,
        system: System,
        credential: pki.Credential,
        inner: tuple[str, ...],
        hello: Callable[[Hello], bytes | None] = lambda _: None,
    ) -> None:
        ca = Path(system.deployment.pki, "ca.crt").read_text()
        config = ConfigureSite(
            name="br1",
            site="stranger",
            traffic_class=TrafficClass.BULK,
            hub_name=HUB_NAME,
            hub_address=(HUB, PORT),
            door=door_of(TrafficClass.BULK),
            inner=inner,
            credentials=Credentials(ca=ca, certificate=credential.certificate_pem.decode()),
        )
        self._key = credential.key
        self.core = Impostor(config, time.monotonic())
        self.core.hello = hello
        self.messages: list[FromWorker] = []
        self.socket = outside_socket(system)
        self._flush()

    @property
    def address(self) -> str:
        """As the hub logs it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def run(self, until: Callable[[], object], seconds: float = 10.0) -> None:
        """Live until a condition holds."""
        deadline = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            assert now < deadline, f"not within {seconds} s: {self.messages}"
            if select.select([self.socket], [], [], 0.01)[0]:
                self.core.handle_udp(self.socket.recv(2048), (HUB, PORT), now)
            if (timeout := self.core.poll_timeout()) is not None and timeout <= now:
                self.core.handle_timer(now)
            self._flush()

    def send_packet(self, packet: bytes) -> None:
        """As if it came from a TUN."""
        self.core.handle_packet(packet, time.monotonic())
        self._flush()

    def close(self) -> None:
        """Tell the hub and go."""
        self.core.handle_stop(time.monotonic())
        self._flush()
        self.socket.close()

    def _flush(self) -> None:
        now = time.monotonic()
        for data, _ in self.core.poll_transmit(now):
            self.socket.send(data)
        while (message := self.core.poll_message()) is not None:
            self.messages.append(message)
            if isinstance(message, SignRequest):
                signature = self._key.sign(message.data, ec.ECDSA(hashes.SHA256()))
                self.core.handle_signature(message.seq, signature, now)


def outside_socket(system: System) -> socket.socket:
    """A UDP socket of the router's, connected to the hub's first port."""
    with system.inside("router"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((HUB, PORT))
    return sock
