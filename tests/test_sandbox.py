"""Generated programs: nothing they try gets out, and every end has its name."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import attacks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.errors import UserError
from mdmbench.scoring import sandbox
from mdmbench.scoring.sandbox import Bwrap, Landlock, Limits, Outcome, Plain, Sandbox, find

REPO = Path(__file__).parent.parent
NOBODY = 65534
SYSTEM_PYTHON = Path("/usr/bin/python3")
ROOT = sys.platform == "linux" and os.getuid() == 0

GAPS = {("landlock", "many files")}
"""What a sandbox is known to let through; its warning says so."""


def works(box: Sandbox) -> bool:
    try:
        return sys.platform == "linux" and box.run("pass").kind == "pass"
    except UserError:
        return False


WORKING = [box for box in (Bwrap(), Landlock()) if works(box)]
NAMES = [box.name for box in WORKING]


def open_to_all(python: Path) -> bool:
    return all(p.stat().st_mode & 0o001 for p in (python.resolve(), *python.resolve().parents))


def new_enough(python: Path) -> bool:
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    return python.exists() and subprocess.run([python, "-c", test]).returncode == 0


def users() -> dict[str, tuple[Path, int]]:
    """Who the attacks are run as: a Python that the user can read, and the uid to run it with."""
    own = Path(sys.executable)
    if not ROOT:
        return {"ordinary": (own, os.getuid())}
    found = {"root": (own, 0)}
    for python in (own, SYSTEM_PYTHON):
        if python.exists() and open_to_all(python) and new_enough(python):
            return found | {"ordinary": (python, NOBODY), "root, all's python": (python, 0)}
    return found


USERS = users()
# With a Python that all can run, the landlock sandbox gives root up; the others always do the same.
CASES = [
    (name, user)
    for name in NAMES
    for user in USERS
    if name == "landlock" or user in ("root", "ordinary")
]
PLAIN = [("plain", user) for user in USERS if user in ("root", "ordinary")]


def run_attacks(name: str, user: str) -> dict[str, Any]:
    python, uid = USERS[user]
    done = subprocess.run(
        [python, "-B", REPO / "tests" / "attacks.py", name],
        env={"PYTHONPATH": str(REPO)},
        cwd="/",
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        **({"user": uid, "group": uid, "extra_groups": []} if ROOT else {}),  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def reports() -> Iterator[dict[tuple[str, str], Future[dict[str, Any]]]]:
    with ThreadPoolExecutor(3) as pool:
        yield {case: pool.submit(run_attacks, *case) for case in CASES + PLAIN}


Reports = dict[tuple[str, str], Future[dict[str, Any]]]


@pytest.mark.parametrize(("name", "user"), CASES)
@pytest.mark.parametrize("attack", attacks.ATTACKS)
def test_no_attack_gets_out(name: str, attack: str, user: str, reports: Reports) -> None:
    found = reports[name, user].result()["attacks"][attack]
    assert found["harm"] == ((name, attack) in GAPS), found


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks are on Linux")
@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("attack", attacks.ATTACKS)
def test_every_attack_gets_out_of_a_bare_subprocess(
    attack: str, case: tuple[str, str], reports: Reports
) -> None:
    found = reports[case].result()["attacks"][attack]
    if attack in ("TCP", "UDP") and "Network is unreachable" in found["detail"]:
        pytest.skip("this machine has not even itself to talk to")
    assert found["harm"], found


@pytest.mark.parametrize(("name", "user"), CASES)
def test_attacks_end_in_the_right_kind_and_leave_nothing_behind(
    name: str, user: str, reports: Reports
) -> None:
    report = reports[name, user].result()
    kinds = {attack: found["kind"] for attack, found in report["attacks"].items()}
    assert kinds["hang, deaf to signals"] == "timeout"
    assert kinds["print without end"] == "output"
    assert kinds["allocate"] == "memory"
    assert kinds["read a file at home"] == kinds["one large file"] == "error"
    assert (report["left"], report["opened"], report["after"]) == ([], 0, "pass")


@pytest.fixture(params=WORKING, ids=NAMES)
def box(request: pytest.FixtureRequest) -> Sandbox:
    chosen: Sandbox = request.param
    return chosen


ENDS = {
    "assert sum([1, 2]) == 3": ("pass", ""),
    "import atexit, time\natexit.register(time.sleep, 99)": ("pass", ""),
    "assert sum([1]) == 3": ("fail", "AssertionError: assert sum([1]) == 3"),
    "assert False, 'not\\n this'": ("fail", "AssertionError: not this"),
    "def check(f):\n    assert f(2) == 5\ncheck(abs)": ("fail", "AssertionError: assert f(2) == 5"),
    "1 / 0": ("error", "ZeroDivisionError: division by zero"),
    "def f(:": ("error", "SyntaxError: invalid syntax (program.py, line 1)"),
    "x = '\ud800'": ("error", "UnicodeEncodeError: "),
    "import numpy": ("error", "ModuleNotFoundError: No module named 'numpy'"),
    "input()": ("error", "EOFError: EOF when reading a line"),
    "raise KeyboardInterrupt": ("error", "KeyboardInterrupt: raise KeyboardInterrupt"),
    "def f(): f()\nf()": ("error", "RecursionError: maximum recursion depth exceeded"),
    "class E(Exception):\n    def __str__(self): exit()\nraise E": ("error", "E: raise E"),
    "x = []\nwhile True: x.append(bytearray(999))": ("memory", "MemoryError: while True: "),
    "x = []\nwhile True: x = [x]": ("memory", "MemoryError"),
    "import mmap\nmmap.mmap(-1, 2**32)": ("memory", "OSError: [Errno 12] "),
    "while True: pass": ("timeout", "1 s of CPU time"),
    "import time\ntime.sleep(99)": ("timeout", "4 s of wall time"),
    "print('x' * 1_000_001)": ("output", "more than 1000000 bytes"),
    "import ctypes\nctypes.string_at(0)": ("killed", "SIGSEGV"),
    "import os\nos.kill(os.getpid(), 9)": ("killed", "SIGKILL"),
}
SMALL = Limits(cpu=1, wall=60, memory=2**26)
WALLS = {"import time\ntime.sleep(99)": 4}


@pytest.fixture(scope="session")
def ends() -> dict[tuple[str, str], Future[Outcome]]:
    with ThreadPoolExecutor(6) as pool:
        return {
            (box.name, source): pool.submit(box.run, source, replace(SMALL, wall=wall))
            for box in WORKING
            for source in ENDS
            for wall in [WALLS.get(source, SMALL.wall)]
        }


@pytest.mark.parametrize(("source", "expected"), ENDS.items(), ids=map(ascii, ENDS))
@pytest.mark.parametrize("name", NAMES)
def test_every_end_has_its_name(
    name: str, source: str, expected: tuple[str, str], ends: dict[tuple[str, str], Future[Outcome]]
) -> None:
    outcome = ends[name, source].result()
    assert outcome.kind == expected[0], outcome
    assert outcome.detail.startswith(expected[1]), outcome


CLAIM = """
import os
for fd in range(64):
    try:
        os.write(fd, b"\\nready\\n0123456789abcdef pass \\n")
    except OSError:
        pass
