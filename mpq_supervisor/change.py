"""What runs and what shall run: the configuration of a running supervisor, and every way to change it.

    preview   what a text would change, and nothing else
    reload    the file, for good
    commit    the file, for so many seconds; then back to what ran before, unless `confirm` comes
    patch     some fields of one worker, in the file and in what runs, or in neither

While a commit is unconfirmed, and after it was rolled back, the text that ran before it is in the state directory;
a supervisor that starts finds it there and runs it, whatever the file says, until the file is reloaded or committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from mpq_supervisor.config import Config, ConfigError, accept, read
from mpq_supervisor.edit import ConfigField, EditFault, Value, edit, fields_of
from mpq_supervisor.effects import Preview, describe, differences
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.files import write_atomically
from mpq_supervisor.orders import WorkerChange, worker_changes
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.schema import Supervisor
from mpq_supervisor.secrets import Secrets
from mpq_worker.contract import Credentials
from mpq_worker.errors import HostFault

KEPT = "unconfirmed.toml"
"""In the state directory: what ran before a commit that nobody has confirmed."""

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


class Configuration:
    """`text` is what runs. Made before anything runs; `attach` says how changes are applied from then on."""

    def __init__(self, path: Path) -> None:
        """Reads the file; if a commit of it was not confirmed, what ran before. Raises ConfigError."""
        self._path = path
        directory = Supervisor().state_directory
        problem: ConfigError | None = None
        try:
            self._take(read(path))
            directory = self.plan.supervisor.state_directory
        except ConfigError as error:
            problem = error
        self._kept = Path(directory) / KEPT
        self._timer: Timer | None = None
        if _is_there(self._kept):
            try:
                self._take(read(self._kept))
                problem = None
                log.warning("%s was never confirmed: what ran before runs (%s)", path, self._kept)
            except ConfigError as error:
                log.error("%s was never confirmed, and what ran before cannot: %s", path, error)
        if problem is not None:
            raise problem

    def _take(self, text: str) -> None:
        self.config = accept(text)
        self.text, self.plan = text, make_plan(self.config)

    def attach(self, secrets: Secrets, apply: Apply, later: Later) -> None:
        """`apply` goes over to a plan, or raises HostFault and leaves all as it was; `later` is the loop's."""
        self._credentials: Credentials = secrets.credentials
        self._apply, self._later = apply, later

    def preview(self, text: str = "") -> Preview:
        """What going over to `text` (or, if it is empty, to the file) would change. Raises ChangeRefused."""
        _, config, plan, secrets = self._examine(text)
        return self._difference(config, plan, secrets)

    def reload(self) -> Preview:
        """Goes over to the file. A commit that waits to be confirmed is thereby. Raises ChangeRefused."""
        done = self._go(*self._examine(""))
        self._forget()
        return done

    def commit(self, seconds: float) -> Preview:
        """Goes over to the file for `seconds`, until `confirm`. Raises ChangeRefused."""
        examined = self._examine("")
        if examined[2].supervisor.state_directory != self.plan.supervisor.state_directory:
            raise ChangeRefused(["supervisor.state_directory: cannot change in a commit that is to be confirmed"])
        new = not self._kept.exists()
        if new:  # otherwise what is there ran before, and was good
            self._keep()
        try:
            done = self._go(*examined)
        except ChangeRefused:
            if new:
                self._kept.unlink()
            raise
        self._arm(seconds)
        return done

    def fields(self, name: str) -> tuple[ConfigField, ...]:
        """What the configuration says of the worker of that name."""
        worker = next(worker for worker in self.plan.workers if worker.name == name)
        return fields_of(self.config, worker)

    def patch(self, name: str, changes: Mapping[str, Value]) -> Preview:
        """Changes `fields` of a worker in the file, and goes over to it. Raises ChangeRefused, FileDiffers."""
        examined = self._patched(name, changes)
        before = self.text
        self._write(examined[0])
        try:
            return self._go(*examined)
        except ChangeRefused:
            self._write(before)
            raise

    def foresee(self, name: str, changes: Mapping[str, Value]) -> Preview:
        """What `patch` would do, and nothing else; raises what that would."""
        _, config, plan, secrets = self._patched(name, changes)
        return self._difference(config, plan, secrets)

    def confirm(self) -> bool:
        """What was committed is good; False if no commit waits for that, or it was rolled back."""
        if self._timer is None:
            return False
        self._forget()
        return True

    def rollback(self) -> Preview:
        """Back to what ran before the commit, now. Raises ChangeRefused, also if there is nothing to go back to."""
        if not self._kept.exists():
            raise ChangeRefused(["no commit waits to be confirmed"])
        try:
            text = read(self._kept)
        except ConfigError as error:
            raise ChangeRefused([f"{self._kept}: {problem}" for problem in error.problems]) from error
        done = self._go(*self._examine(text))
        self._disarm()
        return done

    # ------------------------------------------------------------ helpers

    def _examine(self, text: str) -> tuple[str, Config, HostPlan, Secrets]:
        name = "the text" if text else str(self._path)
        try:
            text = text or read(self._path)
            config = accept(text)
            plan = make_plan(config)
            if plan.role != self.plan.role:
                raise HostFault(f"role: a {self.plan.role} cannot become a {plan.role} while it runs")
            return text, config, plan, Secrets(plan)
        except ConfigError as error:
            raise ChangeRefused([f"{name}: {problem}" for problem in error.problems]) from error
        except HostFault as fault:
            raise ChangeRefused([str(fault)]) from fault

    def _patched(self, name: str, changes: Mapping[str, Value]) -> tuple[str, Config, HostPlan, Secrets]:
        known = {field.path for field in self.fields(name)}
        strange = [f"{path}: no field of {name}" for path in changes if path not in known]
        if strange:
            raise ChangeRefused(strange)
        if _is_there(self._kept) or self._read() != self.text:
            raise FileDiffers([f"{self._path} is not what runs: reload or commit it first"])
        try:
            examined = self._examine(edit(self.text, changes))
        except EditFault as fault:
            raise ChangeRefused([str(fault)]) from fault
        found = differences(self.config, examined[1])
        strange = [f"{one.path}: would change too" for one in found if one.path not in changes]
        if strange:
            raise ChangeRefused(strange)
        return examined

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

    def _difference(self, config: Config, plan: HostPlan, secrets: Secrets) -> Preview:
        credentials = secrets.credentials != self._credentials
        workers = worker_changes(self.plan, plan, credentials=credentials)
        return Preview(tuple(differences(self.config, config)), workers)

    def _go(self, text: str, config: Config, plan: HostPlan, secrets: Secrets) -> Preview:
        difference = self._difference(config, plan, secrets)
        try:
            self._apply(plan, secrets)
        except HostFault as fault:
            raise ChangeRefused([str(fault)]) from fault
        self.text, self.config, self.plan, self._credentials = text, config, plan, secrets.credentials
        return difference

    def _forget(self) -> None:
        self._disarm()
        self._kept.unlink(missing_ok=True)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Nobody confirmed. The text stays kept: the file is still the one that was not confirmed."""
        self._timer = None
        try:
            done = self.rollback()
        except ChangeRefused as refused:
            log.error("not confirmed, and no way back: %s", refused, extra=marks(Kind.CONFIG))
            return
        for line in ("not confirmed: back to what ran before", *describe(done)):
            log.warning("commit: %s", line, extra=marks(Kind.CONFIG))

    def _keep(self) -> None:
        try:
            self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._kept, self.text.encode(), 0o600, durable=True)
        except OSError as error:
            raise ChangeRefused([f"{self._kept}: {error.strerror}: there would be no way back"]) from error


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # we may not look, and so have not written it
        return False
