"""Confines the process that calls it, for good: Landlock for files, seccomp for all the rest.

Needs no rights and no library, only Linux 5.13 with Landlock switched on, on x86_64 or aarch64.
Landlock (docs.kernel.org/userspace-api/landlock.html) limits which files can be opened, made and
removed. A seccomp filter refuses the system calls that reach past that: it is a list of what is
denied, not of what is allowed, so it is a narrower wall than namespaces are.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterable

DENIED = {  # system call: its number on x86_64 and on aarch64, None where there is none
    # a new process, thread or namespace
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),
    # a way out of the process, or deep into the kernel
    "socket": (41, 198),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "pidfd_open": (434, 434),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    # the priority of another process
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # changes to a file that Landlock does not see
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
ONLY_ITSELF = {  # those whose first argument is a process: allowed on the caller itself
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

# Landlock's rights (uapi/linux/landlock.h); the k-th ABI knows the first RIGHTS[k - 1] of them.
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
EXECUTE, TRUNCATE, IOCTL_DEV = 1 << 0, 1 << 14, 1 << 15
RIGHTS = (13, 14, 15, 15, 16)
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True)


def confine(folder: str, readable: Iterable[str], devices: Iterable[str]) -> None:
    """From here on: `folder` can be written, `readable` and `devices` read, nothing else opened.

    No program can be executed, no process or thread started, no socket opened, no other process
    signalled. The capabilities are dropped, and the process dies with its parent.
    Raises OSError where the kernel or the machine does not offer all of it.
    """
    if os.uname().machine not in MACHINES:
        raise OSError(f"no list of system calls for {os.uname().machine}")
    _call(_libc.capset, (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)())
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    _prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    _limit_files(folder, readable, devices)
    _limit_calls()


def _limit_files(folder: str, readable: Iterable[str], devices: Iterable[str]) -> None:
    abi = _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    every = (1 << RIGHTS[min(abi, len(RIGHTS)) - 1]) - 1
    ruleset = _syscall(CREATE_RULESET, struct.pack("=Q", every), ctypes.c_size_t(8), 0)
    granted = {folder: every & ~EXECUTE & ~IOCTL_DEV}
    granted |= dict.fromkeys(readable, READ_FILE | READ_DIR)
    granted |= dict.fromkeys(devices, READ_FILE | WRITE_FILE)
    for path, rights in granted.items():
        beneath = os.open(path, os.O_PATH)
        _syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, beneath), 0)
        os.close(beneath)
    _syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _limit_calls() -> None:
    """The filter reads `struct seccomp_data`: number at 0, machine at 4, first argument at 16."""
    column, audit = MACHINES[os.uname().machine]
    load, equal, at_least, leave = 0x20, 0x15, 0x35, 0x06  # opcodes of classic BPF
    allow, deny, kill = 0x7FFF0000, 0x00050001, 0x80000000  # SECCOMP_RET_ALLOW, _ERRNO EPERM, _KILL
    filters = [(load, 0, 0, 4), (equal, 1, 0, audit), (leave, 0, 0, kill), (load, 0, 0, 0)]
    # x86_64 has each call twice; the second number of the pair lies above this one.
    filters += [(at_least, 0, 1, 0x40000000), (leave, 0, 0, deny)]
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            filters += [(equal, 0, 1, number), (leave, 0, 0, deny)]
    for numbers in ONLY_ITSELF.values():
        filters += [(equal, 0, 5, numbers[column]), (load, 0, 0, 16), (equal, 2, 0, 0)]
        filters += [(equal, 1, 0, os.getpid()), (leave, 0, 0, deny), (leave, 0, 0, allow)]
    filters.append((leave, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *f) for f in filters))
    program = struct.pack("@HP", len(filters), ctypes.addressof(code))
    _prctl(22, 2, program)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _syscall(*arguments: object) -> int:
    return _call(_libc.syscall, *arguments)


def _prctl(option: int, *arguments: object) -> None:
    """prctl reads five long arguments, and some options want the unused ones to be 0."""
    longs = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    _call(_libc.prctl, option, *longs, *[ctypes.c_ulong(0)] * (4 - len(longs)))


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = int(function(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
