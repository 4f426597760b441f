"""Reads a host's configuration: the one way in, for `run`, `check` and `reload` alike.

`parse` is pure; `load` also looks at the files that the configuration names (see `credentials`).
"""

from __future__ import annotations

import reprlib
import tomllib
from pathlib import Path
from typing import Any

from mpq_supervisor.credentials import check_host, check_state
from mpq_supervisor.decode import Problem, decode, nearest, unread_fields
from mpq_supervisor.files import read_regular
from mpq_supervisor.orders import check_sites
from mpq_supervisor.plan import make_plan
from mpq_supervisor.portal_files import check_portal
from mpq_supervisor.schema import Config, HubConfig, SiteConfig
from mpq_supervisor.validate import validate

__all__ = ["Config", "ConfigError", "HubConfig", "Problem", "SiteConfig", "accept", "load", "parse", "read"]


ROLES = ("site", "hub")
_SITE_ONLY, _HUB_ONLY = {"hub", "inner", "wan"}, {"listener", "site"}


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` are all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def load(path: Path) -> Config:
    """The configuration in a TOML file, good to run on this host. Raises ConfigError with every problem."""
    return accept(read(path))


def read(path: Path) -> str:
    """The text of a configuration. Raises ConfigError."""
    try:
        return read_regular(path).decode()
    except OSError as error:
        raise ConfigError([Problem("", error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"byte {error.start}", "not UTF-8")]) from error


def accept(text: str, *, whole: bool = False) -> Config:
    """The configuration in a TOML text, good to run tunnels on this host. If it is to run `whole`, also to keep there
    what is to outlive a boot, and for the portal: neither a disk that has become read-only nor a file that the portal
    lacks must end tunnels. Raises ConfigError with every problem."""
    config, problems = _examine(text)
    if config is not None:
        unread = unread_fields(problems)
        problems += check_host(config, unread)
        problems += check_state(config.supervisor) if whole else []
        problems += check_portal(config.portal, unread) if whole and config.portal is not None else []
    return _accept(config, problems)


def parse(text: str) -> Config:
    """The configuration in a TOML text, nothing of this host looked at. Raises ConfigError."""
    return _accept(*_examine(text))


def _examine(text: str) -> tuple[Config | None, list[Problem]]:
    """What can be read of a configuration, and all that is wrong with the text of it."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:  # most are TOMLDecodeErrors, which say line and column
        return None, [Problem("", f"not TOML: {error}")]
    except RecursionError:
        return None, [Problem("", "not TOML: nested too deeply")]
    problems: list[Problem] = []
    if table.get("role") not in ROLES:
        table = _with_role(table, problems)
    if table["role"] is None:  # then nothing can be said of the rest
        return None, problems
    config: Config = decode(HubConfig if table["role"] == "hub" else SiteConfig, table, "", problems)
    problems += validate(config, unread_fields(problems))
    return config, problems or check_sites(make_plan(config))


def _with_role(table: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The table with the role that its sections show, if they do."""
    choice = " or ".join(f'"{role}"' for role in ROLES)
    misspelt = next((key for key in table if nearest(key, ("role",))), None)
    if "role" in table:
        problems.append(Problem("role", f"must be {choice}, not {reprlib.repr(table['role'])}"))
    else:
        meant = f' (is "{misspelt}" meant?)' if misspelt else ""
        problems.append(Problem("role", f"is missing: {choice}{meant}"))
    site, hub = not _SITE_ONLY.isdisjoint(table), not _HUB_ONLY.isdisjoint(table)
    role = None if site == hub else "site" if site else "hub"
    return {**{key: value for key, value in table.items() if key != misspelt}, "role": role}


def _accept(config: Config | None, problems: list[Problem]) -> Config:
    if config is None or problems:
        raise ConfigError(problems)
    return config
