"""The worker's one loop: a descriptor becomes readable → the core → what the core wants sent, and nothing else.

    TUN or socket readable                    channel readable, or the timer
        │   links: a bounded part of it           │
        ▼                                         ▼
    core.handle_*                                            (tunnel.SiteTunnel | hub.HubTunnel, sans-IO)
        ▼
    flush: poll_transmit → socket, poll_packet → TUN, poll_message → channel, poll_timeout → timer

No callback enters the core twice, nothing blocks, and the clock the core sees is always `time.monotonic()`: uvloop's
own ticks once per millisecond, and so do its timers, in whose place there is a timerfd. It is read again after what
takes long, lest a packet seem to have left before, or to have come earlier, than it did. Of most wake-ups the native
loop (`links`) makes all that there is to do, and Python does not hear of the packets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec
import uvloop

from mpq_worker._datapath import Timer
from mpq_worker._image import Image
from mpq_worker.channel import Channel, ChannelClosed
from mpq_worker.contract import (
    HEARTBEAT_INTERVAL,
    REPORT_INTERVAL,
    Adopt,
    ConfigureHub,
    ConfigureSite,
    Drain,
    ExitCode,
    FromWorker,
    Heartbeat,
    Lead,
    Notice,
    PeerMoved,
    Rebind,
    SetSites,
    Signature,
    Standing,
    Stop,
    ToWorker,
)
from mpq_worker.errors import DropReason, HostFault
from mpq_worker.hub import HubTunnel
from mpq_worker.links import Links, NativeLinks, PlainLinks
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.udp import HubSocket, SiteSocket
from mpq_worker.usage import Usage

STOP_PATIENCE = 0.8
"""Share of the time to stop in that may pass before the other ends are told."""
TIDY_INTERVAL = 60.0
"""Seconds from the end of a pass over the zygote's memory to the next one; the first begins after `TIDY_AFTER`."""
TIDY_AFTER = 2.0
TIDY_BYTES = 1 << 20
"""Of a heartbeat: half a millisecond."""


