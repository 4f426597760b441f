"""The pure parts of `make chaos`: the plan from a seed, whose fault a lost probe is, what is left behind."""

from __future__ import annotations

import math
from array import array
from collections import Counter

import msgspec

from tools.chaos.inventory import Inventory, differences
from tools.chaos.judge import Damage, Event, judge
from tools.chaos.kinds import BY_NAME, KINDS
from tools.chaos.plan import Fault, Place, make_plan
from tools.chaos.report import add_rows, by_kind, impact_lines, kinds_table
from tools.probe_report import ProbeStream
from tools.results import Results

PLACES = {
    f"{letter}{n}": Place(f"wan{n + 3}", f"mt{n + 3}.{name}", f"mt{n + 3}{letter}")
    for n in (1, 2, 3)
    for letter, name in (("c", "critical"), ("b", "bulk"))
}
S = 1_000_000_000
MS = 1_000_000


def fault(kind: str, *tunnels: str, number: int = 1) -> Fault:
    return Fault(number, kind, "site", tunnels[0] if tunnels else "zygote", 0.0, tunnels)


def stream(name: str, lost: range = range(0), *, reordered: tuple[int, ...] = (), way: str = "up") -> ProbeStream:
    """A probe every 10 ms from 0 to 20 s; the numbers of `lost` do not arrive."""
    sent = array("q", range(10 * MS, 20 * S, 10 * MS))
    return ProbeStream(
        name=name,
        way=way,
        sent=sent,
        arrived=[0 if n in lost else at + 10 * MS for n, at in enumerate(sent)],
        reordered=reordered,
        duplicated=(),
        refused=0,
        strays=0,
        overrun=0,
    )


# ---------------------------------------------------------------- the plan


def test_the_same_seed_gives_the_same_plan_and_a_longer_one_begins_with_the_shorter() -> None:
    plan = make_plan(7, 120, PLACES)
    assert make_plan(7, 120, PLACES) == plan
    assert make_plan(7, 50, PLACES) == plan[:50]
    assert make_plan(8, 50, PLACES) != plan[:50]
    assert [f.number for f in plan] == list(range(1, 121))


def test_a_round_holds_every_kind_as_often_as_its_weight_says() -> None:
    size = sum(kind.weight for kind in KINDS)
    for begin in (0, size):
        dealt = Counter(f.kind for f in make_plan(3, 2 * size, PLACES)[begin : begin + size])
        assert dealt == {kind.name: kind.weight for kind in KINDS}


def test_a_fault_names_its_victim_and_the_tunnels_that_it_may_touch() -> None:
    for f in make_plan(1, 400, PLACES):
        kind = BY_NAME[f.kind]
        assert f.side in kind.sides
        assert kind.lasting[0] <= f.seconds <= kind.lasting[1]
        if kind.scope == "none":
            assert f.tunnels == ()
            continue
        match kind.victim, f.side:
            case "worker" | "tun", "site":
                assert f.tunnels == (f.victim,)
            case "worker", _:
                assert [PLACES[t].hub_worker for t in f.tunnels] == [f.victim]
            case "tun", _:
                assert [PLACES[t].hub_tun for t in f.tunnels] == [f.victim]
            case "wan", _:
                assert {PLACES[t].wan for t in f.tunnels} == {f.victim}
                assert len(f.tunnels) == 2
            case _:
                assert f.victim == kind.victim
                assert f.tunnels == tuple(PLACES)


# ---------------------------------------------------------------- the judge


def test_a_loss_belongs_to_the_fault_of_its_tunnel() -> None:
    event = Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 5 * S + 80 * MS)
    verdict = judge([event], [stream("b2", range(500, 510)), stream("b2", way="down"), stream("c2")])
    assert verdict.violations == []
    assert verdict.impacts[0].damages == (Damage("b2", "up", 10, 1, 100.0, 0),)
    assert (verdict.impacts[0].outage_ms, verdict.impacts[0].lost) == (100.0, 10)


def test_two_gaps_are_one_outage_from_the_first_to_the_last() -> None:
    event = Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 6 * S)
    damaged = msgspec.structs.replace(stream("b2", range(500, 510)))
    damaged = msgspec.structs.replace(
        damaged, arrived=[0 if n == 600 else at for n, at in enumerate(damaged.arrived)]
    )
    assert judge([event], [damaged]).impacts[0].damages == (Damage("b2", "up", 11, 2, 1010.0, 0),)


def test_a_neighbours_loss_is_a_violation() -> None:
    event = Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 6 * S, {"site c2 codel": 3})
    verdict = judge([event], [stream("c2", range(500, 503))])
    assert verdict.unexcused == 3
    assert verdict.violations == [
        f"c2 up: 3 lost, 0.01 to 0.03 s after the beginning of {event.fault}; the site counted 3 codel"
    ]
    assert verdict.impacts[0].damages == ()


def test_a_tunnel_that_was_silent_before_a_fault_was_not_broken_by_it() -> None:
    event = Event(fault("worker.kill", "b2"), 8 * S, 8 * S, 8 * S + 80 * MS)
    verdict = judge([event], [stream("b2", range(701, 799))])
    assert verdict.unexcused == 72  # all but what is sent in the time of a way, and 250 ms
    assert verdict.impacts[0].lost == 26


