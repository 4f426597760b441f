"""One run of a virtual machine: an archive in, an archive out, both on disks without a file system.

Software emulation, so that it runs where there is no KVM, of one processor whose clock counts instructions. The image
is copied, not changed.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

_BOOTS = 2
_RESULTS_SIZE = 64 << 20
_CLOCK = "shift=1,sleep=on"
"""An instruction takes 2 ns of the machine's time, however busy this host is: what it measures is its own speed."""
# Without the clock source's settings the guest's time runs slow under emulation.
_KERNEL_LINE = "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 mitigations=off clocksource=tsc tsc=reliable"


class MachineError(Exception):
    """The machine did not come to its end; its console says more."""


def run(image: Path, kernel: Path, payload: Path, console: Path, seconds: float) -> dict[str, bytes]:
    """Boot until an archive is left, and return its files. `seconds` are for each boot. Raises MachineError.

    A reboot ends the emulator and begins another: its own reset was seen to hang.
    """
    with tempfile.TemporaryDirectory(dir=console.parent) as name:
        disk, results = Path(name, "disk"), Path(name, "results")
        subprocess.run(["cp", "--sparse=always", image, disk], check=True)
        with results.open("wb") as file:
            file.truncate(_RESULTS_SIZE)
        console.write_bytes(b"")
        for _ in range(_BOOTS):
            _boot(_qemu(disk, kernel, payload, results, console), seconds)
            if files := _unpack(results):
                return files
    raise MachineError(f"{_BOOTS} boots, and no results")


def _boot(command: list[str], seconds: float) -> None:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, complaint = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"not done after {seconds:.0f} s") from error
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise MachineError(f"qemu ended with {process.returncode}: {complaint.strip()}")


def _qemu(disk: Path, kernel: Path, payload: Path, results: Path, console: Path) -> list[str]:
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=single", "-icount", _CLOCK]
    command += ["-cpu", "Westmere,-vmx", "-m", "1536", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    command += ["-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"]
    command += ["-device", "virtio-rng-pci", "-kernel", str(kernel), "-append", _KERNEL_LINE]
    # A fixed place on the bus keeps the disks' order. Nothing has to outlive a crash of this host.
    for i, path in enumerate([disk, payload, results]):
        command += ["-drive", f"file={path},format=raw,if=none,id=disk{i},cache=unsafe"]
        command += ["-device", f"nvme,drive=disk{i},serial={i},addr={i + 4}"]
    return command


def _unpack(results: Path) -> dict[str, bytes]:
    """The files of an archive on a disk; none as long as it is empty."""
    found = {}
    with tarfile.open(results) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                found[member.name.removeprefix("./")] = file.read()
    return found
