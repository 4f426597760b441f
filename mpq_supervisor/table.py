"""Status as text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mpq_supervisor.classify import RuleCount
from mpq_supervisor.portal.alarm_models import AlarmList
from mpq_supervisor.printable import printable
from mpq_supervisor.status import HostStatus, WorkerStatus

_UNKNOWN = "-"


def host_table(host: HostStatus) -> str:
    """`ctl status`: one line per worker, at a hub one per connection too, and the sites that have none."""
    head = (
        "NAME", "CLASS", "WAN", "STATE", "SINCE", "PID", "RTT ms", "JITTER ms", "LOSS TX", "LOSS RX",
        "IN Mbit/s", "OUT Mbit/s", "DROPS", "RESTARTS", "PSS MB", "REASON",
    )  # fmt: skip
    rows = [
        (
            worker.name,
            worker.traffic_class,
            worker.wan,
            worker.state,
            duration(worker.since),
            _text(worker.pid),
            _milliseconds(worker.rtt),
            _milliseconds(worker.jitter),
            _percent(worker.loss_tx),
            _percent(worker.loss_rx),
            f"{worker.rate_in / 1e6:.1f}",
            f"{worker.rate_out / 1e6:.1f}",
            str(sum(worker.drops.values())),
            str(worker.restarts),
            f"{worker.pss / 1e6:.1f}" if worker.pss else _UNKNOWN,
            worker.reason,
        )
        for worker in host.workers
    ]
    lines = [f"{host.role} {host.name}, up {duration(host.uptime)}", "", *_aligned(head, rows)]
    if host.role == "hub":
        lines += ["", *_sites(host)]
        dropped = ", ".join(f"{name} {count}" for name, count in host.guarded.items() if count)
        lines += ["", f"dropped in nftables: {dropped}"] if dropped else []
    return "\n".join(lines)


def worker_page(worker: WorkerStatus) -> str:
    """`ctl show NAME`: everything about one worker, a line each."""
    pairs = [
        ("name", worker.name),
        ("class", worker.traffic_class),
        ("wan", worker.wan),
        ("interface", worker.tun),
        ("inner addresses", ", ".join(worker.inner)),
        ("remote", worker.remote),
        ("state", f"{worker.state} for {duration(worker.since)}"),
        ("reason", worker.reason or _UNKNOWN),
        ("process", f"pid {_text(worker.pid)}, uid {worker.uid}"),
        ("ready for", _UNKNOWN if worker.uptime is None else duration(worker.uptime)),
        ("restarts", f"{worker.restarts}, {worker.failures} failures since the last healthy run"),
        ("last exit", worker.last_exit or _UNKNOWN),
        ("RTT", f"{_with_unit(worker.rtt)}, least {_with_unit(worker.rtt_min)}"),
        ("probe RTT", f"{_with_unit(worker.probe_rtt)}, jitter {_with_unit(worker.jitter)}"),
        ("loss", f"{_percent(worker.loss_tx)} sending, {_percent(worker.loss_rx)} receiving"),
        ("in", f"{worker.bytes_in} bytes, {worker.packets_in} packets, {worker.rate_in / 1e6:.2f} Mbit/s"),
        ("out", f"{worker.bytes_out} bytes, {worker.packets_out} packets, {worker.rate_out / 1e6:.2f} Mbit/s"),
        ("drops", _counters(worker.drops)),
        ("refusals", _counters(worker.refusals)),
        ("reconnects", str(worker.reconnects)),
        ("key updates", str(worker.key_updates)),
        ("memory (PSS)", f"{worker.pss / 1e6:.1f} MB" if worker.pss else _UNKNOWN),
        ("data path", ", ".join(worker.features) or _UNKNOWN),
        ("loop lag", f"{worker.loop_lag * 1e3:.1f} ms"),
    ]
    width = max(len(key) for key, _ in pairs)
    return "\n".join(f"{key:<{width}}  {printable(value)}" for key, value in pairs)


def rule_table(rules: Iterable[RuleCount], counters: Mapping[str, int]) -> str:
    """`ctl classify` alone: a line per rule, and what did not get into a tunnel."""
    rows = [(rule.rule, rule.traffic_class, str(rule.flows), rule.matches) for rule in rules]
    lost = [
        f"{name} {count}"
        for name, count in counters.items()
        if name.startswith(("refused_", "crossed", "leak", "transit"))
    ]
    return "\n".join([*_aligned(("RULE", "CLASS", "FLOWS", "MATCHES"), rows), "", f"packets: {', '.join(lost)}"])


def duration(seconds: float) -> str:
    """Two units at most: `4.2s`, `3m05s`, `7h12m`, `12d03h`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    return f"{hours // 24}d{hours % 24:02}h"


def alarm_table(found: AlarmList, now: float) -> str:
    """`ctl alarms`: what is raised, and what nobody is told of; `now` is Unix time."""
    head = ("ALARM", "SEVERITY", "FOR", "VALUE", "ABOVE", "KNOWN TO")
    rows = [
        (a.id, a.severity, duration(now - a.since), f"{a.value:.4g}", f"{a.above:.4g}", a.acknowledged or _UNKNOWN)
        for a in found.alarms
    ]
    lines = _aligned(head, rows) if rows else ["no alarm is raised"]
    if found.silences:
        head = ("SILENCE", "RULE", "OF", "ENDS IN", "BY", "REASON")
        rows = [
            (str(s.id), s.rule or "any", s.subject or "all", duration(s.until - now), s.by, s.reason)
            for s in found.silences
        ]
        lines += ["", *_aligned(head, rows)]
    return "\n".join(lines)


def _sites(host: HostStatus) -> list[str]:
    head = ("SITE", "WORKER", "PEER", "SINCE", "RTT ms", "LOSS TX", "IN bytes", "OUT bytes")
    rows: list[tuple[str, ...]] = [
        (
            site.site,
            worker.name,
            f"{site.peer[0]} port {site.peer[1]}",
            duration(site.since),
            _milliseconds(site.path.rtt),
            _percent(site.path.loss_tx),
            str(site.bytes_in),
            str(site.bytes_out),
        )
        for worker in host.workers
        for site in worker.sites
    ]
    connected = {row[0] for row in rows}
    rows += [(name, *[_UNKNOWN] * (len(head) - 1)) for name in host.sites if name not in connected]
    unnamed = [f"{worker.name}: {worker.unnamed} more are connected" for worker in host.workers if worker.unnamed]
    return [*_aligned(head, sorted(rows)), *unnamed]


def _aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [head, *([printable(cell) for cell in row] for row in rows)]  # reasons are others' words
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _text(value: object | None) -> str:
    return _UNKNOWN if value is None else str(value)


def _milliseconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds * 1e3:.1f}"


def _with_unit(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{_milliseconds(seconds)} ms"


def _percent(ratio: float | None) -> str:
    return _UNKNOWN if ratio is None else f"{ratio:.1%}"


def _counters(counters: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counters.items())) or "none"
