"""`mpq-supervisor export`: what a configuration means to the programs beside mpq, in their own words."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpq_supervisor.config import ConfigError, load
from mpq_supervisor.export_networkd import networkd
from mpq_supervisor.export_openwrt import openwrt
from mpq_supervisor.plan import make_plan
from mpq_worker.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser, default: Path) -> None:
    """Of `export networkd` and `export openwrt`."""
    commands = parser.add_subparsers(dest="format", required=True, metavar="COMMAND")
    files = commands.add_parser("networkd", help="files of systemd-networkd for this host")
    files.add_argument("--root", type=Path, metavar="DIR", help="write them below DIR (/), instead of showing them")
    uci = commands.add_parser("openwrt", help="uci commands for an OpenWrt router on this site's trunk")
    uci.add_argument("--trunk", default="eth1", metavar="DEVICE", help="of the router, to the site; default: eth1")
    for command in (files, uci):
        command.add_argument("file", metavar="FILE", type=Path, nargs="?", default=default)


def main(arguments: argparse.Namespace) -> int:
    """Prints or writes it and returns 0; prints what is wrong with the configuration and returns 78."""
    try:
        plan = make_plan(load(arguments.file))
    except ConfigError as error:
        for problem in error.problems:
            print(f"{arguments.file}: {problem}")
        return ExitCode.CONFIG
    if arguments.format == "networkd":
        _show(networkd(plan), arguments.root)
        return ExitCode.OK
    if not any(lan.vlan is not None for lan in plan.lans):
        print(f"{arguments.file}: lan: none has a vlan, so there is no trunk to a router")
        return ExitCode.CONFIG
    print("\n".join(openwrt(plan, arguments.trunk)))
    return ExitCode.OK


def _show(files: dict[str, str], root: Path | None) -> None:
    for path, text in files.items():
        if root is None:
            print(f"# ---- /{path}\n{text}")
            continue
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(target)
