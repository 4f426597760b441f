"""The corpora: for each target a directory of inputs. `seed…` were made by hand, the others found by `make fuzz`."""

from __future__ import annotations

from pathlib import Path

CORPORA = Path(__file__).with_name("corpora")


def inputs(name: str) -> list[Path]:
    """A target's inputs, in a fixed order."""
    return sorted((CORPORA / name).iterdir())
