"""One after the other."""

from __future__ import annotations

from mpq_supervisor.life import Life, State
from mpq_supervisor.rolling import PATIENCE, RETRY, Rolling, is_ripe


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
    assert "br1" in rolling
    rolling.clear()
    assert "br1" not in rolling
    assert list(rolling.due(200.0, settled.__contains__)) == []


def test_an_outdated_worker_is_replaced_once_it_has_settled_and_after_a_failure_only_while_it_is_up() -> None:
    assert [state for state in (State.STARTING, State.DEGRADED, State.UP) if is_ripe(Life(state), 0.0)] == [
        State.DEGRADED,
        State.UP,
    ]
    failed = Life(State.UP, since=100.0, failed_restarts=1)
    assert not is_ripe(failed, 100.0 + RETRY - 0.1)
    assert is_ripe(failed, 100.0 + RETRY)
    assert not is_ripe(Life(State.DEGRADED, since=100.0, failed_restarts=1), 1000.0)
