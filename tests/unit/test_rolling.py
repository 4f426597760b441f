"""One after the other."""

from __future__ import annotations

from mpq_supervisor.rolling import PATIENCE, Rolling


def test_the_next_when_the_one_before_has_arrived() -> None:
    rolling, settled = Rolling(), set[str]()
    rolling.want(["br1", "br2", "br3"])
    rolling.want(["br2", "br4"])
    assert list(rolling.due(0.0, settled.__contains__)) == ["br1"]
    assert list(rolling.due(1.0, settled.__contains__)) == []
    settled.add("br1")
    assert list(rolling.due(1.0, settled.__contains__)) == ["br2"]
    rolling.want(["br1"])  # once more
    assert list(rolling.due(1.0 + PATIENCE - 0.1, settled.__contains__)) == []
    assert list(rolling.due(1.0 + PATIENCE, settled.__contains__)) == ["br3"]
    settled.add("br3")
    assert list(rolling.due(100.0, settled.__contains__)) == ["br4"]
    settled.add("br4")
    assert list(rolling.due(101.0, settled.__contains__)) == ["br1"]
    assert list(rolling.due(102.0, settled.__contains__)) == []
    assert list(rolling.due(103.0, settled.__contains__)) == []
    rolling.want(["br1", "br2"])
    rolling.clear()
    assert list(rolling.due(200.0, settled.__contains__)) == []
