"""What runs and what shall run: the configuration of a running supervisor, and every way to change it.

    preview   what a text would change, and nothing else
    reload    the file, for good
    commit    the file, for so many seconds; then back to what ran before, unless `confirm` comes
    patch     some fields of one worker, in the file and in what runs, or in neither

From before a commit is applied until it is confirmed, and after it was rolled back, the text that ran before it is
beside the file; a supervisor that starts finds it there and runs it, whatever the file says, until the file is
reloaded or a commit of it is confirmed. So every step is one file that comes or goes, and a start finds one
configuration or the other. What the files hold that `identity` names is not kept: a commit is refused where they are
not as they were.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import NamedTuple, Protocol

from mpq_supervisor.config import Config, ConfigError, accept, read
from mpq_supervisor.edit import ConfigField, EditFault, Value, edit, fields_of
from mpq_supervisor.effects import Preview, as_it_runs, describe, differences
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.files import remove_durably, write_atomically
from mpq_supervisor.orders import WorkerChange, worker_changes
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.secrets import Secrets
from mpq_worker.errors import HostFault

KEPT = ".before"
"""Of the configuration's name: what ran before a commit that nobody has confirmed. Beside the configuration, so that
it is found whatever that says."""
RETRY = 5.0
"""Seconds until the way back is tried again when the host did not take it."""

log = logging.getLogger(__name__)


class ChangeRefused(Exception):
    """Everything is as it was; `lines` say what is wrong."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class FileDiffers(ChangeRefused):
    """The file is not what runs, and must not come along with what was asked for."""


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
Apply = Callable[[HostPlan, Secrets], dict[str, WorkerChange]]
Names = Callable[[], Set[str]]


class _Version(NamedTuple):
    """`config` is what `text` says, `actual` and `plan` what that is as long as this supervisor runs."""

    text: str
    config: Config
    actual: Config
    plan: HostPlan


