"""What is installed beside the modules, and the Makefile that does it."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_page_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    portal = ROOT / "mpq_supervisor/portal"
    patterns = setup["options.package_data"]["mpq_supervisor.portal"].split(", ")
    installed = {path for pattern in patterns for path in portal.glob(pattern) if path.is_file()}
    assert installed == {path for path in (portal / "static").rglob("*") if path.is_file()}


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = makefile.partition(".PHONY:")[2].partition("\n\n")[0].replace("\\", " ").split()
    shown = {line.partition(":")[0] for line in makefile.splitlines() if " ## " in line}
    assert set(phony) - shown == {"help", "install-files"}
