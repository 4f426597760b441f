"""The portal's process: `python -m mpq_supervisor.portal FEED ORDERS`, two descriptors that the supervisor left it.

Setup ─▶ TLS key ─▶ own group, directory of the history ─▶ own uid, no capability ─▶ only then the web framework
"""

from __future__ import annotations

import logging
import select
import socket
import sys
from pathlib import Path

from mpq_supervisor import logs
from mpq_supervisor.portal import privileges
from mpq_supervisor.portal.messages import Message, Setup
from mpq_supervisor.portal_files import Unusable, tls_context, webhook_secret
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault
from mpq_worker.contract import ExitCode
from mpq_worker.errors import HostFault

SETUP_TIMEOUT = 10.0

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 when the supervisor ended it, 78 for a setup, 77 for a uid that cannot be had."""
    logs.set_up()
    feed = Channel[Message].from_fd(int(argv[0]), Message)
    orders = socket.socket(fileno=int(argv[1]))
    try:
        setup = _read_setup(feed)
        tls = tls_context(setup.certificate, setup.key) if setup.certificate else None
        secret = _secret(setup)
        privileges.own_group(setup.uid)
        _make_directory(Path(setup.directory))
        privileges.drop(setup.uid)
    except ChannelClosed:
        return ExitCode.OK
    except Unusable as error:
        log.error("portal: %s: %s", error.field, error)
        return ExitCode.CONFIG
    except (HostFault, OSError) as error:
        log.error("portal: %s", error)
        return ExitCode.NOPERM
    import uvloop

    from mpq_supervisor.portal.service import Service

    try:
        uvloop.run(Service(setup, feed, orders, tls, secret).run())
    except OSError as error:  # an address that is taken, or not there yet
        log.error("portal: %s", error)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


def _read_setup(feed: Channel[Message]) -> Setup:
    if not select.select([feed], [], [], SETUP_TIMEOUT)[0]:
        raise HostFault("the supervisor says nothing")
    try:
        received = feed.receive()
    except ChannelFault as fault:
        raise HostFault(str(fault)) from fault
    if received is None or not isinstance(received[0], Setup):
        raise HostFault("the supervisor says something else first")
    return received[0]


def _make_directory(path: Path) -> None:
    try:
        privileges.make_directory(path)
    except OSError as error:  # it goes on without a history
        log.error("portal: %s: %s", path, error.strerror)


def _secret(setup: Setup) -> bytes:
    return b"" if setup.webhook is None else webhook_secret(setup.webhook.secret_file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
