"""`mpq-supervisor top`: the host at a glance, over the control socket; shown once where there is no terminal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mpq_supervisor.ctl import ask
from mpq_supervisor.life import SERVING, State
from mpq_supervisor.portal.alarm_models import Alarm
from mpq_supervisor.printable import printable
from mpq_supervisor.requests import SOCKET_NAME, Code, Request
from mpq_supervisor.status import HostStatus, WorkerStatus
from mpq_supervisor.table import duration

INTERVAL = 1.0
_BESIDES = 6
"""Lines of a screen that are not of the table."""
_COLUMNS = ("NAME", "STATE", "FOR", "RTT ms", "JITTER", "LOSS TX", "RX", "Mbit/s IN", "OUT", "DROPS", "RST")
_STYLES = {State.STOPPED: "dim", State.WAITING: "yellow", State.STARTING: "yellow", State.STOPPING: "yellow"}
_UNKNOWN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.add_argument("--runtime-dir", type=Path, default=Path("/run/mpq"), help="default: %(default)s")
    parser.add_argument("--once", action="store_true", help="show it once, as when there is no terminal")


def main(options: argparse.Namespace) -> int:
    """Until Ctrl-C. Returns 0; 4 where it is shown once and no supervisor answers."""
    path, console = options.runtime_dir / SOCKET_NAME, Console()
    if options.once or not console.is_terminal:
        status, alarms = _look(path)
        if isinstance(status, str):
            print(f"mpq-supervisor top: {status}", file=sys.stderr)
            return Code.UNREACHABLE
        console.print(screen(status, alarms))
        return Code.OK
    try:
        with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
            while True:
                status, alarms = _look(path)
                shown = Text(status, "red") if isinstance(status, str) else screen(status, alarms, console.height)
                live.update(shown, refresh=True)
                time.sleep(INTERVAL)
    except KeyboardInterrupt:
        return Code.OK


def screen(host: HostStatus, alarms: tuple[Alarm, ...], height: int | None = None) -> RenderableType:
    """What is shown, in `height` lines; 80 columns are enough. Those that do not serve come first if not all fit."""
    serving = sum(worker.state in SERVING for worker in host.workers)
    head = Text(f"{host.role} {host.name}  up {duration(host.uptime)}  ")
    head.append(f"{serving} of {len(host.workers)} serve", "green" if serving == len(host.workers) else "bold red")
    if host.role == "hub":
        connected = {site.site for worker in host.workers for site in worker.sites}
        more = "+" if any(worker.unnamed for worker in host.workers) else ""
        head.append(f"  {len(connected)}{more} of {len(host.sites)} sites")
    workers, room = host.workers, len(host.workers) if height is None else max(1, height - _BESIDES)
    if len(workers) > room:
        workers = tuple(sorted(workers, key=lambda worker: worker.state in SERVING))[:room]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for number, title in enumerate(_COLUMNS):
        table.add_column(title, justify="left" if number < 2 else "right", no_wrap=True)
    for worker in workers:
        table.add_row(*_row(worker))
    lines: list[RenderableType] = [head, Text(""), table]
    if len(workers) < len(host.workers):
        lines.append(Text(f"and {len(host.workers) - len(workers)} more", "dim"))
    wrong = [f"{w.name}: {w.reason}" for w in host.workers if w.state not in SERVING and w.reason]
    if told := [*(f"{alarm.severity}: {alarm.id}" for alarm in alarms), *wrong]:
        lines += [Text(""), Text(printable("; ".join(told)), "bold red", no_wrap=True, overflow="ellipsis")]
    return Group(*lines)


def _row(worker: WorkerStatus) -> tuple[Text | str, ...]:
    style = "green" if worker.state in SERVING else _STYLES.get(worker.state, "bold red")
    return (
        worker.name,
        Text(str(worker.state), style),
        duration(worker.since),
        *(_UNKNOWN if t is None else f"{t * 1e3:.1f}" for t in (worker.rtt, worker.jitter)),
        *(_loss(ratio) for ratio in (worker.loss_tx, worker.loss_rx)),
        *(f"{rate / 1e6:.1f}" for rate in (worker.rate_in, worker.rate_out)),
        _short(sum(worker.drops.values())),
        str(worker.restarts),
    )


def _loss(ratio: float | None) -> Text | str:
    return _UNKNOWN if ratio is None else Text(f"{ratio:.1%}", "red" if ratio >= 0.05 else "")


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1e3:.0f}k" if count < 10_000_000 else f"{count / 1e6:.0f}M"


def _look(path: Path) -> tuple[HostStatus | str, tuple[Alarm, ...]]:
    """How the host stands, or why that is not known; and the alarms, where a portal knows of any."""
    try:
        response = ask(path, Request("status"))
        if response.status is None:
            return "; ".join(response.lines), ()
        found = ask(path, Request("alarms")).alarms
    except OSError as error:
        return f"no supervisor at {path}: {error.strerror or error}", ()
    except msgspec.MsgspecError as error:
        return f"{path}: no answer: {error}", ()
    return response.status, found.alarms if found is not None else ()
