"""Two native paths, joined without a handshake: what one builds, the other opens."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.quic.crypto import CryptoContext, derive_key_iv_hp
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite, cipher_suite_hash

from mpq_worker._datapath import Datapath, Path

V1 = QuicProtocolVersion.VERSION_1
SUITE = CipherSuite.AES_128_GCM_SHA256


def secret_of(suite: CipherSuite, seed: int) -> bytes:
    return bytes([seed]) * cipher_suite_hash(suite).digest_size


def context(suite: CipherSuite, seed: int) -> CryptoContext:
    """aioquic's keys of the same secret."""
    crypto = CryptoContext()
    crypto.setup(cipher_suite=suite, secret=secret_of(suite, seed), version=V1)
    return crypto


class End:
    """One end; its packets are sealed under the secret `seed`, and opened under `peer`."""

    def __init__(
        self, seed: int, peer: int, *, suite: CipherSuite = SUITE, hub: bool = False, mtu: int = 1400
    ) -> None:
        self.datapath = Datapath(hub=hub)
        self.path = Path(
            self.datapath,
            inner_mtu=mtu,
            queue_bytes=131_072,
            target=0.005,
            interval=0.1,
            next_number=0,
            delivered=0,
            now=0.0,
        )
        self.cid, self.suite = bytes([seed]) * 8, suite
        send_key, send_iv, send_header = self.derive(seed)
        key, iv, header = self.derive(peer)
        self.path.set_header_keys(suite, send_header, header)
        self.path.set_send_key(send_key, send_iv, False)
        self.path.set_receive_key(key, iv, False, 0)
        self.path.set_peer(bytes([peer]) * 8, b"", b"")
        self.path.allow(None)
        self.configure()
        self.datapath.bind(self.cid, self.path)
        if not hub:
            self.datapath.use(self.path)

    def derive(self, seed: int) -> tuple[bytes, bytes, bytes]:
        return derive_key_iv_hp(cipher_suite=self.suite, secret=secret_of(self.suite, seed), version=V1)

    def configure(
        self,
        window: int = 1 << 24,
        rate: float = 0.0,
        elsewhere: int = 0,
        ack_delay: float = 0.001,
        tell_delay: float = 0.0,
    ) -> None:
        self.path.configure(
            window=window,
            rate=rate,
            elsewhere=elsewhere,
            ack_delay=ack_delay,
            tell_delay=tell_delay,
            pto=0.1,
            loss_delay=0.05,
        )

    def send(self, *packets: bytes, now: float = 0.0) -> list[bytes]:
        """The datagrams that packets from the TUN become."""
        for packet in packets:
            self.datapath.frame(packet, now)
        return self.flush(now)

    def flush(self, now: float = 0.0) -> list[bytes]:
        self.datapath.flush(now)
        return [data for _, data in self.datapath.take_datagrams()]

    def receive(self, *datagrams: bytes, now: float = 0.0) -> list[bytes]:
        """The packets for the TUN, each without its virtio header; acknowledgements wait for `flush`."""
        for data in datagrams:
            assert self.datapath.datagram(data, now) == []
        self.datapath.flush(now)
        return [frame[10:] for frame in self.datapath.take_frames()]


def ends(make: Callable[..., End] = End, **options: object) -> tuple[End, End]:
    return make(1, 2, **options), make(2, 1, **options)
