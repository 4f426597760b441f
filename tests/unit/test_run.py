"""What a supervisor demands of its host before it touches anything."""

from __future__ import annotations

from pathlib import Path

import pyprctl
import pytest

from mpq_supervisor import run
from mpq_worker.errors import HostFault


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> set[pyprctl.Cap]:
    """Those that we seem to have."""
    state = pyprctl.CapState(effective=set(run.NEEDED), permitted=set(), inheritable=set())
    monkeypatch.setattr(pyprctl.CapState, "get_current", lambda: state)
    return state.effective


def test_missing_capabilities_are_named(capabilities: set[pyprctl.Cap]) -> None:
    run._demand(Path("/run/mpq"))
    capabilities -= {pyprctl.Cap.KILL, pyprctl.Cap.SETUID}
    with pytest.raises(HostFault, match="missing capabilities: CAP_KILL, CAP_SETUID;"):
        run._demand(Path("/run/mpq"))


@pytest.mark.usefixtures("capabilities")
def test_a_path_too_long_for_a_socket_is_refused() -> None:
    run._demand(Path("/" + "x" * (106 - len("/ctl.sock"))))
    with pytest.raises(HostFault, match="longer than the 107 bytes"):
        run._demand(Path("/" + "x" * (107 - len("/ctl.sock"))))
