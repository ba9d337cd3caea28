"""One child process: started, waited for, and ended together with its session."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST = 2**16  # bytes read of what a child reports, and of the end of what it printed


@dataclass(frozen=True)
class Ended:
    """How a child process ended.

    seconds  wall time that it ran
    late     the wall limit ended it
    signal   the name of the signal it died of, or ""
    report   what it wrote to the pipe `job["report"]`
    printed  bytes on stdout and stderr together
    last     the last of the lines printed that is not blank, or ""
    """

    seconds: float
    late: bool
    signal: str
    report: str
    printed: int
    last: str


def run(command: Sequence[str], folder: str, job: Mapping[str, Any], wall: float) -> Ended:
    """Runs `command` in `folder`, with an empty environment, for at most `wall` seconds.

    It finds the job marshalled on stdin, with the number of the pipe to report on added to it.
    Raises OSError where it cannot be started.
    """
    receive, send = os.pipe()
    try:
        # Files and not pipes: nothing blocks, whatever a child reads, prints or leaves behind.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
            stdin.write(marshal.dumps({**job, "report": send}))
            stdin.seek(0)
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                pass_fds=[send],
                env={},
                cwd=folder,
                start_new_session=True,
            )
            seconds, late = _wait(process, wall)
            printed = os.fstat(output.fileno()).st_size
            last = _last_line(output, printed)
        death = _signal(process.returncode)
        return Ended(seconds, late, death, _read(receive), printed, last)
    finally:
        os.close(receive)
        os.close(send)


def _wait(process: subprocess.Popen[bytes], wall: float) -> tuple[float, bool]:
    """Waits, then ends what is left of the session; the seconds, and whether that was the limit."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end_session(process.pid)

    # A timer and not wait(timeout), which polls and so adds up to 50 ms to every program.
    timer = threading.Timer(wall, stop)
    start = time.monotonic()
    timer.start()
    try:
        process.wait()
    finally:
        timer.cancel()
        _end_session(process.pid)
        process.wait()
    return time.monotonic() - start, late.is_set()


def _end_session(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal(code: int) -> str:
    """bubblewrap passes a signal on as an exit code of 128 more, as shells do."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number).name if number in signal.valid_signals() else ""


def _read(pipe: int) -> str:
    """What is in the pipe now; something may still hold its other end."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, MOST).decode(errors="replace")
    except BlockingIOError:
        return ""


def _last_line(output: BinaryIO, size: int) -> str:
    output.seek(max(size - MOST, 0))
    lines = output.read(MOST).decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")
