"""What a hostile program may try, and whether it got through: run as a script, by `test_sandbox`.

`attacks.py NAME` runs every attack in the sandbox of that name ("plain" is a bare subprocess) and
prints one JSON document. Only the standard library, so that any user's Python can run it. Each
attack is aimed at a stage that the script sets up and takes down: files, sockets and a process of
its own. Harm is seen from the outside, or read in the error that the program ends with.
"""

import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdmbench.scoring.sandbox import LIMITS, Bwrap, Landlock, Limits, Outcome, Sandbox

LIFE = 20  # seconds that anything which gets away lives at most


class Plain:
    """No sandbox at all: what each attack does to a program runner that has none."""

    name = "plain"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, source: str, limits: Limits = LIMITS) -> Outcome:
        command = [sys.executable, "-c", source]
        try:
            done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=limits.cpu)
        except subprocess.TimeoutExpired:
            return Outcome("timeout", "still running")
        if done.returncode == 0:
            return Outcome("pass", "")
        return Outcome("error", done.stderr.decode().strip().split("\n")[-1])


class Stage:
    """What there is to attack, in a folder that stands for the user's home."""

    def __init__(self, root: Path) -> None:
        self.secret = os.environ["SECRET"] = secrets.token_hex(8)
        self.name = f"mdm-{self.secret}"[:15]
        self.home, self.shm = root / "home", Path(f"/dev/shm/mdmbench-{self.secret}")
        self.home.mkdir(mode=0o700)
        for name in ("secret", "long", "mode", "old"):
            (self.home / name).write_text(self.secret)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.home / "socket"))
        self.unix.listen()
        for listener in (self.tcp, self.udp, self.unix):
            listener.setblocking(False)
        self.victim = subprocess.Popen(["/bin/sleep", str(LIFE)])
        self.signalled = False
        signal.signal(signal.SIGUSR1, self._note)

    def _note(self, *_: object) -> None:
        self.signalled = True

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        self.shm.unlink(missing_ok=True)
        for listener in (self.tcp, self.udp, self.unix):
            listener.close()


def reached(listener: socket.socket) -> bool:
    with suppress(BlockingIOError):
        if listener.type == socket.SOCK_STREAM:
            listener.accept()[0].close()
        else:
            listener.recv(16)
        return True
    return False


def soon(condition: Callable[[], bool], seconds: float = 1) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.02)
    return condition()


def process(name: str) -> int | None:
    """The id of a process of that name that is not just waiting to be collected."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, _, rest = path.read_text(errors="replace").partition(f" ({name}) ")
            if rest and not rest.startswith("Z"):
                return int(path.parent.name)
    return None


def daemon_survives(stage: Stage, _: Outcome) -> bool:
    time.sleep(1)  # for one that is just ending
    found = process(stage.name)
    if found:
        os.kill(found, signal.SIGKILL)
    return found is not None


def tells(text: str) -> Callable[[Stage, Outcome], bool]:
    return lambda stage, outcome: text in outcome.detail


def leaks(stage: Stage, outcome: Outcome) -> bool:
    return stage.secret in outcome.detail


@dataclass(frozen=True)
class Attack:
    """source: a program, with the stage's places in <>; harm: whether it got through."""

    source: str
    harm: Callable[[Stage, Outcome], bool]
    limits: Limits = LIMITS


