"""A directory on a disk that fails, and a machine that ends, at any of the steps that make a file last."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest


class Ended(BaseException):
    """The process was killed, or the power was cut."""


class Disk:
    """Of the files of `directory` whose names have `stem` in them. Each fsync, replace and unlink is a step. Killed,
    a process leaves what it did; after a power cut there are the names that the directory had when it was last
    synced, with what had been synced of each file."""

    def __init__(self, directory: Path, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory, self._stem = directory, stem
        for name in ("fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        self.begin()

    def begin(self, *, broken: Container[int] = (), ends_at: int | None = None) -> None:
        """All that is there lasts. From here on the steps count: those `broken` fail, at `ends_at` all ends."""
        self.steps, self._broken, self._ends_at = 0, broken, ends_at
        self._contents = {path.stat().st_ino: path.read_bytes() for path in self._files()}
        self._names = {path.name: path.stat().st_ino for path in self._files()}

    def end(self, *, power_cut: bool) -> None:
        """What the next start finds."""
        contents, names = self._contents, self._names
        self.begin()
        if power_cut:
            for path in self._files():
                path.unlink()
            for name, inode in names.items():
                (self._directory / name).write_bytes(contents.get(inode, b""))
        self.begin()

    def step(self) -> None:
        """Once the machine has ended it does nothing any more."""
        number = self.steps
        if number == self._ends_at:
            raise Ended
        self.steps += 1
        if number in self._broken:
            raise OSError(5, "Input/output error")

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.step()
            if call.__name__ != "fsync":
                return call(*args, **kwargs)
            self._note(Path(os.readlink(f"/proc/self/fd/{args[0]}")))
            return None

        return watched

    def _note(self, path: Path) -> None:
        if path.is_dir():
            self._names = {path.name: path.stat().st_ino for path in self._files()}
        else:
            self._contents[path.stat().st_ino] = path.read_bytes()

    def _files(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if self._stem in path.name]
