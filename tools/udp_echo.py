"""`python -m tools.udp_echo PORT …`: sends every UDP datagram back to where it came from, IPv4 and IPv6.

It prints "ready" when it listens and ends with its stdin. Made for a host with one address of each family: the
answer's source is what the routing table says, not what was contacted.
"""

from __future__ import annotations

import contextlib
import select
import sys

from tools.sockets import listen_datagram


def main(ports: list[int]) -> None:
    """Echo on these ports until stdin ends."""
    sockets = {sock.fileno(): sock for sock in map(listen_datagram, ports)}
    epoll = select.epoll()
    epoll.register(sys.stdin, select.EPOLLIN)
    for fd in sockets:
        epoll.register(fd, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in epoll.poll():
            if fd not in sockets:
                return
            # Nothing to read, or no room to answer: the prober counts the loss.
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, peer = sockets[fd].recvfrom(2048)
                    sockets[fd].sendto(data, peer)


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1:]])