def test_a_tunnel_that_has_recovered_is_not_excused_again() -> None:
    event = Event(fault("worker.kill", "b2"), 8 * S, 8 * S, 8 * S + 80 * MS)
    again = range(810 + 100, 810 + 150)
    damaged = stream("b2", range(799, 810))
    arrived = [0 if n in again else at for n, at in enumerate(damaged.arrived)]
    verdict = judge([event], [msgspec.structs.replace(damaged, arrived=arrived)])
    assert verdict.unexcused == 50
    assert verdict.impacts[0].lost == 11


def test_probes_that_come_too_late_and_those_that_are_not_sent_are_violations() -> None:
    event = Event(fault("worker.restart"), 8 * S, 9 * S, 9 * S)
    whole = stream("c2")
    late = msgspec.structs.replace(
        whole, arrived=[at + (1200 * MS if n == 900 else 10 * MS) for n, at in enumerate(whole.sent)]
    )
    assert [v.split(",")[0] for v in judge([event], [late]).violations] == ["c2 up: 1 more than a second late"]
    kept = [n for n in range(len(whole.sent)) if not 750 < n < 860]
    unwatched = msgspec.structs.replace(
        whole, sent=[whole.sent[n] for n in kept], arrived=[whole.arrived[n] for n in kept]
    )
    assert judge([event], [unwatched]).violations == ["c2 up: no probe was sent for 1.1 s"]
    assert judge([event], [msgspec.structs.replace(whole, sent=[], arrived=[])]).violations == [
        "c2 up: no probe was sent for 3.0 s"
    ]


def test_what_comes_before_any_fault_too_late_or_after_the_next_one_is_not_excused() -> None:
    first = Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 6 * S)
    late = round(BY_NAME["worker.kill"].bound * 100) + 501
    assert "before any fault" in judge([first], [stream("b2", range(100, 101))]).violations[0]
    assert judge([first], [stream("b2", range(late, late + 1))]).unexcused == 1
    second = Event(fault("zygote.kill", number=2), 7 * S, 7 * S, 7 * S)
    verdict = judge([first, second], [stream("b2", range(720, 722))])
    assert verdict.unexcused == 2
    assert str(second.fault) in verdict.violations[0]


def test_overtaken_probes_count_and_doubled_ones_are_never_excused() -> None:
    event = Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 6 * S)
    assert judge([event], [stream("b2", reordered=(510,))]).impacts[0].damages == (Damage("b2", "up", 0, 0, 0.0, 1),)
    assert judge([event], [stream("c2", reordered=(510,))]).unexcused == 1
    doubled = msgspec.structs.replace(stream("b2"), duplicated=(510,), strays=2)
    verdict = judge([event], [doubled])
    assert verdict.unexcused == 1
    assert verdict.violations[1] == "b2 up: 2 packets that are not this tunnel's"


def test_not_up_in_time_is_a_violation() -> None:
    verdict = judge([Event(fault("zygote.kill"), 5 * S, 5 * S, None)], [stream("b2")])
    assert verdict.violations == [f"not everything UP in time after {fault('zygote.kill')}"]


# ---------------------------------------------------------------- the outcome


def test_figures_and_table_are_by_kind() -> None:
    events = [
        Event(fault("worker.kill", "b2"), 5 * S, 5 * S, 5 * S + 90 * MS),
        Event(fault("zygote.kill", number=2), 9 * S, 9 * S, None),
    ]
    streams = [stream("b2", range(500, 510))]
    verdict = judge(events, streams)
    results = Results.here()
    add_rows(results, verdict, streams)
    values = {row.id: row.value for row in results.rows}
    assert values["chaos.probes.lost"] == values["chaos.probes.lost_by_their_fault"] == 10
    assert (values["chaos.worker.kill.outage.max"], values["chaos.worker.kill.all_up"]) == (100, 90)
    assert values["chaos.zygote.kill.outage.p50"] == 0
    assert math.isnan(values["chaos.zygote.kill.all_up"])
    assert values["chaos.violations"] == 1
    assert list(by_kind(verdict.impacts)) == ["worker.kill", "zygote.kill"]
    assert kinds_table(verdict.impacts).row_count == 2
    lines = list(impact_lines(verdict.impacts))
    assert lines == [str(events[0].fault), "       b2 up: 10 lost, 100 ms, 1 gaps, 0 overtaken", str(events[1].fault)]


# ---------------------------------------------------------------- what is left behind


def inventory(sockets: int, pidfds: int, megabytes: int, *links: str) -> Inventory:
    return Inventory(
        descriptors={"site zygote": {"socket:": sockets, "anon_inode:[pidfd]": pidfds}},
        memory={"site zygote": megabytes * 1_000_000},
        network={"site links": ["lo", *links]},
        processes={"site": 11 + len(links)},
    )


def test_differences_are_told_in_words() -> None:
    before = inventory(3, 9, 30)
    assert differences(before, before) == []
    assert differences(before, inventory(3, 2, 33)) == []
    assert differences(before, inventory(5, 9, 40, "br2")) == [
        "site zygote: descriptors +2 socket:",
        "site zygote: grew from 30.0 to 40.0 MB",
        "site: 12 processes, 11 before",
        "site links: +1 br2",
    ]
