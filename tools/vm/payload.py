"""What goes into the machine: the package, its tests, the tools they use, and what to do with them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

_TREES = ("tests/vm", "tools")
_FILES = ("tests/__init__.py", "setup.cfg")


def write(archive: Path, root: Path, package: Path, groups: Sequence[str]) -> None:
    """An archive to be unpacked into an empty directory, in which `run` is then called for these groups of tests."""
    sources = [path for tree in _TREES for path in sorted((root / tree).rglob("*.py"))]
    with tarfile.open(archive, "w") as tar:
        for path in [*sources, *(root / name for name in _FILES)]:
            tar.add(path, path.relative_to(root))
        tar.add(root / "tests/vm/run", "run")
        tar.add(package, package.name)
        only = tarfile.TarInfo("tests/vm/only")
        only.size = len(text := " ".join(groups).encode())
        tar.addfile(only, io.BytesIO(text))
