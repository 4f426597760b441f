"""`mpq-supervisor export`: what a configuration means to the programs beside mpq, in their own words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpq_supervisor.config import ConfigError, load
from mpq_supervisor.export_networkd import networkd
from mpq_supervisor.export_openwrt import TrunkFault, openwrt
from mpq_supervisor.files import write_atomically
from mpq_supervisor.plan import make_plan
from mpq_worker.contract import ExitCode

_CANNOT_WRITE = 73  # EX_CANTCREAT, sysexits.h


def add_arguments(parser: argparse.ArgumentParser, default: Path) -> None:
    """Of `export networkd` and `export openwrt`."""
    commands = parser.add_subparsers(dest="format", required=True, metavar="COMMAND")
    files = commands.add_parser("networkd", help="files of systemd-networkd for this host")
    files.add_argument("--root", type=Path, metavar="DIR", help="write them below DIR (/), instead of showing them")
    uci = commands.add_parser("openwrt", help="uci commands for an OpenWrt router on this site's trunk")
    uci.add_argument(
        "--trunk", action="append", metavar="DEVICE",
        help="of the router, to the site; default: eth1. Several: one for each parent, in the order of the file",
    )  # fmt: skip
    for command in (files, uci):
        command.add_argument("file", metavar="FILE", type=Path, nargs="?", default=default)


def main(arguments: argparse.Namespace) -> int:
    """Prints or writes it and returns 0; 78 after what is wrong with the configuration, 73 after what could not be
    written."""
    try:
        plan = make_plan(load(arguments.file))
    except ConfigError as error:
        for problem in error.problems:
            print(f"{arguments.file}: {problem}")
        return ExitCode.CONFIG
    if arguments.format == "networkd":
        return _show(networkd(plan), arguments.root)
    try:
        print("\n".join(openwrt(plan, arguments.trunk or ["eth1"])))
    except TrunkFault as fault:
        print(f"{arguments.file}: {fault}")
        return ExitCode.CONFIG
    return ExitCode.OK


def _show(files: dict[str, str], root: Path | None) -> int:
    """networkd reads them as a user of its own: whatever the umask, everybody may."""
    for path, text in files.items():
        if root is None:
            print(f"# ---- /{path}\n{text}")
            continue
        target = root / path
        try:
            _make_directory(target.parent)
            write_atomically(target, text.encode(), 0o644)
        except OSError as error:
            print(f"mpq-supervisor export: {target}: {error.strerror}", file=sys.stderr)
            return _CANNOT_WRITE
        print(target)
    return ExitCode.OK


def _make_directory(path: Path) -> None:
    for directory in reversed([one for one in (path, *path.parents) if not one.exists()]):
        directory.mkdir()
        directory.chmod(0o755)
