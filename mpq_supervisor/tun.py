"""TUN devices. They belong to who holds the descriptor: the supervisor, never a worker (FIELD 3)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from mpq_worker.errors import HostFault

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000

_REASONS = {
    errno.EBUSY: "the interface exists and another process holds it",
    errno.EINVAL: "an interface of this name exists and is not a TUN",
    errno.EPERM: "the capability NET_ADMIN is missing",
    errno.EACCES: "access is refused (DeviceAllow=, permissions)",
    errno.ENOENT: "the kernel has no TUN driver",
}


def open_tun(name: str) -> int:
    """Creates the TUN `name` and returns its non-blocking descriptor; it dies with the last copy of that.

    Each packet has a virtio header before it, through which a worker may ask for offloads. Raises HostFault saying
    what is in the way.
    """
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _fault(_DEVICE, error) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
    except OSError as error:
        os.close(fd)
        raise _fault(f"TUN {name}", error) from error
    return fd


def is_there(fd: int) -> bool:
    """Whether the interface of a TUN's descriptor still exists; somebody may have deleted it."""
    try:
        fcntl.ioctl(fd, _TUNGETIFF, bytes(40))
    except OSError as error:
        if error.errno == errno.EBADFD:
            return False
        raise
    return True


def _fault(what: str, error: OSError) -> HostFault:
    return HostFault(f"{what}: {_REASONS.get(error.errno or 0, error.strerror)}")
