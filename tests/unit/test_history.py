"""The history: nothing that was committed is lost, means are right at each level, the size stays bounded."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpq_supervisor.__main__ import main
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.history import store as store_module
from mpq_supervisor.portal.history.draw import MAX_EVENTS, chart
from mpq_supervisor.portal.history.layout import DAY, HOUR, LEVELS, MINUTES, SECONDS, TENS
from mpq_supervisor.portal.history.query import History, Point, Series, resolution
from mpq_supervisor.portal.history.recorder import Recorder
from mpq_supervisor.portal.history.samples import Batch, Event, Row, Sampler
from mpq_supervisor.portal.history.sketch import ACCURACY, Sketch
from mpq_supervisor.portal.history.store import FILE_NAME, Store
from mpq_supervisor.portal.messages import WorkerSample
from tests.unit.samples import WORKER, changed, state_with

T = 1_800_000_000 // DAY * DAY  # a midnight


def row(name: str = "cr2", *, up: bool = True, rtt: int | None = 20_000, sent: int = 100, loss: int = 0) -> Row:
    return Row(name, "tunnel", "wan5", "critical", up, True, rtt, 300, loss, None, 50, sent, 1)


def batch(t: int, *rows: Row, events: tuple[Event, ...] = ()) -> Batch:
    return Batch(t, rows or (row(),), events)


def point_at(t: int) -> Point:
    return Point(t, 10, 1.0, None, None, None, None, None, 0, 0, 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, 16)
    yield store
    store.close()


def count(directory: Path, table: str) -> int:
    with sqlite3.connect(directory / FILE_NAME) as database:
        (number,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    database.close()
    return int(number)


# ---------------------------------------------------------------- samples


def test_rows_tell_growth_and_a_class_is_up_while_one_tunnel_is() -> None:
    state, sampler = state_with(WORKER, changed(name="cr3", wan="wan6", state=Life.DEGRADED)), Sampler()
    first = {found.series: found for found in sampler.rows(state, 2.0)}
    assert (first["cr2"].bytes_out, first["cr2"].rtt, first["cr2"].loss_tx) == (0, 21_400, 1000)
    state.take(WorkerSample(2.0, changed(bytes_out=102, drops={"codel": 4})), 2.0)
    state.take(WorkerSample(2.0, changed(name="cr3", wan="wan6", state=Life.STOPPED, bytes_out=12)), 2.0)
    second = {found.series: found for found in sampler.rows(state, 3.0)}
    assert (second["cr2"].bytes_out, second["cr2"].drops) == (100, 2)
    critical = second["critical"]
    assert (critical.kind, critical.up, critical.counted, critical.bytes_out) == ("class", True, True, 110)
    assert (second["cr3"].up, second["cr3"].counted) == (False, False)
    assert sampler.rows(state, 60.0) == ()  # nothing heard for a minute


# ---------------------------------------------------------------- levels


def test_every_level_has_the_mean_of_its_seconds(store: Store, tmp_path: Path) -> None:
    values = [random.Random(1).randrange(10_000, 90_000) for _ in range(600)]
    for second, rtt in enumerate(values):
        store.add(batch(T + second, row(rtt=rtt if second % 3 else None, up=second % 2 == 0, sent=second)))
    store.add(batch(T + 600))
    history = History(tmp_path)
    for level in LEVELS:
        series = history.series("cr2", T, T + 600, 600 // level.step, T + 600)
        assert (series.step, len(series.points)) == (level.step, 600 // level.step)
        assert sum(point.bytes_out for point in series.points) == sum(range(600))
        for place, point in enumerate(series.points):
            part = range(place * level.step, (place + 1) * level.step)
            known = [values[second] / 1e6 for second in part if second % 3]
            assert point.seconds == level.step
            assert point.up == pytest.approx(sum(second % 2 == 0 for second in part) / level.step)
            if known:
                # each of the two roll-ups rounds down to a microsecond; the weights of missing values are of seconds
                assert point.rtt == pytest.approx(sum(known) / len(known), abs=3e-3)
                assert point.rtt_max == max(known)


@pytest.mark.parametrize("seconds", [7, 295, 597, 1205])
def test_the_newest_seconds_are_in_every_resolution(store: Store, tmp_path: Path, seconds: int) -> None:
    """Those that are not rolled up yet come from the finer levels, and none comes twice."""
    for second in range(seconds):
        store.add(batch(T + second, row(up=second < seconds - 3)))
    for points in (1, seconds // 300, seconds // 10, seconds):
        for now in (T + seconds, T + 3 * HOUR, T + 3 * DAY):  # beyond what the seconds, and the tens, are kept
            found = History(tmp_path).series("cr2", T, T + seconds, max(1, points), now).points
            assert sum(point.seconds for point in found) == seconds
            assert sum(point.bytes_out for point in found) == 100 * seconds
            assert round(sum((point.up or 0) * point.seconds for point in found)) == seconds - 3


def test_the_first_point_is_drawn_first() -> None:
    (line, *_) = chart(Series("br2", 10, (point_at(T),)), (), T + 5, T + 30).splitlines()[4:5]
    assert line[13:] == "█"


def test_gaps_are_gaps(store: Store, tmp_path: Path) -> None:
    for second in (0, 1, 2, 50, 51):
        store.add(batch(T + second))
    points = History(tmp_path).series("cr2", T, T + 60, 60, T + 60).points
    assert [point.t - T for point in points] == [0, 1, 2, 50, 51]
    assert History(tmp_path).series("nobody", T, T + 60, 60, T + 60).points == ()


@pytest.mark.parametrize(
    ("ago", "span", "points", "table", "step"),
    [
        (600, 600, 600, "s1", 1),
        (3600, 3600, 300, "s10", 10),
        (7200, 60, 300, "s10", 10),  # the seconds of then are gone
        (DAY, DAY, 300, "s10", 290),
        (DAY, DAY, 200, "s300", 300),
        (30 * DAY, 30 * DAY, 300, "s300", 8700),
        (400 * DAY, DAY, 300, "s300", 300),
        (20_000 * DAY, 20_000 * DAY, 100_000, "s300", 300),  # no coarser for years of which there is nothing
        (3600, 80 * 366 * DAY, 3600, "s1", 1),
    ],
)
def test_resolution(ago: int, span: int, points: int, table: str, step: int) -> None:
    level, found = resolution(T - ago, T - ago + span, points, T)
    assert (level.table, found) == (table, step)


@pytest.mark.parametrize("name", ["a?mode=rwc", "a#b", "a%41", "a b&c"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    store = Store(directory, 16)
    store.add(batch(T))
    assert History(directory).names() == ["cr2"]
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_time_to_look_back_is_one_that_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, why in (
        ("9999999d", "longer than the 366d that are kept"),
        ("1y", "no time such as"),
        ("0s", "no time"),
    ):
        with pytest.raises(SystemExit):
            main(["history", "br2", "--since", text, "--config", str(tmp_path / "none")])
        assert why in capsys.readouterr().err
    assert main(["history", "br2", "--since", "366d", "--config", str(tmp_path / "none")]) == 78


def test_events_that_are_not_drawn_are_counted() -> None:
    events = [Event(T + n, "state", 20, f"event {n}.") for n in range(MAX_EVENTS + 4)]
    drawn = chart(Series("br2", 1, ()), events, T, T + 1)
    assert "4 earlier events are not shown (--json has all)" in drawn
    assert "event 3." not in drawn
    assert "event 4." in drawn
    assert "not shown" not in chart(Series("br2", 1, ()), events[4:], T, T + 1)


def test_what_others_have_said_stays_in_its_line() -> None:
    event = Event(T, "audit", 20, "ann: \x1b[2Jsilence\n2026-01-01 INFO bob \u202e")
    (last,) = chart(Series("br2", 1, ()), (event,), T, T + 1).splitlines()[-1:]
    assert last.endswith("audit       ann: \\x1b[2Jsilence\\n2026-01-01 INFO bob \\u202e")


# ---------------------------------------------------------------- what must not be lost


def test_a_new_run_finishes_what_the_last_one_left(tmp_path: Path) -> None:
    for begin in (0, 7, 15):  # each killed in the middle of a bucket
        store = Store(tmp_path, 16)
        for second in range(begin, begin + 7):
            store.add(batch(T + second))
        store.close()
    store = Store(tmp_path, 16)
    points = History(tmp_path).series("cr2", T, T + 300, 1, T + 300).points
    assert sum(point.bytes_out for point in points) == 2100
    tens = History(tmp_path).series("cr2", T, T + 30, 3, T + 3 * HOUR).points
    assert [point.seconds for point in tens] == [10, 9, 2]
    (day,) = [volume for volume in History(tmp_path).days(T // DAY, T // DAY)]
    assert (day.seen, day.up, day.bytes_out) == (21, 21, 2100)
    store.close()


def test_a_clock_set_back_overwrites_nothing(store: Store, tmp_path: Path) -> None:
    for second in range(100):
        store.add(batch(T + second, row(rtt=10_000)))
    for second in range(40, 100):
        store.add(batch(T + second, row(rtt=30_000)))
    assert count(tmp_path, "s1") == 160
    points = History(tmp_path).series("cr2", T + 40, T + 100, 60, T + 100).points
    assert {(point.seconds, point.rtt, point.bytes_out) for point in points} == {(2, 0.02, 200)}
    (event,) = History(tmp_path).events(0, T * 2, 10)
    assert (event.reason, event.text) == ("clock", "the clock was set back by 59 s")


def test_a_second_that_comes_twice_is_added_up(store: Store, tmp_path: Path) -> None:
    for second in (0, 1, 1, 0, 2):
        store.add(batch(T + second))
    points = History(tmp_path).series("cr2", T, T + 10, 10, T + 10).points
    assert [(point.t - T, point.seconds, point.bytes_out) for point in points] == [
        (0, 1, 100), (1, 3, 300), (2, 1, 100),
    ]  # fmt: skip


def test_a_clock_that_jumps_far_ahead_and_back_does_not_empty_the_file(store: Store, tmp_path: Path) -> None:
    for second in range(0, 3600, 10):
        store.add(batch(T + second))
    before = count(tmp_path, "s1")
    for second in range(120):
        store.add(batch(T + 400 * DAY + second))
    store.add(batch(T + 3600))
    assert count(tmp_path, "s1") > before / 2


# ---------------------------------------------------------------- bounds


def test_each_level_is_kept_for_its_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {level: level._replace(keep=level.step * 200) for level in LEVELS}
    monkeypatch.setattr(store_module, "LEVELS", tuple(short.values()))
    for second in range(4000):
        store.add(batch(T + second))
    for level, least in ((SECONDS, 200), (TENS, 200), (MINUTES, 13)):
        assert least <= count(tmp_path, level.table) <= least + 120


def test_a_full_file_gives_up_its_oldest(tmp_path: Path) -> None:
    """The recorder trims when the limit is met, goes on, and says what it missed."""
    recorder = Recorder(tmp_path, 1)
    rows = [row(f"t{n}") for n in range(400)]
    for second in range(150):
        recorder.record(batch(T + second, *rows))
    assert recorder.lost == 0
    assert recorder.bytes <= 1_000_000
    newest = History(tmp_path).series("t0", T + 130, T + 150, 20, T + 150).points
    assert len(newest) == 20
    assert count(tmp_path, "s1") < 150 * 400


def test_the_recorder_never_waits(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 16)  # its thread is not running: a disk that hangs
    for second in range(500):
        recorder.put(batch(T + second))
    assert recorder.lost == 380


def test_without_a_directory_it_goes_on_and_marks_the_gap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "later"
    recorder = Recorder(directory, 16)
    recorder.start()
    with caplog.at_level(logging.INFO):
        for second in range(5):
            recorder.put(batch(T + second))
        while recorder.lost < 5:
            pass
        directory.mkdir()
        recorder.put(batch(T + 5))
        recorder.close()
    (event,) = History(directory).events(0, T * 2, 10)
    assert event.text == "nothing is recorded of 5 s"
    assert [record.message for record in caplog.records] == [
        "history: unable to open database file; the tunnels go on without it", "history: goes on",
    ]  # fmt: skip


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_was_removed_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, other: bool) -> None:
    recorder = Recorder(tmp_path, 16)
    recorder.record(batch(T))
    (tmp_path / FILE_NAME).rename(tmp_path / "taken")
    if other:
        Store(tmp_path, 16).close()
    recorder.record(batch(T + 1))
    recorder.record(batch(T + 2))
    history = History(tmp_path)
    assert [point.t - T for point in history.series("cr2", T, T + 10, 10, T + 10).points] == [1, 2]
    (event,) = history.events(0, T * 2)
    assert (event.kind, event.reason, event.t) == ("history", "removed", T + 1)
    assert recorder.lost == 0
    (record,) = caplog.records
    assert record.message == f"history: {tmp_path / FILE_NAME} was removed; another is begun"


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"nonsense" * 1000)
    recorder = Recorder(tmp_path, 16)
    recorder.start()
    for second in range(3):
        recorder.put(batch(T + second))
    recorder.close()
    assert (tmp_path / "history.damaged").read_bytes().startswith(b"nonsense")
    assert len(History(tmp_path).series("cr2", T, T + 10, 10, T + 10).points) == 2


# ---------------------------------------------------------------- events, days


def test_events_are_found_by_time_kind_and_tunnel(store: Store, tmp_path: Path) -> None:
    events = tuple(
        Event(T + n, "state" if n % 2 else "exit", 20, f"event {n}", tunnel="br2" if n < 5 else "", reason="r")
        for n in range(10)
    )
    store.add(batch(T, events=events))
    history = History(tmp_path)
    assert [event.text for event in history.events(T + 7, T + 9, 10)] == ["event 7", "event 8"]
    assert [event.text for event in history.events(0, T * 2, 2)] == ["event 8", "event 9"]
    assert len(history.events(0, T * 2, 100, kind="state", tunnel="br2")) == 2
    last = history.events(0, T * 2, 1)[0]
    assert [event.text for event in history.events(0, T * 2, 1, before=last.id)] == ["event 8"]


def test_events_of_a_series_are_those_of_its_tunnels_and_their_wans(store: Store, tmp_path: Path) -> None:
    def row_of(name: str, wan: str, traffic_class: str, kind: str = "tunnel") -> Row:
        return row()._replace(series=name, kind=kind, wan=wan, traffic_class=traffic_class)

    events = (
        Event(T, "state", 20, "of cr2", "cr2", "wan5", "critical"),
        Event(T, "state", 20, "of br2", "br2", "wan6", "bulk"),
        Event(T, "link", 30, "of wan5", wan="wan5"),
        Event(T, "link", 30, "of wan6", wan="wan6"),
        Event(T, "order", 20, "of all"),
    )
    rows = row_of("cr2", "wan5", "critical"), row_of("br2", "wan6", "bulk"), row_of("bulk", "", "bulk", "class")
    store.add(batch(T, *rows, events=events))

    def of(name: str) -> list[str]:
        return [event.text for event in History(tmp_path).events(0, T * 2, name=name)]

    assert of("cr2") == ["of cr2", "of wan5"]
    assert of("br2") == of("bulk") == ["of br2", "of wan6"]
    assert len(of("")) == 5


def test_notices_push_nothing_else_out(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by their number nor, in a file that is full, by their size."""
    monkeypatch.setattr(store_module, "MAX_EVENTS", 100)
    store.add(batch(T, events=(Event(T, "audit", 20, "ann: stop br2"),)))
    for second in range(1, 122):
        store.add(batch(T + second, events=(Event(T, "notice", 20, f"{second}"),) * 10))
    kept = History(tmp_path).events(0, T * 2)
    assert (kept[0].kind, kept[-1].text) == ("audit", "121")
    assert 100 < len(kept) < 100 + 10 * 61
    for _ in range(10):
        store.trim()
    trimmed = History(tmp_path).events(0, T * 2)
    assert trimmed[0].kind == "audit"
    assert 1 < len(trimmed) < len(kept) / 2
    assert trimmed[1:] == kept[1 - len(trimmed) :]