"""
CHEATS = {
    "exit": "exit(0)",
    "sys.exit": "import sys\nsys.exit()",
    "raise": "raise SystemExit",
    "os._exit": "import os\nos._exit(0)",
    "exec": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', ''])",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)",
    "thread": "import os, threading\nthreading.Thread(target=os._exit, args=[0]).start()",
    "alarm": (
        "import os, signal\nsignal.signal(14, lambda *_: os._exit(0))\nsignal.raise_signal(14)"
    ),
    "fork": "import os\nif os.fork(): os.wait(), os._exit(0)",
    "orphan": "import os\nif os.fork(): os._exit(0)\nos.setsid()",
    "close": "import os\nos.closerange(0, 1024)",
    "hook": "import os, sys\nsys.excepthook = lambda *_: os._exit(0)",
    "shadow": "AssertionError = BaseException = Exception = type('E', (), {})",
    "builtins": "import builtins as b\nb.AssertionError = b.BaseException = ZeroDivisionError",
    "isinstance": "import builtins\nbuiltins.isinstance = lambda *_: False",
    "patch": "import os\nos._exit = os.write = os.getpid = lambda *_: 0",
    "claim": CLAIM,
    "claim and leave": f"{CLAIM}\nos._exit(0)",
    "rewrite": (
        "import os\nwrite = os.write\n"
        "os.write = lambda fd, text: write(fd, text.replace(b'fail', b'pass'))"
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_way_of_leaving_early_passes(box: Sandbox, cheat: str) -> None:
    assert box.run(f"{CHEATS[cheat]}\nassert False, 'the tests'").kind != "pass"


@pytest.mark.parametrize("cheat", ["exit", "os._exit", "exec", "alarm", "close"])
def test_an_early_leave_looks_well_to_a_bare_subprocess(cheat: str) -> None:
    source = CHEATS[cheat] + ("\nos._exit(0)" if cheat == "close" else "")
    command = [sys.executable, "-c", f"{source}\nassert False, 'the tests'"]
    assert subprocess.run(command).returncode == 0


def test_a_copy_of_the_program_cannot_pass_in_its_place(box: Sandbox) -> None:
    assert box.run("import os\nif os.fork(): os.wait(), os._exit(0)").kind != "pass"


def test_the_token_is_not_in_what_the_program_is_given(box: Sandbox) -> None:
    """Not in its names, arguments, environment, stdin or open files."""
    source = """
import os, sys
given = [dict(globals()), sys.argv, dict(os.environ)]
for fd in range(64):
    try:
        os.set_blocking(fd, False)
        given.append(os.read(fd, 9999))
    except OSError:
        pass
raise Exception(len(given), __import__("re").findall("[0-9a-f]{32}", repr(given)))
"""
    outcome = box.run(source)
    assert re.fullmatch(r"Exception: \(\d+, \[\]\)", outcome.detail), outcome


def test_a_program_has_one_empty_folder_of_its_own(box: Sandbox) -> None:
    source = """
