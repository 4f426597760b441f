"""Reads a host's configuration: the one way in, for `run`, `check` and `reload` alike.

`parse` is pure; `load` also looks at the files that the configuration names (see `credentials`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mpq_supervisor.credentials import check_host
from mpq_supervisor.decode import Problem, decode
from mpq_supervisor.schema import Config, HubConfig, SiteConfig
from mpq_supervisor.validate import validate

__all__ = ["Config", "ConfigError", "HubConfig", "Problem", "SiteConfig", "load", "parse"]


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` are all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def load(path: Path) -> Config:
    """The configuration in a TOML file, good to run on this host. Raises ConfigError with every problem."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError([Problem("", error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"byte {error.start}", "not UTF-8")]) from error
    config, problems = _examine(text)
    if config is not None:
        problems += check_host(config)
    return _accept(config, problems)


def parse(text: str) -> Config:
    """The configuration in a TOML text, nothing of this host looked at. Raises ConfigError."""
    return _accept(*_examine(text))


def _examine(text: str) -> tuple[Config | None, list[Problem]]:
    """What can be read of a configuration, and all that is wrong with the text of it."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [Problem("", f"not TOML: {error}")]  # the error says line and column
    problems: list[Problem] = []
    hub = table.get("role") == "hub" or (table.get("role") != "site" and "listener" in table)
    config: Config = decode(HubConfig if hub else SiteConfig, table, "", problems)
    # An entry that could not be read has been reported; what follows from its absence is no news.
    reported = {problem.path for problem in problems}
    problems += [problem for problem in validate(config) if problem.path not in reported]
    return config, problems


def _accept(config: Config | None, problems: list[Problem]) -> Config:
    if config is None or problems:
        raise ConfigError(problems)
    return config