def test_a_day_has_its_quantiles(store: Store, tmp_path: Path) -> None:
    for second in range(1000):
        store.add(batch(T + second, row(rtt=(second + 1) * 100, loss=1000 if second < 100 else 0, up=second >= 10)))
    store.add(batch(T + 1200))
    (day,) = History(tmp_path).days(T // DAY, T // DAY)
    assert (day.seen, day.up, day.bytes_in, day.bytes_out) == (1000, 990, 50_000, 100_000)
    assert day.rtt["p50"] == pytest.approx(0.05, rel=2 * ACCURACY)
    assert day.rtt["p99"] == pytest.approx(0.099, rel=2 * ACCURACY)
    assert day.loss["p50"] == 0.0
    assert day.loss["p95"] == pytest.approx(0.001, rel=2 * ACCURACY)


def test_sketches_add_up() -> None:
    chance = random.Random(7)
    values = sorted(chance.lognormvariate(-3, 1) for _ in range(2000))
    parts = [Sketch(), Sketch()]
    for place, value in enumerate(values):
        parts[place % 2].add(value)
    whole = Sketch.decode(parts[0].encode())
    whole.merge(parts[1])
    for share in (0.0, 0.01, 0.5, 0.95, 0.999, 1.0):
        assert whole.quantile(share) == pytest.approx(values[round(share * 1999)], rel=0.05)
    assert Sketch().quantile(0.5) is None