class Driver:
    """Runs one core over its descriptors until told to stop. `exit_code` says how it ended."""

    def __init__(self, channel: Channel[ToWorker], loop: asyncio.AbstractEventLoop, image: Image) -> None:
        self._channel: Channel[ToWorker] | None = channel
        self._loop = loop
        self._image = image
        self._core: SiteTunnel | HubTunnel | None = None
        self._unsent: FromWorker | None = None  # a word of the core's that met a full channel
        self._socket: SiteSocket | HubSocket | None = None
        self._tun = -1
        self._links: Links | None = None
        self._timer = Timer()
        self._timer_at: float | None = None
        self._orphan_exit = True
        self._stop_at: float | None = None
        self._wakeups = 0
        self._beats = 0
        self._beat_due = 0.0
        self._tidy_due = time.monotonic() + TIDY_AFTER
        self._lag = 0.0
        self._report_due = 0.0
        self._usage = Usage()
        self.exit_code: int = ExitCode.OK

    def start(self) -> None:
        """Register with the loop; configuration is the first thing that comes."""
        assert self._channel is not None
        self._loop.set_exception_handler(self._on_exception)
        self._loop.add_signal_handler(signal.SIGTERM, self._begin_stop, 1.0)
        self._loop.add_reader(self._channel.fileno(), self._on_channel)
        self._loop.add_reader(self._timer.fileno(), self._on_timer)
        self._beat_due = self._report_due = time.monotonic()
        self._beat()

    # ------------------------------------------------------------------ readable

    def _on_channel(self) -> None:
        now = time.monotonic()
        self._wakeups += 1
        try:
            while self._channel is not None and (received := self._channel.receive()) is not None:
                self._on_message(*received, now)
        except ChannelClosed:
            self._on_orphaned()
        self._flush(time.monotonic())  # what a message asks for, a handshake's part, may take milliseconds

    def _on_message(self, message: ToWorker, fds: list[int], now: float) -> None:
        core = self._core
        match message:
            case ConfigureSite() | ConfigureHub() if core is None:
                self._configure(message, fds, now)
            case Signature() if core is not None:
                core.handle_signature(message.seq, message.signature, now)
            case Rebind() if isinstance(core, SiteTunnel):
                self._replace_socket(SiteSocket(fds[0], message.hub_address))
                core.handle_rebind(message.hub_address, now)
            case SetSites() if isinstance(core, HubTunnel):
                core.handle_sites(message.sites, now)
            case Drain() if core is not None:
                core.handle_drain(now)
            case Lead() if core is not None:
                core.handle_lead(now)
            case Adopt() if core is not None:
                core.handle_lead(now)
                local = self._socket.local if isinstance(self._socket, SiteSocket) else ""
                self._tell(Standing(core.ready, core.silent, local))
            case PeerMoved(inner=inner) if core is not None:
                core.handle_moved(inner, now)
            case Stop():
                self._begin_stop(message.grace)
            case _:
                raise HostFault(f"{type(message).__name__} does not fit here")

    def _configure(self, config: ConfigureSite | ConfigureHub, fds: list[int], now: float) -> None:
        self._orphan_exit = config.orphan_exit
        self._tun = fds[0]
        os.set_blocking(self._tun, False)
        udp: SiteSocket | HubSocket
        if isinstance(config, ConfigureSite):
            self._core = SiteTunnel(config, now)
            udp = SiteSocket(fds[1], config.hub_address)
        else:
            self._core = HubTunnel(config, now, time.time)
            udp = HubSocket(fds[1])
        carrier = self._core.carrier
        if carrier is None:
            self._links = PlainLinks(self._core, self._tun, udp)
        else:
            self._links = NativeLinks(self._core, carrier.datapath, self._tun, udp)
        self._socket = udp
        self._loop.add_reader(self._links.fileno(), self._on_links)

    def _replace_socket(self, udp: SiteSocket) -> None:
        assert self._links is not None
        assert self._socket is not None
        self._links.use_udp(udp)
        self._socket.close()
        self._socket = udp

    def _on_links(self) -> None:
        self._wakeups += 1
        assert self._core is not None
        assert self._links is not None
        try:
            asked = self._links.wake()
        except OSError as error:  # EBADFD: the interface was deleted under us
            self._fail(ExitCode.UNAVAILABLE, f"TUN: {error}")
            return
        if asked:
            now = time.monotonic()
            self._core.handle_timer(now)
            self._flush(now)

    def _on_timer(self) -> None:
        self._timer.clear()
        self._timer_at = None
        now = time.monotonic()
        self._wakeups += 1
        if self._stop_at is not None and now >= self._stop_at:
            self._finish()
        elif self._core is not None:
            self._core.handle_timer(now)
            self._flush(now)

    # ------------------------------------------------------------------ out

    def _flush(self, now: float) -> None:
        """Everything the core has to say, then the TUN and the timer as it wants them."""
        core, udp, links = self._core, self._socket, self._links
        if core is None or udp is None or links is None:
            return
        for data, addr in core.poll_transmit(now):
            try:
                udp.send(data, addr)
            except OSError:  # ENOBUFS, EPERM, ENETUNREACH, EMSGSIZE …: lost, like any packet may be
                core.drop(DropReason.SOCKET)
        while (packet := core.poll_packet()) is not None:
            try:
                links.write_tun(packet)
            except OSError:  # EIO: interface down; EINVAL: the kernel finds no IP packet in it
                core.drop(DropReason.TUN)
        while (message := self._unsent or core.poll_message()) is not None:
            self._unsent = message
            if not self._tell(message):
                break  # the supervisor is stopped; again with the next heartbeat
            self._unsent = None
        if core.stopped:
            self._finish()
            return
        links.look(now)
        self._arm(core.poll_timeout())

    def _arm(self, deadline: float | None) -> None:
        """One timer, at the core's next deadline, with the precision of the kernel's clock."""
        deadline = min((t for t in (deadline, self._stop_at) if t is not None), default=None)
        if deadline != self._timer_at:
            self._timer_at = deadline
            self._timer.set(deadline)

    def _tell(self, message: FromWorker) -> bool:
        """To the supervisor, or nowhere: a worker never waits for it. False when the channel is full."""
        if self._channel is not None:
            try:
                return self._channel.send(message)
            except ChannelClosed:
                self._on_orphaned()
        return True

    # ------------------------------------------------------------------ life

    def _beat(self) -> None:
        """Heartbeat and report come from this loop, so that they stop when it does."""
        now = time.monotonic()
        self._lag = max(self._lag, now - self._beat_due)
        self._beat_due = now + HEARTBEAT_INTERVAL
        self._beats += 1
        self._tell(Heartbeat(self._beats, self._wakeups))
        if self._core is not None and now >= self._report_due:
            self._report_due = now + REPORT_INTERVAL - HEARTBEAT_INTERVAL / 2
            report = self._core.report(now)
            self._tell(msgspec.structs.replace(report, loop_lag=self._lag, **self._usage.look(now)))
            self._lag = 0.0
        self._flush(now)
        if now >= self._tidy_due and self._image.give_back(TIDY_BYTES):
            self._tidy_due = now + TIDY_INTERVAL
        self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)

    def _begin_stop(self, grace: float) -> None:
        now = time.monotonic()
        self._stop_at = now + grace
        if self._core is None:
            self._finish()
            return
        self._core.handle_stop(now, grace * STOP_PATIENCE)
        self._flush(now)

    def _on_orphaned(self) -> None:
        """The supervisor died. Carry on without it, if so configured; the next one will find us."""
        if self._channel is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._orphan_exit or self._core is None or not self._core.leads:
            self._begin_stop(1.0)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A bug. Say it and die: the supervisor makes a better one."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        unusable = self._core is None and isinstance(error, HostFault | ValueError)
        self._fail(ExitCode.CONFIG if unusable else ExitCode.SOFTWARE, str(error or context.get("message")))

    def _fail(self, code: ExitCode, text: str) -> None:
        self._tell(Notice("failed", text, "error"))
        self.exit_code = code
        self._loop.stop()

    def _finish(self) -> None:
        self._loop.stop()


def run(channel: Channel[ToWorker], image: Image) -> int:
    """A worker's life, after isolation; `image` is the zygote's. Returns its exit code."""
    loop = uvloop.new_event_loop()
    driver = Driver(channel, loop, image)
    driver.start()
    loop.run_forever()
    return driver.exit_code
