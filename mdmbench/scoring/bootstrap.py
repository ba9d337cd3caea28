"""Runs inside the sandbox, as a script: one generated program, watched from the same process.

The job comes marshalled on stdin; `sandbox.py` writes it. Two lines go back on a pipe: "ready"
before the program's first line, and "<token> <kind> <detail>" behind its last.
"""

import builtins
import errno
import marshal
import os
import resource
import sys
from types import ModuleType

NAME = "program.py"
SPARE = 2**22  # bytes held back, so that a memory full to the last byte can still be reported


def set_limits(limits: dict[str, int]) -> None:
    """The soft CPU limit ends a program; one that ignores its signal lives a second longer."""
    wanted = {
        resource.RLIMIT_CPU: (limits["cpu"], limits["cpu"] + 1),
        resource.RLIMIT_FSIZE: (limits["file"], limits["file"]),
        resource.RLIMIT_NOFILE: (limits["files"], limits["files"]),
        resource.RLIMIT_NPROC: (limits["processes"], limits["processes"]),
        resource.RLIMIT_CORE: (0, 0),
    }
    # macOS takes no limit below what a process maps at its start, which is more than this one.
    if sys.platform != "darwin":
        wanted[resource.RLIMIT_AS] = (limits["memory"], limits["memory"])
    for which, (soft, hard) in wanted.items():
        most = resource.getrlimit(which)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(which, (soft, hard))


def become(uid: int) -> None:
    """Gives up root for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def run(source: str) -> tuple[str, str]:
    """Runs the program as `__main__`; the kind and the detail of how it ended."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv[:] = [NAME]
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # missing under -S
    spare = bytes(SPARE)
    try:
        exec(compile(source, NAME, "exec"), module.__dict__)
    except BaseException as error:
        del spare
        return kind_of(error), describe(error, source)
    return "pass", ""


def kind_of(error: BaseException) -> str:
    if isinstance(error, AssertionError):
        return "fail"
    if isinstance(error, SystemExit):
        return "no-token"
    full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return "memory" if full or isinstance(error, MemoryError) else "error"


def describe(error: BaseException, source: str) -> str:
    """The exception in one line; one without a message shows the line that raised it."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # the program may have written this exception's __str__
        text = ""
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    shown = text or (source.splitlines()[line - 1].strip() if line else "")
    return f"{type(error).__name__}: {shown}"[:500]


def main() -> None:
    with open(0, "rb") as stdin:
        job = marshal.load(stdin)
    os.open(os.devnull, os.O_RDONLY)  # takes the number of the stdin that was just closed
    if job["landlock"]:
        sys.path.append(job["package"])
        from mdmbench.scoring import landlock

        sys.path.pop()
    if job["uid"]:
        become(job["uid"])
    if job["landlock"]:
        landlock.confine(*job["landlock"])
    set_limits(job["limits"])
    # Bound to locals, so that a program which replaces them in their modules replaces nothing here.
    getpid, write, leave = os.getpid, os.write, os._exit
    pid, report, token = getpid(), job["report"], job["token"]
    source = job["source"]
    del job
    write(report, b"ready\n")
    kind, detail = run(source)
    if getpid() == pid:
        write(report, f"\n{token} {kind} {detail}\n".encode(errors="backslashreplace"))
    leave(0)


main()
