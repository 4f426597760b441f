"""What is installed beside the modules."""

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