ATTACKS = {
    "read a file at home": Attack("raise Exception(open('<home>/secret').read())", leaks),
    "list the home": Attack("import os\nraise Exception(os.listdir('<home>'))", tells("secret")),
    "read the environment": Attack("import os\nraise Exception(os.environ['SECRET'])", leaks),
    "read another's environment": Attack(
        "raise Exception(open('/proc/<victim>/environ').read().partition('SECRET=')[2])", leaks
    ),
    "write at home": Attack(
        "open('<home>/new', 'w')", lambda stage, _: (stage.home / "new").exists()
    ),
    "write to shared memory": Attack("open('<shm>', 'w')", lambda stage, _: stage.shm.exists()),
    "write anywhere": Attack(
        """
import os, sys
for folder in ["/", "/dev", "/dev/shm", "/run", "/usr", "/var/tmp", sys.prefix]:
    try:
        open(f"{folder}/<name>", "w").close()
    except OSError:
        continue
    os.remove(f"{folder}/<name>")
    raise Exception(f"written to {folder}")
""",
        tells("written"),
    ),
    "remove a file": Attack(
        "import os\nos.remove('<home>/old')", lambda stage, _: not (stage.home / "old").exists()
    ),
    "empty a file": Attack(
        "import os\nos.truncate('<home>/long', 0)",
        lambda stage, _: not (stage.home / "long").read_text(),
    ),
    "open a file to all": Attack(
        "import os\nos.chmod('<home>/mode', 0o777)",
        lambda stage, _: (stage.home / "mode").stat().st_mode & 0o777 == 0o777,
    ),
    "TCP": Attack(
        "import socket\nsocket.create_connection(('127.0.0.1', <tcp>))",
        lambda stage, _: reached(stage.tcp),
    ),
    "UDP": Attack(
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', <udp>))",
        lambda stage, _: reached(stage.udp),
    ),
    "a unix socket at home": Attack(
        "import socket\nsocket.socket(socket.AF_UNIX).connect('<home>/socket')",
        lambda stage, _: reached(stage.unix),
    ),
    "signal the runner": Attack(
        "import os, signal\nos.kill(os.getppid(), signal.SIGUSR1)",
        lambda stage, _: soon(lambda: stage.signalled),
    ),
    "limit the runner": Attack(
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_MSGQUEUE, (7, 7))",
        lambda stage, _: resource.getrlimit(resource.RLIMIT_MSGQUEUE) == (7, 7),
    ),
    "kill another process": Attack(
        "import os\nos.kill(<victim>, 15)",
        lambda stage, _: soon(lambda: stage.victim.poll() is not None),
    ),
    "fork without end": Attack(
        f"""
import os, signal, time
children = []
for _ in range(30):
    try:
        children.append(os.fork())
    except OSError:
        break
    if not children[-1]:
        signal.alarm({LIFE})
        while True:
            signal.pause()
for child in children:
    os.kill(child, signal.SIGKILL)
raise Exception(f"{{len(children)}} forks")
""",
        tells("30 forks"),
    ),
    "a daemon": Attack(
        f"""
import ctypes, os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        ctypes.CDLL(None).prctl(15, b"<name>")
        os.closerange(0, 64)
        time.sleep({LIFE})
    os._exit(0)
os.wait()
time.sleep(0.2)
""",
        daemon_survives,
    ),
    "allocate": Attack(
        # bytes asks for zeroed memory and touches none of it: this costs the machine nothing.
        "x = bytes(3 << 29)\nraise Exception('allocated')",
        tells("allocated"),
    ),
    "hang, deaf to signals": Attack(
        """
import signal
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
""",
        tells("still running"),
        Limits(cpu=1),
    ),
    "print without end": Attack(
        """
for _ in range(20):
    print("x" * 2**20)
raise Exception("printed")
""",
        tells("printed"),
    ),
    "one large file": Attack(
        """
with open("large", "wb") as file:
    file.write(bytes(20 * 2**20))
raise Exception("written")
""",
        tells("written"),
    ),
    "many files": Attack(
        """
for number in range(10):
    with open(f"file{number}", "wb") as file:
        file.write(bytes(2**19))
raise Exception("written")
""",
        tells("written"),
        Limits(file=2**20),
    ),
}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def main(name: str) -> dict[str, Any]:
    """Every attack's outcome and harm, and what is left of them afterwards."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        temporary = Path(root, "temporary")
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        known: list[Sandbox] = [Bwrap(), Landlock(), Plain(Path(root))]
        [sandbox] = [box for box in known if box.name == name]
        stage = Stage(Path(root))
        places = {
            "home": stage.home,
            "shm": stage.shm,
            "name": stage.name,
            "victim": stage.victim.pid,
            "tcp": stage.tcp.getsockname()[1],
            "udp": stage.udp.getsockname()[1],
        }

        def attempt(attack: Attack) -> dict[str, Any]:
            source = attack.source
            for place, value in places.items():
                source = source.replace(f"<{place}>", str(value))
            outcome = sandbox.run(source, attack.limits)
            harm = attack.harm(stage, outcome)
            return {"kind": outcome.kind, "detail": outcome.detail, "harm": harm}

        before = descriptors()
        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(ATTACKS, pool.map(attempt, ATTACKS.values()), strict=True))
        left = [path.name for path in temporary.iterdir()]
        after = sandbox.run("pass").kind
        opened = descriptors() - before
        stage.close()
    return {"attacks": found, "left": left, "opened": opened, "after": after}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
