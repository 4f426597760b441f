"""Every probe is accounted for: joining what both ends saw, losses, outages, delays."""

from __future__ import annotations

from array import array

import pytest

from tools.probe_report import Delay, Outage, ProbeStream, Record, join

MS = 1_000_000


def record(sent: list[int], arrived: list[int], reordered: tuple[int, ...] = (), name: str = "cr2") -> Record:
    def packed(values: list[int]) -> bytes:
        return array("q", values).tobytes()

    return Record(
        name=name,
        sent=packed([at * MS for at in sent]),
        arrived=packed([at * MS for at in arrived]),
        reordered=packed(list(reordered)),
        duplicated=packed([]),
        refused=0,
        strays=0,
        overrun=0,
    )


def up(sent: list[int], arrived: list[int], reordered: tuple[int, ...] = ()) -> ProbeStream:
    """The upward direction of one flow, the downward one being idle."""
    return join([record(sent, [])], [record([], arrived, reordered)])[0]


def test_join_pairs_each_senders_probes_with_the_others_arrivals() -> None:
    streams = join([record([10, 15], [31])], [record([20], [21, 26])])
    assert [(s.name, s.way, list(s.sent), list(s.arrived)) for s in streams] == [
        ("cr2", "up", [10 * MS, 15 * MS], [21 * MS, 26 * MS]),
        ("cr2", "down", [20 * MS], [31 * MS]),
    ]
    assert [stream.lost for stream in streams] == [0, 0]


def test_what_never_arrived_at_the_end_is_lost_too() -> None:
    stream = up([10, 15, 20], [21])
    assert (stream.lost, stream.losses_ns()) == (2, [15 * MS, 20 * MS])
    assert stream.outages() == [Outage(15 * MS, 20 * MS, 2)]


def test_a_number_that_was_never_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="cr2 up: 1 probes sent, cr2 got number 1"):
        up([10], [21, 26])
    with pytest.raises(ValueError, match="br2"):
        join([record([10], [])], [record([], [], name="br2")])


def test_outages_are_runs_of_losses_that_began_in_the_window() -> None:
    stream = up([10, 15, 20, 25, 30, 35], [21, 0, 0, 36, 0, 46])
    assert stream.outages() == [Outage(15 * MS, 25 * MS, 2), Outage(30 * MS, 35 * MS, 1)]
    assert [outage.ms for outage in stream.outages()] == [10, 5]
    assert stream.outages(20 * MS, 30 * MS) == [Outage(20 * MS, 25 * MS, 1)]
    assert stream.losses_ns(16 * MS, 30 * MS) == [20 * MS]
    assert stream.sent_in(15 * MS, 30 * MS) == 3


def test_what_was_under_way_begins_after_the_newest_that_had_arrived() -> None:
    stream = up([10, 15, 20, 25, 30], [21, 26, 0, 0, 51])
    assert stream.under_way_ns(27 * MS) == 20 * MS
    assert stream.under_way_ns(24 * MS) == 15 * MS
    assert stream.under_way_ns(5 * MS) == 10 * MS
    assert stream.under_way_ns(60 * MS) == 60 * MS
    silent = up(list(range(10, 3010, 10)), [21])
    assert silent.under_way_ns(2500 * MS) == 1500 * MS  # not as far back as it has been silent
    assert silent.under_way_ns(900 * MS) == 640 * MS  # as long as the last one took, and 250 ms


def test_reordered_probes_are_known_by_their_time() -> None:
    assert up([10, 15, 20], [40, 26, 31], (0,)).reordered_ns() == [10 * MS]


def test_delay_is_of_what_arrived_in_the_window() -> None:
    stream = up([10, 15, 20, 25], [21, 0, 40, 100])
    assert stream.delay(0, 25 * MS) == Delay(11.0, 20.0, 20.0)
