"""Questions to the report of an echo stream."""

from __future__ import annotations

import math

from tools.ping_report import StreamReport, Window

MS = 1_000_000
# Five probes, 10 ms apart, from t = 1 s; the second and third are lost, the fourth overtakes the fifth's wait.
REPORT = StreamReport(
    name="cr2",
    start_ns=1000 * MS,
    sent_us=[0, 10_000, 20_000, 30_000, 40_000],
    rtt_us=[20_000.0, None, None, 35_000.0, 21_000.0],
    reordered=1,
    duplicated=0,
    refused=0,
)


def test_a_window_counts_the_probes_sent_within_it() -> None:
    assert REPORT.window() == Window(sent=5, lost=2, p50_ms=21.0, p99_ms=35.0, max_ms=35.0)
    part = REPORT.window(1010 * MS, 1040 * MS)
    assert (part.sent, part.lost, part.max_ms) == (3, 2, 35.0)
    assert part.received_ratio == 1 / 3


def test_an_empty_window_has_no_figures() -> None:
    window = REPORT.window(2000 * MS)
    assert (window.sent, window.lost) == (0, 0)
    assert math.isnan(window.p50_ms)
    assert math.isnan(window.received_ratio)


def test_when_it_was_lost_and_when_it_came_back() -> None:
    assert REPORT.losses_ns() == [1010 * MS, 1020 * MS]
    assert REPORT.first_answer_ns(1005 * MS) == 1061 * MS  # to the fifth: 40 + 21, before 30 + 35
    assert REPORT.first_answer_ns(1041 * MS) is None


def test_what_was_under_way_begins_after_the_newest_that_had_been_answered() -> None:
    assert REPORT.under_way_ns(1015 * MS) == 1000 * MS
    assert REPORT.under_way_ns(1062 * MS) == 1040 * MS + 1  # the fifth overtook the fourth's wait
