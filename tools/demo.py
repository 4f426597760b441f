"""`make demo`: nine tunnels at work, seen live, in namespaces of this machine; under two minutes.

    build the lab → nine UP → traffic of each class from the LAN host to the server behind the hub, at 0, 10 and 30 %
    loss on the outer flow of br2 → kill workers → the isolation table → clean up → build/demo.json

KEEP=1 leaves the lab up and says how to enter it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mpq_supervisor.lifecycle import State
from mpq_supervisor.status import HostStatus
from tools.lab import Lab
from tools.lab_config import Deployment, deploy
from tools.ping import Stream
from tools.ping_report import StreamReport
from tools.product import Side
from tools.results import Results
from tools.topology import SERVER, WANS
from tools.traffic import LoadResult, start_load, start_pings
from tools.udp_load import LoadFlow

OUTPUT = Path("build/demo.json")
KEPT = "mpqdemo"
RTT_MS = 20
LOSSES = (0, 10, 30)
PHASE = 10.0
MBIT = {"cr2": 5.0, "br2": 5.0, "df2": 5.0}
OTHERS_MBIT = 1.0
GROUP = ("cr2", "br2", "df2")
KILLED = ("br2", "cr2", "df3")
_PORT = 7100
_WIDTH = 110
_HEADINGS = (
    *("tunnel", "class", "wan", "state", "RTT ms", "loss out", "loss in"),
    *("Mbit/s in", "Mbit/s out", "restarts"),
)
_COLOURS = {State.UP: "green", State.DEGRADED: "yellow", State.FAILED: "red", State.BACKOFF: "red"}


class Demo:
    """The story, told on `console`."""

    def __init__(self, lab: Lab, deployment: Deployment, console: Console, begin: float) -> None:
        self._lab = lab
        self._deployment = deployment
        self._console = console
        self._begin = begin
        self._names = list(deployment.tunnels)
        self.results = Results.here()

    def run(self) -> None:
        """All of it."""
        self.results.add("demo.nine_up", [self._elapsed()], "s")
        self._say(f"nine tunnels UP {self._elapsed():.1f} s after the first namespace was made")
        table = Table(title="isolation: loss on the outer flow of br2, each way, in the middle of the Internet")
        for heading in ("loss on br2", "tunnel", "UDP received", "pings lost", "RTT p50 ms", "RTT p99 ms"):
            table.add_column(heading, justify="right")
        for percent in LOSSES:
            loads, pings = self._traffic(percent)
            for tunnel in GROUP:
                self._add_row(table, percent, tunnel, loads[tunnel], pings[tunnel])
            table.add_section()
        self._lab.clear_loss()
        kills = self._kills()
        self._console.print(table)
        self._console.print(kills)
        leaks = self._lab.leaks()
        self.results.add("demo.leaks", [leaks.site + leaks.hub], "packets", target=0)
        self._say(f"packets of the LAN that left outside a tunnel: {leaks.site + leaks.hub}")

    def _traffic(self, percent: int) -> tuple[dict[str, LoadResult], dict[str, StreamReport]]:
        """Ten seconds of UDP and pings through all nine tunnels, from the LAN host to the server."""
        self._lab.loss(self._deployment.flow("br2"), percent)
        flows, streams = [], []
        for index, name in enumerate(self._names):
            via = self._deployment.via(name)
            mbit = MBIT.get(name, OTHERS_MBIT)
            flows.append(LoadFlow(name=name, target=SERVER, port=_PORT + index, mbit=mbit, via=via))
            rate = 100.0 if name in GROUP else 10.0
            streams.append(Stream(name=name, target=SERVER, rate=rate, via=via))
        loads = start_load(self._lab, "lan", "server", flows, PHASE)
        pings = start_pings(self._lab, "lan", streams, PHASE)
        self._watch(f"{percent} % loss on br2", PHASE)
        return loads.result(), pings.result()

    def _kills(self) -> Table:
        """kill -9 of three site workers and one of the hub's, all nine under pings."""
        pause = 2.5
        streams = [Stream(name=n, target=SERVER, rate=100.0, via=self._deployment.via(n)) for n in self._names]
        pings = start_pings(self._lab, "lan", streams, (len(KILLED) + 1) * pause + 1)
        time.sleep(1)
        killed: list[tuple[str, str, int]] = []
        for name in KILLED:
            os.kill(self._pid("site", name), signal.SIGKILL)
            killed.append((name, name, time.monotonic_ns()))
            self._watch(f"killed {name}", pause)
        os.kill(self._pid("hub", "mt4.critical"), signal.SIGKILL)
        killed.append(("mt4.critical", "cr1", time.monotonic_ns()))
        self._watch("killed mt4.critical at the hub", pause)
        replies = pings.result()
        table = Table(title="kill -9 of a worker, 100 pings/s through every tunnel")
        for heading in ("killed", "first reply after ms", "its pings lost", "the other eight lost"):
            table.add_column(heading, justify="right")
        for process, tunnel, when in killed:
            answer = replies[tunnel].first_answer_ns(when)
            back = float("nan") if answer is None else (answer - when) / 1e6
            span = (when - int(5e7), when + int(pause * 1e9) - int(1e8))
            own = replies[tunnel].window(*span).lost
            others = sum(replies[name].window(*span).lost for name in self._names if name != tunnel)
            table.add_row(process, f"{back:.0f}", str(own), str(others))
            self.results.add(f"demo.kill.{process}.to_first_reply", [back], "ms")
            self.results.add(f"demo.kill.{process}.others_lost", [others], "pings", target=0)
        return table

    def _add_row(self, table: Table, percent: int, tunnel: str, load: LoadResult, report: StreamReport) -> None:
        window = report.window()
        ratio = load.received / (load.sent + load.refused)
        key = f"demo.isolation.br2_{percent}.{tunnel}"
        promised = tunnel != "br2"
        target = 0.999 if promised else None
        self.results.add(f"{key}.received_ratio", [ratio], "1", target=target, better="higher")
        self.results.add(f"{key}.pings_lost", [window.lost], f"of {window.sent}", target=0 if promised else None)
        self.results.add(f"{key}.rtt_p99", [window.p99_ms], "ms")
        received, lost = f"{100 * ratio:.2f} %", f"{window.lost} of {window.sent}"
        table.add_row(f"{percent} %", tunnel, received, lost, f"{window.p50_ms:.1f}", f"{window.p99_ms:.1f}")

    def _watch(self, caption: str, seconds: float) -> None:
        """The nine tunnels, twice a second; once per step where nobody is watching."""
        end = time.monotonic() + seconds
        if not self._console.is_terminal:
            time.sleep(seconds)
            self._console.print(self._picture(caption))
            return
        with Live(self._picture(caption), console=self._console, auto_refresh=False, transient=True) as live:
            while time.monotonic() < end:
                time.sleep(0.5)
                live.update(self._picture(f"{caption}  [{max(0.0, end - time.monotonic()):.0f} s]"), refresh=True)

    def _picture(self, caption: str) -> Table:
        table = Table(title=f"{self._elapsed():5.1f} s  {caption}")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for worker in self._status("site").workers:
            colour = _COLOURS.get(worker.state, "white")
            table.add_row(
                worker.name,
                worker.traffic_class,
                worker.wan,
                f"[{colour}]{worker.state}[/]",
                _number(worker.rtt, 1e3, 1),
                _number(worker.loss_tx, 100, 1, " %"),
                _number(worker.loss_rx, 100, 1, " %"),
                _number(worker.rate_in, 1e-6, 2),
                _number(worker.rate_out, 1e-6, 2),
                str(worker.restarts),
            )
        return table

    def _pid(self, side: Side, name: str) -> int:
        pid = next(worker.pid for worker in self._status(side).workers if worker.name == name)
        assert pid is not None
        return pid

    def _status(self, side: Side) -> HostStatus:
        status = self._lab.ctl(side, "status").status
        assert status is not None
        return status

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _say(self, text: str) -> None:
        self._console.print(f"{self._elapsed():5.1f} s  {text}")


