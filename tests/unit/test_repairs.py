"""Lines about what was put back: all of a burst in one, and not one for each when it never ends."""

from __future__ import annotations

from mpq_supervisor.repairs import AT_ONCE, NAMED, PAUSE, Repairs


def test_a_burst_is_one_line() -> None:
    repairs = Repairs()
    assert repairs.line([], 100.0) is None
    assert repairs.line(["rule 1", "route 2"], 100.0) == "put back what was gone: rule 1, route 2"
    things = [f"route {n}" for n in range(NAMED + 3)]
    assert repairs.line(things, 100.0) == f"put back what was gone: {', '.join(things[:NAMED])} and 3 more"


def test_who_does_it_for_ever_gets_a_line_now_and_then() -> None:
    repairs = Repairs()
    told = [line for tenth in range(600) if (line := repairs.line(["rule 1"], 100.0 + tenth / 10)) is not None]
    assert AT_ONCE + 60 / PAUSE - 1 <= len(told) <= AT_ONCE + 60 / PAUSE
    assert told[-1].endswith(f"({round(PAUSE * 10) - 1} such lines before it left out)")
    assert told[0] == "put back what was gone: rule 1"
