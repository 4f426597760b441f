"""What the portal knows of its host: the latest that the feed told, and counters that outlive workers. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice

import msgspec

from mpq_supervisor.portal.messages import HostSample, Line, Message, Setup, WorkerSample
from mpq_supervisor.status import WorkerStatus
from mpq_worker.contract import PathStats

MAX_LINES = 5000
FRESH = 5.0
"""Seconds after which what was heard last, of a worker or of the host, says nothing of how it is."""


class Refusal(StrEnum):
    """Why the portal ended a client's connection, or did not take it."""

    FULL = "full"  # there are as many as it takes
    SOURCE = "source"  # as many as it takes from one source
    HANDSHAKE = "handshake"  # no TLS, or not in time
    SLOW = "slow"  # no whole request in time
    REQUEST = "request"  # no HTTP, or too much of it


class Total:
    """A sum over processes or connections of which each counts from nought."""

    def __init__(self) -> None:
        self.value = 0.0
        self._last = 0.0

    def note(self, count: float) -> None:
        """What is counted now; less than before is a new beginning."""
        self.value += count if count < self._last else count - self._last
        self._last = count


class Totals:
    """Named ones."""

    def __init__(self) -> None:
        self._totals: dict[str, Total] = {}

    def note(self, counts: Iterable[tuple[str, float]]) -> None:
        """As `Total.note`, for several names."""
        for name, count in counts:
            self._totals.setdefault(name, Total()).note(count)

    def __getitem__(self, name: str) -> float:
        return self._totals[name].value if name in self._totals else 0.0

    def below(self, prefix: str) -> dict[str, float]:
        """All whose name begins so, by the rest of it."""
        return {n.removeprefix(prefix): t.value for n, t in self._totals.items() if n.startswith(prefix)}


class Delivery(msgspec.Struct, frozen=True):
    """How the receiver of webhooks takes what it is told: messages that wait, attempts that failed, alarms of which
    there was no room to tell."""

    waiting: int
    failures: int
    lost: int


class Path(msgspec.Struct, frozen=True):
    """One connection of a tunnel: a site's own, or one of a hub's with a site. `via` is the WAN or listener."""

    site: str
    via: str
    stats: PathStats
    totals: Totals
    rtt_counts: tuple[int, ...] = ()
    rtt_sum: float = 0.0


class Tunnel:
    """One worker, over all its processes."""

    def __init__(self, sample: WorkerSample, now: float) -> None:
        self.totals = Totals()
        self._paths: dict[str, Totals] = {}
        self.take(sample, now)

    def take(self, sample: WorkerSample, now: float) -> None:
        """The latest; `now` is monotonic."""
        self.sample, self.heard = sample, now
        worker = sample.worker
        self.totals.note(_counts(worker))
        for site, stats in _connections(worker):
            self._paths.setdefault(site, Totals()).note(_path_counts(stats))

    @property
    def status(self) -> WorkerStatus:
        """As heard last."""
        return self.sample.worker

    def fresh(self, now: float) -> bool:
        """Whether that says how it is."""
        return now - self.heard < FRESH

    def paths(self, own_site: str) -> list[Path]:
        """The connections there are now; a site's own bears its name."""
        worker = self.status
        found = []
        for site, stats in _connections(worker):
            own = not site
            found.append(
                Path(
                    site=site or own_site,
                    via=worker.wan,
                    stats=stats,
                    totals=self._paths[site],
                    rtt_counts=worker.rtt_counts if own else (),
                    rtt_sum=worker.rtt_sum if own else 0.0,
                )
            )
        return found

    def forget(self, sites: Iterable[str]) -> None:
        """Keeps the counters of these sites only, and a site's own."""
        kept = {"", *sites}
        self._paths = {site: totals for site, totals in self._paths.items() if site in kept}


class State:
    """All of it. `setup` says what kind of host it is."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.host: HostSample | None = None
        self.guarded = Totals()
        self.tunnels: dict[str, Tunnel] = {}
        self.heard = 0.0
        self.history_bytes = self.history_lost = 0
        self.delivery: Delivery | None = None
        self.refused: Counter[Refusal] = Counter()
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)

    def take(self, message: Message, now: float) -> None:
        """A message of the feed."""
        self.heard = now
        match message:
            case WorkerSample(worker=worker):
                if worker.name in self.tunnels:
                    self.tunnels[worker.name].take(message, now)
                else:
                    self.tunnels[worker.name] = Tunnel(message, now)
            case HostSample():
                self.host = message
                self.guarded.note(message.guarded.items())
                known = self.tunnels
                self.tunnels = {name: known[name] for name in message.workers if name in known}
                for tunnel in self.tunnels.values():
                    tunnel.forget(message.sites)
            case Line():
                self._lines.append(message)

    @property
    def complete(self) -> bool:
        """Whether all tunnels that there are have been told of."""
        return self.host is not None and all(name in self.tunnels for name in self.host.workers)

    def age(self, now: float) -> float:
        """Seconds since the supervisor was heard last."""
        return now - self.heard

    def fresh(self, now: float) -> bool:
        """Whether it is heard: once a second, where it does not hang."""
        return self.age(now) < FRESH

    def lines(self, tunnel: str, level: int, count: int) -> list[Line]:
        """The latest `count` lines about a tunnel (empty: all) of `level` and above, oldest first."""
        found = (
            line
            for line in reversed(self._lines)
            if line.level >= level and (not tunnel or (line.marks is not None and line.marks.tunnel == tunnel))
        )
        return list(islice(found, count))[::-1]


def _counts(worker: WorkerStatus) -> Iterable[tuple[str, float]]:
    yield "bytes_in", worker.bytes_in
    yield "bytes_out", worker.bytes_out
    yield "packets_in", worker.packets_in
    yield "packets_out", worker.packets_out
    yield "reconnects", worker.reconnects
    yield "cpu", worker.cpu
    for reason, count in worker.drops.items():
        yield f"drops.{reason}", count
    for reason, count in worker.refusals.items():
        yield f"refusals.{reason}", count


def _path_counts(stats: PathStats) -> Iterable[tuple[str, float]]:
    yield "sent", stats.packets_sent
    yield "lost", stats.packets_lost
    yield "received", stats.packets_received
    yield "key_updates", stats.key_updates


def _connections(worker: WorkerStatus) -> list[tuple[str, PathStats]]:
    """By site, "" for a site's own; several of one site at a shared listener count as the first."""
    if worker.sites:
        return list({site.site: site.path for site in reversed(worker.sites)}.items())
    return [] if worker.path is None else [("", worker.path)]
