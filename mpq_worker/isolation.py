"""What a worker does to itself at birth, in this order; afterwards it can only shrink further.

    1. weight: nice, CPU affinity (needs SYS_NICE for a negative nice; the last use of a privilege but setuid)
    2. limits: no core, no child, few descriptors
    3. a uid and gid of its own, no supplementary group; no capability in any set; no_new_privs; not dumpable
    4. seccomp, before any event loop exists
    5. proof: the kernel's own account in /proc/self/status is read back, anything unexpected is a HostFault

The filter is an allow-list of what loop, aioquic and interpreter do with descriptors that exist already:

    allowed     I/O on descriptors, epoll, eventfd, timerfd, socketpair, clocks, memory without PROT_EXEC,
                opening for reading only
    ENOSYS      io_uring (libuv then uses epoll), clone3 (glibc then asks for clone)
    killed      execve, ptrace and other calls that no mistake of ours makes: the worker has been taken over
    EPERM       the rest: an honest library that probes for a feature gets a plain error. That includes every
                signal (kill, tgkill: abort() then ends by an invalid instruction), fork and threads, new
                sockets, bind and connect
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pyprctl
import pyseccomp  # type: ignore[import-untyped]  # has no types

from mpq_worker.contract import Fork
from mpq_worker.errors import HostFault

MAX_DESCRIPTORS = 64

_ALLOWED = """
    read readv write writev recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg close shutdown
    epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6
    eventfd2 timerfd_create timerfd_settime timerfd_gettime pipe2 socketpair
    getsockname getpeername getsockopt setsockopt fcntl dup dup3
    fstat newfstatat statx lseek pread64 readlink readlinkat
    brk munmap mremap madvise membarrier futex
    clock_gettime clock_getres clock_nanosleep gettimeofday nanosleep
    getpid getppid gettid getuid geteuid getgid getegid getrandom sched_yield sched_getaffinity getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    sysinfo uname getrusage getcwd exit exit_group
""".split()  # noqa: SIM905 - words are easier to read so

_ABSENT = "io_uring_setup io_uring_enter io_uring_register clone3".split()  # noqa: SIM905 - words are easier to read so

_HOSTILE = """
    execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
    bpf perf_event_open userfaultfd unshare setns mount umount2 pivot_root chroot mount_setattr open_tree
    init_module finit_module delete_module kexec_load kexec_file_load keyctl add_key request_key
    open_by_handle_at swapon swapoff reboot
""".split()  # noqa: SIM905 - words are easier to read so

_PROT_EXEC = 4
_FIONBIO, _FIOCLEX = 0x5421, 0x5451  # Python's setblocking, libuv's close-on-exec
_TUNSETOFFLOAD, _TUNGETIFF = 0x400454D0, 0x800454D2  # of a TUN that is ours: what it may give and take
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)


def build_filter() -> pyseccomp.SyscallFilter:
    """The seccomp filter; built once by the zygote, loaded by every worker (0.3 ms).

    Raises OSError where libseccomp refuses a rule. Names that this architecture does not have are left out.
    """
    allow, deny = pyseccomp.ALLOW, pyseccomp.ERRNO(errno.EPERM)
    program = pyseccomp.SyscallFilter(deny)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for action, names in (
        (allow, _ALLOWED),
        (pyseccomp.ERRNO(errno.ENOSYS), _ABSENT),
        (pyseccomp.KILL_PROCESS, _HOSTILE),
    ):
        for name in names:
            number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
            if number >= 0:
                program.add_rule(action, number)
    for name in ("mmap", "mprotect"):
        program.add_rule(allow, name, pyseccomp.Arg(2, pyseccomp.MASKED_EQ, _PROT_EXEC, 0))
    for command in (_FIONBIO, _FIOCLEX, _TUNSETOFFLOAD, _TUNGETIFF):
        program.add_rule(allow, "ioctl", pyseccomp.Arg(1, pyseccomp.EQ, command))
    program.add_rule(allow, "openat", pyseccomp.Arg(2, pyseccomp.MASKED_EQ, _WRITING, os.O_RDONLY))
    return program


def isolate(identity: Fork, program: pyseccomp.SyscallFilter) -> None:
    """Makes the calling process, single-threaded and fresh from fork, the worker `identity`.

    Raises OSError or HostFault when any part of it cannot be had; the caller must exit then.
    """
    os.umask(0o077)
    os.chdir("/")
    os.setpriority(os.PRIO_PROCESS, 0, identity.nice)
    if identity.cpus:
        os.sched_setaffinity(0, identity.cpus)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))
    os.setgroups([])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    # Leaving uid 0 clears them, leaving another uid does not: the zygote may run as `mpq` with ambient ones.
    pyprctl.cap_ambient_clear_all()
    pyprctl.CapState(effective=set(), permitted=set(), inheritable=set()).set_current()
    pyprctl.set_no_new_privs()
    pyprctl.set_dumpable(False)
    program.load()
    _prove(identity)


def _prove(identity: Fork) -> None:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    nothing = "0" * 16
    expected = {
        "Uid": "\t".join([str(identity.uid)] * 4),
        "Gid": "\t".join([str(identity.gid)] * 4),
        "Groups": "",
        "CapInh": nothing,
        "CapPrm": nothing,
        "CapEff": nothing,
        "CapAmb": nothing,
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Threads": "1",
    }
    wrong = [f"{key} is {status.get(key)!r}" for key, value in expected.items() if status[key].strip() != value]
    if wrong or 0 in (identity.uid, identity.gid):
        raise HostFault(f"isolation of {identity.name} failed: {', '.join(wrong) or 'uid or gid 0'}")
