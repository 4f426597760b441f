"""Every input that fuzzing has found worth keeping, and every one that once broke something, breaks nothing."""

from __future__ import annotations

import pytest

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
