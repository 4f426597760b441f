"""What happens to a worker, and what is done about it: events and actions of `lifecycle`. Pure.

The *leader* is the process that reads the TUN. A planned restart forks its *successor* beside it, which becomes the
leader by `Promote` and has it for a *predecessor* until that ends.
"""

from __future__ import annotations

import msgspec

from mpq_worker.contract import ExitCode

# ---------------------------------------------------------------- events


class Base(msgspec.Struct, frozen=True):
    """Of all of them."""


class StartWanted(Base, frozen=True):
    """The operator, or the supervisor at its start, wants it to run."""


class Adopted(Base, frozen=True):
    """It runs already, left by an earlier supervisor, and will say how it stands."""


class StopWanted(Base, frozen=True):
    """The operator wants it down."""


class RestartWanted(Base, frozen=True):
    """A planned restart: new configuration, or the operator's word."""


class LinkUp(Base, frozen=True):
    """The WAN is usable, perhaps with another address than before."""


class LinkDown(Base, frozen=True):
    """The WAN lost its carrier, address or gateway, or is not there yet; `reason` (not empty) says which."""

    reason: str


class Ready(Base, frozen=True):
    """The worker's own word."""


class PeerSilent(Base, frozen=True):
    """The worker's own word."""

    reason: str = ""


class PeerBack(Base, frozen=True):
    """The worker's own word."""


class HeartbeatMissed(Base, frozen=True):
    """The watchdog: the data loop has not turned for too long."""

    silence: float


class MemoryExceeded(Base, frozen=True):
    """The watchdog: resident bytes over the limit."""

    rss: int


class Unfit(Base, frozen=True):
    """It cannot go on: the worker broke the contract, or what it needs of the host cannot be had."""

    reason: str


class Exited(Base, frozen=True):
    """The leader is gone. `status` as by os.waitstatus_to_exitcode, None when unknown or never forked."""

    status: int | None


class SuccessorReady(Base, frozen=True):
    """The successor's own word."""


class SuccessorLost(Base, frozen=True):
    """It ended, or cannot go on, before it led."""

    reason: str


class Drained(Base, frozen=True):
    """The leader's own word: it reads the TUN no more, and has sent what it read."""


class PredecessorGone(Base, frozen=True):
    """The process that led before is gone; `status` as in `Exited`."""

    status: int | None


class HandoverTimeout(Base, frozen=True):
    """The timer of `ArmHandover`."""


class BackoffElapsed(Base, frozen=True):
    """The timer of `ArmBackoff`."""


class StopTimeout(Base, frozen=True):
    """The timer of `ArmStop`."""


Event = (
    StartWanted
    | Adopted
    | StopWanted
    | RestartWanted
    | LinkUp
    | LinkDown
    | Ready
    | PeerSilent
    | PeerBack
    | HeartbeatMissed
    | MemoryExceeded
    | Unfit
    | Exited
    | SuccessorReady
    | SuccessorLost
    | Drained
    | PredecessorGone
    | HandoverTimeout
    | BackoffElapsed
    | StopTimeout
)

# ---------------------------------------------------------------- actions


class Fork(Base, frozen=True):
    """Have the zygote fork the worker; then configure it."""


class SendStop(Base, frozen=True):
    """Ask the leader to end."""


class Kill(Base, frozen=True):
    """SIGKILL for the leader, now."""


class SendRebind(Base, frozen=True):
    """Give every process of the worker a socket on the WAN's current address."""


class ForkSuccessor(Base, frozen=True):
    """Have a second process forked, and configured to stand by."""


class SendDrain(Base, frozen=True):
    """Tell the leader to make room for its successor."""


class SendLead(Base, frozen=True):
    """Tell the leader to lead: that it is the one now, or still."""


class Promote(Base, frozen=True):
    """The successor is the leader from now on, and the leader, if it still lives, its predecessor."""


class Retire(Base, frozen=True):
    """Ask the predecessor to end, and kill it if it does not."""


class Discard(Base, frozen=True):
    """SIGKILL for successor or predecessor; nobody waits for its end."""


class ArmBackoff(Base, frozen=True):
    """Feed BackoffElapsed after `delay` seconds."""

    delay: float


class ArmStop(Base, frozen=True):
    """Feed StopTimeout after `delay` seconds."""

    delay: float


class ArmHandover(Base, frozen=True):
    """Feed HandoverTimeout after `delay` seconds."""

    delay: float


Action = (
    Fork
    | SendStop
    | Kill
    | SendRebind
    | ForkSuccessor
    | SendDrain
    | SendLead
    | Promote
    | Retire
    | Discard
    | ArmBackoff
    | ArmStop
    | ArmHandover
)


def explain(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "lost, its zygote died before it could tell"
    if status < 0:
        return f"killed by signal {-status}"
    try:
        return f"exit {status} ({ExitCode(status).name})"
    except ValueError:
        return f"exit {status}"
