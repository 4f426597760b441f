"""The ground that tunnels are measured on: a site and a hub, joined by plain veth, one per WAN; nothing between them.

      site                                hub
      wanK 100.64.K.2/24 ───────── upK 100.64.K.1/24       198.51.100.2 and 2001:db8:100::2 on lo
           2001:db8:K::2/64            2001:db8:K::1/64

Every contender is a bed of its own, so that they are there at the same time and know nothing of each other.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import psutil

from tools import namespaces, topology
from tools.product import Side
from tools.stage import Stage
from tools.topology import HUB, HUB6

SIDES: tuple[Side, ...] = ("site", "hub")
BUILD = Path(__file__).resolve().parent.parent.parent / "build"
INNER_MTU = 1400
"""Of every tunnel, so that all carry the same packets."""


class Contender(Stage, ABC):
    """A tunnel between site and hub, up inside `with`. `prefix` must be its own; `wans` is the number of veth."""

    label: ClassVar[str]
    near = "10.99.0.1"
    """The site's address inside the tunnel."""
    far = "10.99.0.2"
    """The hub's."""
    device = "tun0"
    """The site's interface of the tunnel."""

    def __init__(self, prefix: str, wans: int = 1) -> None:
        super().__init__(prefix)
        self.wans = range(1, wans + 1)

    @abstractmethod
    def raise_tunnel(self) -> None:
        """Start both ends; returns when they carry packets."""

    @abstractmethod
    def pids(self, side: Side) -> list[int]:
        """The processes that carry the packets at one end."""

    def cpu(self, side: Side) -> float:
        """CPU seconds that they have taken so far."""
        times = [psutil.Process(pid).cpu_times() for pid in self.pids(side)]
        return float(sum(time.user + time.system for time in times))

    def pss(self, side: Side) -> list[float]:
        """Proportional set size of each of these processes, in MB."""
        return [psutil.Process(pid).memory_full_info().pss / 1e6 for pid in self.pids(side)]

    def launch(self, side: Side, argv: list[str], **popen: Any) -> subprocess.Popen[str]:
        """Start a program whose standard output `until_said` can read."""
        return self.exec(side, argv, stdout=subprocess.PIPE, text=True, **popen)

    def until_said(self, process: subprocess.Popen[str], words: str) -> None:
        """Return when the program has printed a line with these words. Raises `RuntimeError` if it never does."""
        said: list[str] = []
        for line in cast(IO[str], process.stdout):
            said.append(line)
            if words in line:
                return
        raise RuntimeError(f"{process.args!r} did not say {words!r}:\n{''.join(said)}")

    def ip(self, side: Side, *lines: str) -> None:
        """Run lines of `ip -batch` at one end."""
        namespaces.batch(lines, ["ip", "-n", self.name(side)])

    def _build(self) -> None:
        namespaces.batch(f"netns add {self.name(side)}" for side in SIDES)
        for side in SIDES:
            namespaces.write_sysctls(self.name(side), topology.sysctls(side))
        namespaces.batch(
            f"link add wan{k} netns {self.name('site')} type veth peer name up{k} netns {self.name('hub')}"
            for k in self.wans
        )
        self.ip("hub", "link set lo up", f"addr add {HUB}/32 dev lo", f"addr add {HUB6}/128 dev lo nodad")
        self.ip("site", "link set lo up")
        for k in self.wans:
            self.ip("hub", *topology.link_up(f"up{k}", f"100.64.{k}.1/24", f"2001:db8:{k}::1/64"))
            self.ip("site", f"link set wan{k} up")
            leases = (f"100.64.{k}.2/24", f"2001:db8:{k}::2/64")
            self.ip("site", *(line for lease in leases for line in topology.wan_lease(k, lease)))
        self.raise_tunnel()
