"""Why packets are dropped and who is to blame when something fails.

Every drop has a reason here and a counter in the worker's report; nothing is dropped silently.
"""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """The value is the name of the counter."""

    # from the TUN, on the way out
    NOT_IP = "not_ip"
    LOCAL = "local"  # multicast or link-local, which stays on its host
    TOO_BIG = "too_big"
    NO_CONNECTION = "no_connection"
    NO_ROUTE = "no_route"  # hub: no site owns the destination
    QUEUE_FULL = "queue_full"
    CODEL = "codel"
    SOCKET = "socket"  # the kernel refused to send
    # from the network, on the way in
    MALFORMED = "malformed"  # not QUIC, or truncated
    UNKNOWN_CONNECTION = "unknown_connection"
    UNKNOWN_CONTEXT = "unknown_context"
    EMPTY = "empty"
    SOURCE = "source"  # inner source address does not belong to the connection
    UNAUTHENTICATED = "unauthenticated"  # data before Hello was accepted
    TUN = "tun"  # the kernel refused to take the packet
    DUPLICATE = "duplicate"  # a packet that came before, or too late to tell
    UNOPENED = "unopened"  # of one of our connections, by its ID, but no key opens it
    PATH = "path"  # from another address than the one that began this handshake
    CONTROL = "control"  # of one connection, more than its share of what Python has to look at
    SIGNING = "signing"  # more than can wait for the supervisor's signature
    RETRY = "retry"  # an Initial that was answered with a Retry
    TOKEN = "token"  # an Initial whose token is forged, used, too old, or another's
    LIMIT = "limit"  # too many connections or handshakes
    HANDSHAKE = "handshake"  # a connection that was over before a Hello
    # to the supervisor
    MESSAGE = "message"  # more messages than it takes


class Refusal(StrEnum):
    """Why a peer was refused; counted by the hub, sent to the site, one log line each."""

    VERSION = "version"
    MALFORMED = "malformed"
    CERTIFICATE = "certificate"  # not from our CA, expired, or not fit for a site
    CLOCK = "clock"  # certificate not yet valid
    IDENTITY = "identity"  # a good certificate of nobody we know
    SIGNATURE = "signature"  # a replayed or forged proof
    ADDRESS = "address"  # inner address of somebody else
    REVOKED = "revoked"  # was good until the configuration changed
    TWIN = "twin"  # another host with the same certificate
    TIMEOUT = "timeout"  # no Hello in time
    OFTEN = "often"  # a site of ours that connects without end


class MpqError(Exception):
    """Base of what mpq raises on purpose."""


class HostFault(MpqError):
    """This host is to blame: configuration, a descriptor, a permission."""


class PeerFault(MpqError):
    """The other end is to blame; the connection is refused, never the process."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.text = text
