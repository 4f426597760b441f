"""What the supervisor keeps secret or signs with, read from the host's files."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpq_supervisor.files import read_regular, write_atomically
from mpq_supervisor.plan import HostPlan, HubWorkerPlan
from mpq_supervisor.signer import Signer
from mpq_worker.contract import Credentials
from mpq_worker.errors import HostFault

_KEY_SIZE = 32


class Secrets:
    """The host's credentials for its workers, its signer, and a hub's reset keys."""

    def __init__(self, plan: HostPlan) -> None:
        """Reads the files that `plan` names; a hub's reset key is made when there is none. Raises HostFault."""
        identity = plan.identity
        try:
            self.credentials = Credentials(
                ca=read_regular(Path(identity.ca)).decode(),
                certificate=read_regular(Path(identity.certificate)).decode(),
            )
            self.signer = Signer(read_regular(Path(identity.key)), plan.role)
            self._reset_key = _hub_key(Path(plan.supervisor.state_directory)) if plan.role == "hub" else b""
        except OSError as error:
            raise HostFault(f"{error.filename}: {error.strerror}") from error

    def reset_key(self, worker: HubWorkerPlan) -> bytes:
        """The key of one worker's stateless reset tokens (RFC 9000 section 10.3.2): by HKDF from the hub's, so
        that it outlives worker and supervisor and tells nothing of its neighbours'."""
        return self._derive(f"mpq/1 stateless reset {worker.port} {worker.slot}")

    def retry_key(self, worker: HubWorkerPlan) -> bytes:
        """The key of a port's Retry tokens: every worker behind it takes what another one gave."""
        return self._derive(f"mpq/1 retry {worker.port}")

    def _derive(self, info: str) -> bytes:
        return HKDF(SHA256(), _KEY_SIZE, salt=None, info=info.encode()).derive(self._reset_key)


def _hub_key(directory: Path) -> bytes:
    path = directory / "reset.key"
    if not path.exists():
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_atomically(path, os.urandom(_KEY_SIZE), 0o600)
    key = path.read_bytes()
    if len(key) != _KEY_SIZE:
        raise HostFault(f"{path}: {len(key)} bytes, not {_KEY_SIZE}; remove it and another is made")
    return key
