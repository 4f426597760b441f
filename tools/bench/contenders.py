"""The tunnels that mpq is measured beside: none at all, a copy without crypto, OpenVPN, wireguard-go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mpq_supervisor import pki
from tools.bench.bed import BUILD, INNER_MTU, SIDES, Contender
from tools.product import Side
from tools.topology import HUB

_PORT = 45000
_SITE = "100.64.1.2"
OUTER: dict[Side, tuple[str, str]] = {"site": (_SITE, HUB), "hub": (HUB, _SITE)}
"""Own and other end's outer address."""


class Bare(Contender):
    """The veth itself."""

    label = "bare"
    near, far = OUTER["site"]
    device = "wan1"

    def raise_tunnel(self) -> None:
        pass

    def pids(self, side: Side) -> list[int]:
        return []


class _Pair(Contender):
    """One process at each end with a TUN of its own."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self._processes: dict[Side, subprocess.Popen[str]] = {}

    def pids(self, side: Side) -> list[int]:
        return [self._processes[side].pid]

    def dress(self, side: Side, device: str) -> None:
        """Address and MTU of a tunnel's interface."""
        own, peer = (self.near, self.far) if side == "site" else (self.far, self.near)
        self.ip(side, f"addr add {own} peer {peer} dev {device}", f"link set {device} mtu {INNER_MTU} up")


class Copy(_Pair):
    """`copy.c`: all offloads, no crypto: the floor of the method."""

    label = "copy"

    def raise_tunnel(self) -> None:
        for side in SIDES:
            argv = [str(BUILD / "copy"), self.device, *OUTER[side], str(_PORT)]
            self._processes[side] = self.launch(side, argv)
            self.until_said(self._processes[side], "ready")
            self.dress(side, self.device)


class OpenVpn(_Pair):
    """OpenVPN in user space, UDP, TLS, AES-128-GCM, no compression, buffers as large as they may be."""

    label = "openvpn"

    def raise_tunnel(self) -> None:
        authority = pki.issue_authority()
        pki.save(authority, self.directory, "ca")
        pki.save(pki.issue_hub(authority, "hub"), self.directory, "hub")
        pki.save(pki.issue_site(authority, "site"), self.directory, "site")
        for side in SIDES:
            self._processes[side] = self.launch(side, self._argv(side))
        for process in self._processes.values():
            self.until_said(process, "Initialization Sequence Completed")

    def _argv(self, side: Side) -> list[str]:
        own, peer = OUTER[side]
        inside = (self.near, self.far) if side == "site" else (self.far, self.near)
        role = "--tls-client" if side == "site" else "--tls-server"
        ends = f"--local {own} --remote {peer} --port {_PORT} --ifconfig {' '.join(inside)} {role}"
        identity = f"--ca ca.crt --cert {side}.crt --key {side}.key" + " --dh none" * (side == "hub")
        rest = "--data-ciphers AES-128-GCM --disable-dco --fast-io --sndbuf 4194304 --rcvbuf 4194304"
        return [
            *f"stdbuf -oL openvpn --cd {self.directory} --dev {self.device} --dev-type tun --proto udp".split(),
            *f"{ends} {identity} {rest} --tun-mtu {INNER_MTU} --mssfix 0 --verb 3".split(),
        ]


class WireGuard(_Pair):
    """Debian's wireguard-go: this kernel has no WireGuard of its own, as a container often has none."""

    label = "wireguard"
    device = "wgsite"

    def raise_tunnel(self) -> None:
        keys = {side: _wg("genkey") for side in SIDES}
        for side in SIDES:
            device = f"wg{side}"
            environment = {**os.environ, "LOG_LEVEL": "verbose", "WG_PROCESS_FOREGROUND": "1"}
            argv = ["wireguard-go", "-f", device]
            self._processes[side] = self.launch(side, argv, env=environment)
            self.until_said(self._processes[side], "UAPI listener")
            self._configure(side, device, keys)
            self.dress(side, device)

    def _configure(self, side: Side, device: str, keys: dict[Side, str]) -> None:
        other = SIDES[side == SIDES[0]]
        key = Path(self.directory, f"{side}.key")
        key.write_text(keys[side])
        peer = f"peer {_wg('pubkey', keys[other])} allowed-ips 10.99.0.0/24 endpoint {OUTER[side][1]}:{_PORT}"
        self.run(side, f"wg set {device} listen-port {_PORT} private-key {key} {peer}".split())


def _wg(command: str, text: str = "") -> str:
    done = subprocess.run(["wg", command], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()