class Configuration:
    """What runs. Made before anything runs; `attach` says how changes are applied from then on."""

    def __init__(self, path: Path) -> None:
        """Reads the file; if a commit of it was not confirmed, what ran before. Raises ConfigError."""
        self._path = path
        self._kept = path.with_name(path.name + KEPT)
        self._before: tuple[_Version, Secrets] | None = None  # while a commit waits to be confirmed
        self._timer: Timer | None = None
        kept = self._read_kept()
        self._running = kept if kept is not None else _first(read(path))

    @property
    def plan(self) -> HostPlan:
        """What runs."""
        return self._running.plan

    def attach(self, secrets: Secrets, apply: Apply, later: Later, stopped: Names, outdated: Names) -> None:
        """`apply` goes over to a plan, or raises HostFault or OSError and leaves all as it was; `later` is the
        loop's; `stopped` names the workers that a change does not touch because the operator stopped them, `outdated`
        those that do not run as the plan has it, whatever the file says."""
        self._secrets, self._apply, self._later, self._stopped = secrets, apply, later, stopped
        self._outdated = outdated

    def preview(self, text: str = "") -> Preview:
        """What going over to `text` (or, if it is empty, to the file) would change. Raises ChangeRefused."""
        return self._difference(*self._examine(text))

    def reload(self) -> Preview:
        """Goes over to the file. A commit that waits to be confirmed is thereby. Raises ChangeRefused."""
        version, secrets = self._examine("")
        kept = _is_there(self._kept)
        if kept:  # first: otherwise, if it cannot be removed, the next start would undo this
            self._remove()
        try:
            done = self._go(version, secrets)
        except BaseException:
            if kept:
                self._keep()
            raise
        self._settle()
        return done

    def commit(self, seconds: float) -> Preview:
        """Goes over to the file for `seconds`, until `confirm`. Raises ChangeRefused."""
        version, secrets = self._examine("")
        self._demand_way_back()
        first, kept = self._before is None, _is_there(self._kept)
        if first:  # otherwise what is there ran before, and was good
            self._keep()
            self._before = self._running, self._secrets
            self._arm(seconds)  # now, for whatever happens while it is applied
        try:
            done = self._go(version, secrets)
        except ChangeRefused:
            if first:
                self._settle()
                if not kept:
                    self._remove()
            raise
        self._arm(seconds)
        return done

    def fields(self, name: str) -> tuple[ConfigField, ...]:
        """What the configuration says of the worker of that name."""
        worker = next(worker for worker in self.plan.workers if worker.name == name)
        return fields_of(self._running.config, worker)

    def patch(self, name: str, changes: Mapping[str, Value]) -> Preview:
        """Changes `fields` of a worker in the file, and goes over to it. Raises ChangeRefused, FileDiffers."""
        version, secrets = self._patched(name, changes)
        before = self._running.text
        try:
            self._write(version.text)
            return self._go(version, secrets)
        except BaseException:  # the file says what runs, whatever it was
            self._restore(before)
            raise

    def foresee(self, name: str, changes: Mapping[str, Value]) -> Preview:
        """What `patch` would do, and nothing else; raises what that would."""
        return self._difference(*self._patched(name, changes))

    def confirm(self) -> bool:
        """What was committed is good; False if no commit waits for that, or it was rolled back. Raises ChangeRefused:
        then it still waits."""
        if self._before is None:
            return False
        self._remove()
        self._settle()
        return True

    def rollback(self) -> Preview:
        """Back to what ran before the commit, now. Raises ChangeRefused, also if no commit waits to be confirmed. The
        text stays kept: the file is still the one that was not confirmed."""
        if self._before is None:
            raise ChangeRefused(["no commit waits to be confirmed"])
        done = self._go(*self._before)
        self._settle()
        return done

    # ------------------------------------------------------------ helpers

    def _read_kept(self) -> _Version | None:
        if not _is_there(self._kept):
            return None
        try:
            kept = _first(read(self._kept))
        except ConfigError as error:
            log.error("%s was never confirmed, and what ran before cannot: %s", self._path, error)
            return None
        log.warning("%s was never confirmed: what ran before runs (%s)", self._path, self._kept)
        return kept

    def _examine(self, text: str) -> tuple[_Version, Secrets]:
        name = "the text" if text else str(self._path)
        try:
            text = text or read(self._path)
            config = accept(text)
            if config.role != self.plan.role:
                raise HostFault(f"role: a {self.plan.role} cannot become a {config.role} while it runs")
            actual = as_it_runs(self._running.actual, config)
            version = _Version(text, config, actual, make_plan(actual))
            return version, Secrets(version.plan)
        except ConfigError as error:
            raise ChangeRefused([f"{name}: {problem}" for problem in error.problems]) from error
        except HostFault as fault:
            raise ChangeRefused([str(fault)]) from fault

    def _demand_way_back(self) -> None:
        """Whether a start would find what runs now, or ran before the commit that waits."""
        version, secrets = self._before or (self._running, self._secrets)
        try:
            accept(version.text)
            same = Secrets(version.plan).credentials == secrets.credentials
        except (ConfigError, HostFault) as error:
            raise ChangeRefused([f"there would be no way back: {error}"]) from error
        if not same:
            text = "identity: what these files hold has changed, and there would be no way back"
            raise ChangeRefused([f"{text}: put the new ones into another directory, or reload"])

    def _patched(self, name: str, changes: Mapping[str, Value]) -> tuple[_Version, Secrets]:
        known = {field.path for field in self.fields(name)}
        strange = [f"{path}: no field of {name}" for path in changes if path not in known]
        if strange:
            raise ChangeRefused(strange)
        if _is_there(self._kept) or self._read() != self._running.text:
            raise FileDiffers([f"{self._path} is not what runs: reload or commit it first"])
        try:
            version, secrets = self._examine(edit(self._running.text, changes))
        except EditFault as fault:
            raise ChangeRefused([str(fault)]) from fault
        found = differences(self._running.config, version.config)
        strange = [f"{one.path}: would change too" for one in found if one.path not in changes]
        if strange:
            raise ChangeRefused(strange)
        return version, secrets

    def _read(self) -> str:
        try:
            return read(self._path)
        except ConfigError as error:
            raise ChangeRefused([f"{self._path}: {problem}" for problem in error.problems]) from error

    def _write(self, text: str) -> None:
        path = self._path.resolve()
        try:
            write_atomically(path, text.encode(), path.stat().st_mode & 0o777, durable=True)
        except OSError as error:
            raise ChangeRefused([f"{path}: cannot be written: {error.strerror}"]) from error

    def _restore(self, text: str) -> None:
        """Has the file say what it said."""
        try:
            if self._read() != text:
                self._write(text)
        except ChangeRefused as refused:
            log.error("%s: it may not say what runs", refused, extra=marks(Kind.CONFIG))

    def _difference(self, version: _Version, secrets: Secrets) -> Preview:
        running, stopped = self._running, self._stopped()
        credentials = secrets.credentials != self._secrets.credentials
        outdated = self._outdated()
        workers = worker_changes(running.plan, version.plan, credentials=credentials, outdated=outdated)
        told = {n: what for n, what in workers.items() if n not in stopped or what not in ("restart", "sites")}
        return Preview(tuple(differences(running.actual, version.config)), told)

    def _go(self, version: _Version, secrets: Secrets) -> Preview:
        difference = self._difference(version, secrets)
        try:
            self._apply(version.plan, secrets)
        except (HostFault, OSError) as fault:
            raise ChangeRefused([str(fault)]) from fault
        self._running, self._secrets = version, secrets
        return difference

    def _settle(self) -> None:
        """No commit waits any more."""
        self._before = None
        self._disarm()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Nobody confirmed."""
        try:
            done = self.rollback()
        except ChangeRefused as refused:
            text = "not confirmed, and no way back yet: %s; again in %.0f s"
            log.error(text, refused, RETRY, extra=marks(Kind.CONFIG))
            self._arm(RETRY)
            return
        for line in ("not confirmed: back to what ran before", *describe(done)):
            log.warning("commit: %s", line, extra=marks(Kind.CONFIG))

    def _keep(self) -> None:
        """Has a start run what ran before the commit that waits, or runs now. Raises ChangeRefused."""
        version = self._before[0] if self._before is not None else self._running
        try:
            write_atomically(self._kept, version.text.encode(), 0o600, durable=True)
        except OSError as error:
            raise ChangeRefused([f"{self._kept}: {error.strerror}: there would be no way back"]) from error

    def _remove(self) -> None:
        """Has a start run the file. Raises ChangeRefused, and then it would not."""
        try:
            remove_durably(self._kept)
        except OSError as error:
            with contextlib.suppress(ChangeRefused):
                self._keep()  # it may have gone, but not for good
            raise ChangeRefused([f"{self._kept}: {error.strerror}: the next start would go back to it"]) from error


def _first(text: str) -> _Version:
    """What a start runs. Raises ConfigError."""
    config = accept(text)
    return _Version(text, config, config, make_plan(config))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # we may not look, and so have not written it
        return False
