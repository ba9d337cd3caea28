"""Runs generated programs where they can do no harm, and says how each of them ended.

    bwrap     bubblewrap: own namespaces without a network, and a file system of nothing but the
              interpreter, /usr and one small folder in memory
    landlock  where bubblewrap is refused: the process confines itself, see `landlock.py`
    none      limits and a time-out only; for a container or a machine with nothing on it

All three give a program a fresh interpreter (-I -S: only the standard library), an empty
environment, an empty folder, no stdin, and rlimits on CPU time, memory, file size, processes and
open files; what it started ends with it, except under none a process that left its session. The
CPU limit is the one that counts: it does not depend on how busy the machine is. Root is given up
for a user id that nobody has, or under landlock for a root without capabilities.

A program passes if it runs to its end, shown by a random token that `bootstrap.py` sends then, so
exit codes and output prove nothing. What this cannot stop is a program that sets out to cheat: it
shares its process with its tests, so it can search the interpreter's frames for the token, skip
lines by tracing, or return an object that equals everything.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from mdmbench.errors import UserError
from mdmbench.scoring import child

Kind = Literal["pass", "fail", "error", "timeout", "memory", "output", "killed", "no-token"]
"""How a program ended.

pass      it ran to its end
fail      an assertion did not hold
error     any other exception, bad syntax among them
timeout   the CPU or the wall limit
memory    the memory limit
output    more printed than is allowed
killed    a signal, a crash of the interpreter among them
no-token  it left before its end: exit(), os._exit(), exec
"""

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"]
SPARE_UIDS = range(60578, 61184)  # nobody's, by systemd's table of user ids
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


@dataclass(frozen=True)
class Outcome:
    """detail: the error in one printable line of at most 200 characters, or ""."""

    kind: Kind
    detail: str


@dataclass(frozen=True)
class Limits:
    """Seconds (cpu, wall), bytes (memory, file, output), counts (processes, files).

    memory and file are per process and per file; files are the open ones.
    """

    cpu: int = 10
    wall: float = 30
    memory: int = 2**30
    file: int = 16 * 2**20
    output: int = 10**6
    processes: int = 8
    files: int = 64


LIMITS = Limits()


class Sandbox(Protocol):
    """May be used by many threads and processes at once."""

    @property
    def name(self) -> str: ...

    def run(self, source: str, limits: Limits = LIMITS) -> Outcome:
        """Runs one program. Raises UserError where the sandbox itself does not start."""
        ...


class Bwrap:
    name = "bwrap"

    def run(self, source: str, limits: Limits = LIMITS) -> Outcome:
        root = os.getuid() == 0
        command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--cap-drop", "ALL"]
        if root:
            # A namespace of users would make root's processes root's again, and those know no
            # limit on their number. So root stays outside, and the bootstrap gives it up.
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command.append("--unshare-user")
        for namespace in ("ipc", "pid", "net", "uts", "cgroup-try"):
            command.append(f"--unshare-{namespace}")
        # Made by hand, a folder on the way is open to all; by bubblewrap only as open as outside.
        for folder in (Path("/dev"), *reversed(_prefix().parents[:-1])):
            command += ["--dir", str(folder)]
        for path in _system():
            command += ["--ro-bind", path, path]
        for path in ("/bin", "/lib", "/lib64"):
            if Path(path).is_symlink():
                command += ["--symlink", str(Path(path).readlink()), path]
        for path in DEVICES:
            command += ["--dev-bind", path, path]
        command += ["--ro-bind", str(BOOTSTRAP), "/bootstrap.py"]
        command += ["--perms", "1777", "--size", str(2 * limits.file), "--tmpfs", "/tmp"]
        command += ["--remount-ro", "/", "--chdir", "/tmp", "--", *_python("/bootstrap.py")]
        return _run(self.name, command, "/", source, limits, uid=_spare_uid() if root else 0)


class Landlock:
    name = "landlock"

    def run(self, source: str, limits: Limits = LIMITS) -> Outcome:
        with _folder() as folder:
            # Root whose interpreter only root may read stays root, without its capabilities.
            places = _prefix(), Path(folder).parent
            uid = _spare_uid() if os.getuid() == 0 and all(map(_open_to_all, places)) else 0
            if uid:
                os.chown(folder, uid, uid)
            walls = (folder, _system(), DEVICES)
            command = _python(str(BOOTSTRAP))
            return _run(self.name, command, folder, source, limits, uid=uid, landlock=walls)


class Plain:
    name = "none"

    def run(self, source: str, limits: Limits = LIMITS) -> Outcome:
        with _folder() as folder:
            return _run(self.name, _python(str(BOOTSTRAP)), folder, source, limits)


def find(
    name: Literal["auto", "bwrap", "landlock", "none"], *, trusted: bool
) -> tuple[Sandbox, list[str]]:
    """A sandbox that works here, tried with a small program, and warnings to show once.

    trusted: the user said that the programs may run without a sandbox; "none" needs it.
    Raises UserError where there is none of that name, or none at all.
    """
    if name == "none":
        if not trusted:
            message = "--sandbox none runs generated programs with all your rights"
            raise UserError(message, "add --i-know if that is meant, in a container for example")
        return Plain(), ["no sandbox: generated programs can read your files and use the network"]
    if sys.platform != "linux":
        hint = "run it on Linux or in a Linux container"
        if sys.platform == "darwin":
            hint += ", or without a sandbox: --sandbox none --i-know"
        raise UserError(f"there is no sandbox for generated programs on {sys.platform}", hint)
    refusals: list[str] = []
    for sandbox in (Bwrap(), Landlock()):
        if name in ("auto", sandbox.name):
            refusal = _refusal(sandbox)
            if not refusal:
                return sandbox, _warnings(sandbox, refusals)
            refusals.append(refusal)
    raise UserError(
        f"no sandbox for generated programs works here: {'; '.join(refusals)}",
        f"{_way_out()}; or run them without one, in a container: --sandbox none --i-know",
    )


def _refusal(sandbox: Sandbox) -> str:
    """Why the sandbox does not work here; "" if it does."""
    try:
        outcome = sandbox.run("import decimal\nassert decimal.Decimal(1) == 1")
    except UserError as error:
        return error.message
    return "" if outcome.kind == "pass" else f"{sandbox.name}: {outcome.kind} {outcome.detail}"


def _warnings(sandbox: Sandbox, refusals: list[str]) -> list[str]:
    if sandbox.name == "bwrap":
        return []
    text = (
        "generated programs run under Landlock and seccomp, a narrower sandbox than bubblewrap: "
        "they can fill the disk of the folder for temporary files and learn whether a file exists, "
        "and they cannot start threads or processes"
    )
    return [f"{text} ({refusals[0]}; {_way_out()})" if refusals else text]


def _way_out() -> str:
    with suppress(OSError):
        if APPARMOR.read_text().strip() == "1":
            switch = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            return f"AppArmor keeps bubblewrap from making namespaces, {switch} allows it"
    return "install bubblewrap 0.8 or newer, and allow it to make namespaces"


def _prefix() -> Path:
    return Path(sys.base_prefix).resolve()


def _python(script: str) -> list[str]:
    """The interpreter under the virtual environment, in UTF-8 whatever the locale."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [str(_prefix() / "bin" / version), "-I", "-S", "-X", "utf8", script]