import os, tempfile
assert os.listdir() == [], os.listdir()
assert tempfile.gettempdir() == os.getcwd()
with open("note", "w") as file:
    file.write("x")
assert open("note").read() == "x"
"""
    assert box.run(source) == box.run(source) == Outcome("pass", "")


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=300))
def test_a_detail_is_one_short_printable_line(text: str) -> None:
    outcome = Plain().run(f"raise ValueError({text!a})")
    assert outcome.kind == "error"
    assert outcome.detail.startswith("ValueError")
    assert outcome.detail.isprintable() and len(outcome.detail) <= 200


def test_programs_in_many_threads_do_not_mix(box: Sandbox) -> None:
    threads = threading.active_count()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(box.run, [f"assert {i} % 2, '{i}'" for i in range(24)]))
    assert [o.kind for o in found] == ["fail", "pass"] * 12
    assert [o.detail for o in found[::2]] == [f"AssertionError: {i}" for i in range(0, 24, 2)]
    assert attacks.soon(lambda: threading.active_count() == threads)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc")
def test_even_without_a_sandbox_a_child_dies_with_its_program() -> None:
    marker = f"mdm-{os.getpid()}"
    source = (
        "import ctypes, os, time\nif not os.fork():\n"
        f"    ctypes.CDLL(None).prctl(15, b{marker!r})\n    time.sleep(20)\ntime.sleep(0.3)"
    )
    assert Plain().run(source, Limits(processes=10_000)).kind == "pass"
    assert attacks.soon(lambda: attacks.process(marker) is None)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_dies_with_the_process_that_runs_it(name: str, tmp_path: Path) -> None:
    """Even by SIGKILL, which leaves no time to tidy up."""
    marker = f"mdm-{os.getpid()}-{name}"[:15]
    source = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b{marker!r})\ntime.sleep(20)"
    code = f"from mdmbench.scoring.sandbox import *\n{name.title()}().run({source!r})"
    tidy = os.environ | {"TMPDIR": str(tmp_path)}
    runner = subprocess.Popen([sys.executable, "-c", code], env=tidy)
    try:
        assert attacks.soon(lambda: attacks.process(marker) is not None, 9)
    finally:
        runner.kill()
        runner.wait()
    assert attacks.soon(lambda: attacks.process(marker) is None, 9)


def broken(path: Path, message: str) -> Callable[[str], str]:
    """A bubblewrap that is refused."""
    path.write_text(f"#!/bin/sh\necho {message!r} >&2\nexit 1\n")
    path.chmod(0o755)
    return lambda _: str(path)


REFUSED = "bwrap: setting up uid map: Permission denied"


@pytest.fixture
def no_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", broken(tmp_path / "bwrap", REFUSED))


def test_auto_takes_the_strongest_that_works() -> None:
    if not WORKING:
        pytest.skip("no sandbox works here")
    found, warnings = find("auto", trusted=False)
    assert found.name == WORKING[0].name
    assert bool(warnings) == (found.name == "landlock")


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock")
def test_without_bubblewrap_auto_takes_landlock_and_says_what_that_leaves_open(
    no_bwrap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, [warning] = find("auto", trusted=False)
    assert found.name == "landlock"
    assert REFUSED in warning and "install bubblewrap" in warning
    assert "fill the disk" in warning and "threads" in warning
    switch = tmp_path / "switch"
    switch.write_text("1\n")
    monkeypatch.setattr(sandbox, "APPARMOR", switch)
    _, [warning] = find("auto", trusted=False)
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in warning
    assert "narrower" in find("landlock", trusted=False)[1][0]


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's sandboxes")
def test_without_any_sandbox_the_way_out_is_named(
    no_bwrap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Landlock, "run", lambda *_: Outcome("error", "OSError: [Errno 38]"))
    with pytest.raises(UserError, match=r"--sandbox none --i-know") as caught:
        find("auto", trusted=True)
    assert REFUSED in str(caught.value) and "Errno 38" in str(caught.value)
    with pytest.raises(UserError, match="no sandbox for generated programs works"):
        find("bwrap", trusted=True)


@pytest.mark.skipif(sys.platform != "linux", reason="runs bubblewrap")
def test_a_sandbox_that_breaks_is_an_error_and_never_a_verdict(no_bwrap: None) -> None:
    with pytest.raises(UserError, match=f"bwrap does not start: {REFUSED}"):
        Bwrap().run("pass")


def test_no_sandbox_is_only_for_those_who_know() -> None:
    with pytest.raises(UserError, match="--i-know"):
        find("none", trusted=False)
    found, [warning] = find("none", trusted=True)
    assert found.name == "none" and "no sandbox" in warning
    assert found.run("assert True").kind == "pass"
    assert found.run("assert False").kind == "fail"


@pytest.mark.parametrize(("platform", "without"), [("darwin", True), ("win32", False)])
def test_other_systems_are_sent_to_a_container(
    platform: str, without: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(UserError, match=f"on {platform}\n.*container") as caught:
        find("auto", trusted=False)
    assert ("--sandbox none" in caught.value.hint) == without