def _number(value: float | None, scale: float, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}{unit}"


def main() -> int:
    """0 when the story was told to its end; what was not as promised is named, and `met: false` in the file."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    keep = os.environ.get("KEEP") == "1"
    begin = time.monotonic()
    lab = Lab(KEPT if keep else None)
    with lab:
        for wan in WANS:
            lab.delay(wan, RTT_MS)
        deployment = deploy(lab.directory)
        lab.start("hub", deployment.hub)
        lab.start("site", deployment.site)
        lab.wait_up()
        demo = Demo(lab, deployment, console, begin)
        demo.run()
        if keep:
            _wait_for_enter(lab, console)
    demo.results.add("demo.duration", [time.monotonic() - begin], "s", target=None if keep else 120)
    demo.results.write(OUTPUT)
    missed = [row.id for row in demo.results.rows if row.met is False]
    console.print(f"{len(demo.results.rows)} figures in {OUTPUT}; missed: {', '.join(missed) or 'none'}")
    return 0


def _wait_for_enter(lab: Lab, console: Console) -> None:
    ctl = f"{sys.executable} -m mpq_supervisor ctl --runtime-dir {lab.directory / 'site'} status"
    console.print("The lab stays up until you press Enter here. Meanwhile, in another shell:")
    console.print(f"  ip netns exec {lab.name('site')} bash\n  {ctl}", soft_wrap=True)
    sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