def _system() -> list[str]:
    """The folders that an interpreter needs to run."""
    folders = [Path("/usr"), Path("/lib"), Path("/lib64")]
    if not _prefix().is_relative_to("/usr"):
        folders.append(_prefix())
    return [str(f) for f in folders if f.is_dir() and not f.is_symlink()]


def _open_to_all(path: Path) -> bool:
    return all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def _spare_uid() -> int:
    return secrets.choice(SPARE_UIDS)


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mdmbench-", ignore_cleanup_errors=True)


def _run(
    name: str,
    command: Sequence[str],
    folder: str,
    source: str,
    limits: Limits,
    uid: int = 0,
    landlock: Sequence[Any] = (),
) -> Outcome:
    """Runs the bootstrap by `command` in `folder`.

    uid       who root becomes before the program runs; 0: nobody else
    landlock  the arguments of `landlock.confine`; empty: the command confines
    """
    token = secrets.token_hex(16)
    job = {
        "source": source,
        "token": token,
        "limits": asdict(limits),
        "uid": uid,
        "landlock": tuple(landlock),
        "package": str(BOOTSTRAP.parents[2]),
    }
    try:
        end = child.run(command, folder, job, limits.wall)
    except OSError as error:
        raise _no_start(name, str(error)) from error
    if not end.report.startswith("ready\n"):
        raise _no_start(name, _printable(end.last) or end.signal)
    if end.late:
        return Outcome("timeout", f"{limits.wall:g} s of wall time")
    # SIGKILL follows for a program that ignores SIGXCPU.
    spent = end.signal == "SIGKILL" and end.seconds >= limits.cpu
    if end.signal == "SIGXCPU" or spent:
        return Outcome("timeout", f"{limits.cpu} s of CPU time")
    if end.printed > limits.output:
        return Outcome("output", f"more than {limits.output} bytes")
    said, _, verdict = end.report.rstrip("\n").split("\n")[-1].partition(" ")
    if said == token:
        kind, _, detail = verdict.partition(" ")
        return Outcome(cast(Kind, kind), _printable(detail))
    if end.signal:
        return Outcome("killed", _printable(f"{end.signal} {end.last}"))
    return Outcome("no-token", _printable(end.last))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:200]


def _no_start(name: str, reason: str) -> UserError:
    hint = _way_out() if name == "bwrap" else ""
    return UserError(f"the sandbox {name} does not start: {reason}", hint)
