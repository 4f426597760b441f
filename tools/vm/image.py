"""The disk and the kernel of a small Debian 12, built once: its name is a digest of this file, which says all of it.

The image knows nothing of mpq. At each boot it runs `run` of the archive on its second disk (see `machine`), beside
all else. That archive is unpacked at the first boot, so that a run may reboot and go on.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

_SUITE = "bookworm"
_KERNEL = "linux-image-cloud-amd64"  # NVMe and ext4 are built in: no initrd
_PACKAGES = [
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "nftables", "procps", "ca-certificates"),
    *("libseccomp2", "libssl3", "libstdc++6", "python3", "python3-pytest"),  # what mpq and its tests need
    *("iputils-ping", "tcpdump", "ethtool", "man-db", "groff-base", "bash-completion"),
]
_SIZE = "1G"
_UNIT = """\
[Unit]
Description=What this machine was started for

[Service]
Type=exec
ExecStart=/bin/sh -c '[ -e /srv/run ] || tar -xf /dev/nvme1n1 -C /srv; exec /srv/run'
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""
# They cost time at every boot, and nobody logs in.
_MASKED = [
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("man-db.timer", "systemd-tmpfiles-clean.timer", "getty.target", "systemd-firstboot.service"),
    *("e2scrub_reap.service", "systemd-update-utmp.service"),
]


def ready(directory: Path) -> tuple[Path, Path]:
    """Image and kernel below a directory, built unless they are there (a minute). Raises `CalledProcessError`."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    image, kernel = directory / f"{digest}.img", directory / f"{digest}.vmlinuz"
    if image.exists():
        return image, kernel
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory(dir=directory) as name:
        work = Path(name)
        root = work / "root"
        _bootstrap(root, work)
        _install_kernel(root, work, kernel)
        _configure(root)
        shutil.rmtree(root / "var/cache/apt")
        shutil.rmtree(root / "var/lib/apt/lists")
        unfinished = work / "image"
        _call("truncate", "-s", _SIZE, unfinished)
        _call("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", root, unfinished)
        unfinished.rename(image)
    return image, kernel


def _bootstrap(root: Path, work: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in ("locale", "doc")]
    # apt as set up for the new root, whatever the host's is like.
    fetch = f'cd {work} && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download -qq'
    depends = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-cache depends {_KERNEL} | sed -n "s/^  Depends: //p"'
    hook = f"--customize-hook={fetch} $({depends}) >/dev/null"
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory", hook, *excluded]
    _call(*command, f"--include={','.join(_PACKAGES)}", _SUITE, root)


def _install_kernel(root: Path, work: Path, kernel: Path) -> None:
    """dpkg would make an initrd; unpacked elsewhere, for the package has a /lib that is no link."""
    (package,) = work.glob("linux-image-*.deb")
    unpacked = work / "kernel"
    _call("dpkg-deb", "-x", package, unpacked)
    (modules,) = (unpacked / "lib/modules").iterdir()
    shutil.copytree(modules, root / "usr/lib/modules" / modules.name)
    _call("depmod", "-b", root, modules.name)
    shutil.copy(unpacked / f"boot/vmlinuz-{modules.name}", kernel)


def _configure(root: Path) -> None:
    (root / "etc/hostname").write_text("vm\n")
    (root / "etc/machine-id").write_text(f"{hashlib.md5(b'mpq').hexdigest()}\n")
    (root / "etc/fstab").write_text("/dev/nvme0n1 / ext4 rw,noatime 0 0\n")
    (root / "etc/systemd/system/payload.service").write_text(_UNIT)
    _call("systemctl", f"--root={root}", "--quiet", "enable", "payload.service", "systemd-networkd.service")
    _call("systemctl", f"--root={root}", "--quiet", "mask", *_MASKED)
    _call(
        "chroot", root, "python3", "-m", "compileall", "-q", "/usr/lib/python3.11", "/usr/lib/python3/dist-packages"
    )


def _call(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
