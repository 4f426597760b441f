"""The outcome of a run as figures and as a table. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.table import Table

from tools.chaos.judge import Impact, Verdict
from tools.probe_report import ProbeStream
from tools.results import Results, percentile

_HEADINGS = ("fault", "count", "without loss", "p50 ms", "p99 ms", "max ms", "probes lost", "gaps", "all UP ms")


def by_kind(impacts: Sequence[Impact]) -> dict[str, list[Impact]]:
    """The impacts of each kind that came, by its name."""
    kinds: dict[str, list[Impact]] = defaultdict(list)
    for impact in impacts:
        kinds[impact.event.fault.kind].append(impact)
    return dict(sorted(kinds.items()))


def add_rows(results: Results, verdict: Verdict, streams: Sequence[ProbeStream]) -> None:
    """Probes accounted for, violations, and for each kind its outages and the time until all was UP."""
    sent, missing = sum(len(stream.sent) for stream in streams), sum(stream.lost for stream in streams)
    excused = sum(impact.lost for impact in verdict.impacts)
    results.add("chaos.probes.sent", [sent], "probes")
    results.add("chaos.probes.lost", [missing], "probes")
    results.add("chaos.probes.lost_by_their_fault", [excused], "probes")
    results.add("chaos.probes.unexcused", [verdict.unexcused], "probes lost, overtaken or doubled", target=0)
    delays = [stream.delay() for stream in streams]
    results.add("chaos.delay.p50", [delay.p50_ms for delay in delays], "ms, one way, each tunnel and direction")
    results.add("chaos.delay.p99", [delay.p99_ms for delay in delays], "ms, one way, each tunnel and direction")
    results.add("chaos.violations", [len(verdict.violations)], "violations", target=0)
    for kind, impacts in by_kind(verdict.impacts).items():
        outages = [impact.outage_ms for impact in impacts]
        results.add(f"chaos.{kind}.outage.p50", outages, "ms")
        results.add(f"chaos.{kind}.outage.p99", [percentile(sorted(outages), 99)], "ms")
        results.add(f"chaos.{kind}.outage.max", [max(outages)], "ms")
        results.add(
            f"chaos.{kind}.lost", [sum(impact.lost for impact in impacts)], f"probes in {len(impacts)} faults"
        )
        results.add(f"chaos.{kind}.all_up", _until_up(impacts), "ms")


def kinds_table(impacts: Sequence[Impact]) -> Table:
    """Outages by kind of fault, for people."""
    table = Table(
        title="outage of the tunnels in a fault's scope: first lost probe to the first after the last lost one"
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "fault" else "right", no_wrap=True)
    for kind, of_kind in by_kind(impacts).items():
        outages = sorted(impact.outage_ms for impact in of_kind)
        ups = sorted(_until_up(of_kind))
        table.add_row(
            kind,
            str(len(of_kind)),
            str(sum(1 for impact in of_kind if not impact.lost)),
            *(f"{percentile(outages, percent):.0f}" for percent in (50, 99, 100)),
            str(sum(impact.lost for impact in of_kind)),
            str(max((damage.gaps for impact in of_kind for damage in impact.damages), default=0)),
            f"{percentile(ups, 50):.0f}",
        )
    return table


def impact_lines(impacts: Sequence[Impact]) -> Iterator[str]:
    """Every fault, and below it what it cost each tunnel and direction."""
    for impact in impacts:
        yield str(impact.event.fault)
        for d in impact.damages:
            gaps = f"{d.gaps} gaps, {d.reordered} overtaken"
            yield f"       {d.tunnel} {d.way}: {d.lost} lost, {d.outage_ms:.0f} ms, {gaps}"
        if impact.event.drops:
            yield f"       dropped: {', '.join(f'{count} {who}' for who, count in impact.event.drops.items())}"


def _until_up(impacts: Sequence[Impact]) -> list[float]:
    """From each fault's beginning to everything UP, ms; nan where that was not in time."""
    events = [impact.event for impact in impacts]
    return [float("nan") if e.up_ns is None else (e.up_ns - e.begin_ns) / 1e6 for e in events]
