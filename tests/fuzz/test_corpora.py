"""Every input that fuzzing has found worth keeping, and every one that once broke something, breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import add_up
from tests.fuzz.corpus import CORPORA, inputs
from tests.fuzz.native import NAMES
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = TARGETS[name]()
    paths = inputs(name)
    assert len(paths) >= 3
    for path in paths:
        try:
            target(path.read_bytes())
        except BaseException as error:
            error.add_note(f"input: {path}")
            raise


def test_every_corpus_has_its_target() -> None:
    assert {path.name for path in CORPORA.iterdir()} == {*TARGETS, *NAMES}


def test_executions_are_added_up_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "executions.json"
    assert add_up(path, "frames", 70) == {"frames": 70}
    assert add_up(path, "ctl", 5) == {"frames": 70, "ctl": 5}
    assert add_up(path, "frames", 30) == {"frames": 100, "ctl": 5}
