"""The last release's host: this one's processes, with the frozen messages between them and a version of its own.

python -m tests.frozen.host run …        its supervisor, in place of `mpq_supervisor`
python -m tests.frozen.host --fd N       its zygote
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from mpq_worker import channel, contract
from tests.frozen import release_1 as last

VERSION = contract.CONTRACT_VERSION - 1
"""Also while there is no release yet, and the frozen messages are this one's."""


def become() -> None:
    """From here on this process, and what it forks, is the last release's. Before anything else is imported."""
    contract.CONTRACT_VERSION = VERSION
    send, decode = channel.Channel.send, channel.Channel._decode

    def send_less(self: Any, message: msgspec.Struct, fds: Sequence[int] = ()) -> bool:
        return send(self, _less(message), fds)

    def decode_less(self: Any, size: int, flags: int, fds: int) -> Any:
        return _less(decode(self, size, flags, fds))

    channel.Channel.send = send_less  # type: ignore[method-assign]  # in its place, for the test
    channel.Channel._decode = decode_less  # type: ignore[method-assign]  # in its place, for the test


def _less(message: msgspec.Struct) -> msgspec.Struct:
    """What the last release has of a message. Raises `Later` for one that it has not."""
    theirs = getattr(last, type(message).__name__, None)
    if theirs is None:
        raise channel.Later
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=theirs)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(there), type=type(message))


if __name__ == "__main__":
    become()
    if sys.argv[1] == "--fd":
        from mpq_worker import zygote

        sys.exit(zygote.main())
    from mpq_supervisor.__main__ import main
    from mpq_supervisor.zygote import Zygote

    Zygote.__init__.__defaults__ = ((sys.executable, "-m", "tests.frozen.host"),)
    sys.exit(main())
