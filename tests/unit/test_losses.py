"""Loss ratios over the last seconds."""

from __future__ import annotations

import msgspec

from mpq_supervisor.portal.losses import WINDOW, Losses
from mpq_supervisor.portal.messages import WorkerSample
from mpq_supervisor.portal.state import State
from tests.unit.samples import PATH, SETUP, changed


def heard(losses: Losses, state: State, now: float, **changes: object) -> None:
    """cr2 tells so of its path."""
    state.take(WorkerSample(now, changed(path=msgspec.structs.replace(PATH, **changes))), now)
    losses.hear(state.tunnels.values(), now)


def test_the_mean_is_of_the_window() -> None:
    losses, state = Losses(), State(SETUP)
    for now in range(5):
        heard(losses, state, float(now), loss_tx=0.4, loss_rx=None)
    heard(losses, state, WINDOW - 0.5, loss_tx=0.0, loss_rx=0.1)
    (tunnel,) = state.tunnels.values()
    assert losses.of(tunnel) == [(0.4 * 5 / 6, 0.1)]
    heard(losses, state, WINDOW + 3, loss_tx=None, loss_rx=None)
    assert losses.of(tunnel) == [(0.2, 0.1)]
    heard(losses, state, WINDOW * 2, loss_tx=None, loss_rx=None)
    assert losses.of(tunnel) == [(None, None)]


def test_paths_that_are_gone_are_forgotten() -> None:
    losses, state = Losses(), State(SETUP)
    heard(losses, state, 1.0, loss_tx=0.4)
    losses.hear([], 2.0)
    (tunnel,) = state.tunnels.values()
    assert losses.of(tunnel) == []
