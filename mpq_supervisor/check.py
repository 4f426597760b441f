"""`mpq-supervisor check FILE`: every problem of a configuration, or what would run with it.

It reads by the same `config.accept` as `run` and `reload` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mpq_supervisor.config import ConfigError, accept, read
from mpq_supervisor.events import class_word
from mpq_supervisor.pki import describe_validity
from mpq_supervisor.plan import HostPlan, LanPlan, make_plan
from mpq_worker.contract import ExitCode, TrafficClass


def main(path: Path) -> int:
    """Prints `FILE: path: text` for each problem and returns 78, or a summary and 0."""
    try:
        plan = make_plan(accept(read(path), whole=True))
    except ConfigError as error:
        for problem in error.problems:
            print(f"{path}: {problem}")
        return ExitCode.CONFIG
    certificate = x509.load_pem_x509_certificate(Path(plan.identity.certificate).read_bytes())
    print(f"{path}: good")
    print(f"{plan.role} {plan.name}, certificate {describe_validity(certificate, datetime.now(UTC))}")
    for line in summary(plan):
        print(line)
    return ExitCode.OK


def summary(plan: HostPlan) -> list[str]:
    """What a plan runs, as the lines of a table."""
    if plan.role == "site":
        head = ["TUNNEL", "CLASS", "WAN", "HUB", "INNER", "SOURCE PORTS", "TABLE", "UID"]
        rows = [
            [
                tunnel.name,
                class_word(tunnel.traffic_class),
                tunnel.wan,
                f"{tunnel.hub_addresses[0]} port {tunnel.hub_port}",
                " ".join(tunnel.inner),
                " ".join(map(str, tunnel.source_ports)),
                str(tunnel.table),
                str(tunnel.uid),
            ]
            for tunnel in plan.tunnels
        ]
        return [*_table([head, *rows]), *map(_lan, plan.lans)]
    head = ["WORKER", "CLASS", "TUN", "PORT", "INNER", "SITES", "UID"]
    rows = [
        [
            worker.name,
            class_word(worker.traffic_class),
            worker.tun,
            str(worker.port),
            " ".join(worker.inner),
            str(sum(bool(site.inner) for site in worker.sites)),
            str(worker.uid),
        ]
        for worker in plan.hub_workers
    ]
    return _table([head, *rows])


def _lan(lan: LanPlan) -> str:
    ways = [f"{class_word(c)} {lan.tunnels.get(c, 'refused')}" for c in TrafficClass]
    if lan.traffic_class is not None:
        ways = [f"all {class_word(lan.traffic_class)} {lan.bound or 'refused'}"]
    return f"{lan.name} ({lan.interface}) by {lan.wan}: {', '.join(ways)}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    return (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
