"""Whole commands, as a user types them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mdmbench import bundled
from mdmbench.cli import app

REPO = Path(__file__).parent.parent
EXCHANGE = REPO.parent / "shared" / "data" / "sudoku_exchange_2427.csv"
PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"


def mdmbench(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def fails(*arguments: str | Path) -> str:
    """The message of a command that the user got wrong."""
    result = mdmbench(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


def document(result: Any) -> dict[str, Any]:
    """The last line of stdout."""
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.rstrip("\n").splitlines()[-1])
    assert isinstance(found, dict)
    return found


def block(name: str) -> str:
    """The README's code block that begins with `# name`."""
    found = re.search(rf"```python\n# {name}\n(.*?)```", (REPO / "README.md").read_text(), re.S)
    assert found
    return found[1]


def test_the_main_job_prints_eb_beside_its_baseline(tmp_path: Path) -> None:
    result = mdmbench("run", "--gamma", "0.1", "--limit", "6", "--out", tmp_path, "--json")
    rows = document(result)["rows"]
    assert [(r["sampler"], r["baseline"]) for r in rows] == [("topk", True), ("eb", False)]
    assert rows[1]["knobs"] == {"gamma": 0.1, "proxy": "entropy"}
    assert rows[1]["speedup"]["nfe"]["value"] > 2
    assert rows[0]["n"] == rows[1]["n"] == 6
    assert "eb" in result.stderr and "topk" in result.stderr


def test_a_list_of_values_runs_each_and_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    command = ["run", "--gamma", "0.1,0.5", "--limit", "4", "--out", str(tmp_path), "--json"]
    first = document(mdmbench(*command))
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records.jsonl")}
    assert len(files) == 3
    assert document(mdmbench(*command)) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records.jsonl")} == files
    more = document(mdmbench(*[*command, "--limit", "6"]))
    assert [row["n"] for row in more["rows"]] == [6, 6, 6]


def test_the_batch_size_changes_no_token_and_no_nfe(tmp_path: Path) -> None:
    """On the shipped models, in fp32."""
    for task in ("sudoku", "maze"):
        found = []
        for batch_size in ("1", "64"):
            out = tmp_path / task / batch_size
            arguments = ["run", "--task", task, "--gamma", "0.01", "--no-baseline", "--limit", "8"]
            assert mdmbench(*arguments, "--batch-size", batch_size, "--out", out).exit_code == 0
            (file,) = out.rglob("records.jsonl")
            records = [json.loads(line) for line in file.read_text().splitlines()]
            keys = ("answer", "nfe", "committed_at", "forced", "scores")
            found.append({r["id"]: [r[k] for k in keys] for r in records})
        assert found[0] == found[1]


def test_every_built_in_sampler_runs(tmp_path: Path) -> None:
    from mdmbench.samplers import SAMPLERS
    from mdmbench.samplers.presets import PRESETS

    names = ",".join([*SAMPLERS, *PRESETS])
    arguments = ["run", "--sampler", names, "--limit", "2", "--out", tmp_path, "--json"]
    rows = document(mdmbench(*arguments))["rows"]
    assert {r["sampler"] for r in rows} == {*SAMPLERS, *PRESETS}
    assert all(0 <= r["scores"]["solved"]["value"] <= 1 for r in rows)


def test_the_readmes_sampler_works_from_her_own_file(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(block("my.py"))
    mine = f"{tmp_path / 'my.py'}:Mine"
    arguments = ["run", "--sampler", mine, "-S", "tau=0.8", "--limit", "4", "--json"]
    rows = document(mdmbench(*arguments, "--out", tmp_path / "out"))["rows"]
    assert rows[1]["sampler"] == mine
    assert rows[1]["knobs"] == {"tau": 0.8}
    assert "unknown knob" in fails(*arguments[:3], "-S", "tua=1", "--out", tmp_path)
    assert "tau" in fails(*arguments[:3], "-S", "tua=1", "--out", tmp_path)


def test_an_edited_sampler_is_another_run(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    command = ["run", "--sampler", f"{file}:Mine", "--limit", "2", "--no-baseline", "--out"]
    for source in (block("my.py"), block("my.py").replace("/ 2", "/ 3")):
        file.write_text(source)
        assert mdmbench(*command, tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_readmes_task_works_from_her_own_file(tmp_path: Path) -> None:
    (tmp_path / "copies.py").write_text(block("copies.py"))
    task = f"{tmp_path / 'copies.py'}:Copies"
    arguments = ["run", "--task", task, "--model", "sudoku", "--limit", "5", "--json"]
    rows = document(mdmbench(*arguments, "--out", tmp_path / "out"))["rows"]
    assert rows[1]["scores"]["right"]["value"] == 1
    assert rows[1]["nfe"]["value"] == 1


def test_a_data_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"id,bucket,puzzle\none,easy,{PUZZLE}\n")
    arguments = ["run", "-T", f"data={tmp_path / 'p.csv'}", "--json", "--out", tmp_path / "out"]
    assert document(mdmbench(*arguments))["rows"][0]["n"] == 1


@pytest.mark.skipif(not EXCHANGE.exists(), reason="needs the exchange puzzles")
def test_some_gamma_is_four_times_cheaper_within_two_points(tmp_path: Path) -> None:
    arguments = ["run", "-T", f"data={EXCHANGE}", "-T", "bucket=easy", "--gamma", "0.01,0.1"]
    rows = document(mdmbench(*arguments, "--limit", "40", "--json", "--out", tmp_path))["rows"]
    top1 = rows[0]["scores"]["solved"]["value"]
    assert any(
        r["scores"]["solved"]["value"] >= top1 - 0.02 and r["speedup"]["nfe"]["value"] >= 4
        for r in rows[1:]
    )


def test_tables_can_be_made_again_in_every_format(tmp_path: Path) -> None:
    assert mdmbench("run", "--limit", "4", "--out", tmp_path / "out").exit_code == 0
    for format, sign in {"rich": "NFE", "markdown": "|", "latex": "toprule", "csv": ","}.items():
        result = mdmbench("table", tmp_path / "out", "--format", format)
        assert result.exit_code == 0 and sign in result.stdout
    assert document(mdmbench("table", tmp_path / "out", "--json"))["schema"] == 1
    picture = tmp_path / "pareto.svg"
    assert mdmbench("table", tmp_path / "out", "--figure", picture).exit_code == 0
    assert "<svg" in picture.read_text()


def test_list_names_what_there_is(tmp_path: Path) -> None:
    result = mdmbench("list", "--out", tmp_path)
    for name in ("eb", "gamma=0.1", "dream-entropy", "sudoku", "maze", "ci"):
        assert name in result.stdout


def test_a_recipe_is_laid_under_the_options(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "limit: 3\nseed: 5\nruns:\n- {sampler: eb, gamma: [0.2, 0.3]}\n"
    )
    arguments = ["run", "--config", tmp_path / "r.yaml", "--json", "--out", tmp_path / "out"]
    rows = document(mdmbench(*arguments, "--no-baseline"))["rows"]
    assert [r["knobs"]["gamma"] for r in rows] == [0.2, 0.3]
    assert [r["n"] for r in rows] == [3, 3]


@pytest.mark.parametrize("path", sorted(bundled.CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_bundled_recipe_is_a_plan(path: Path) -> None:
    from mdmbench import resolve, spec

    for planned in spec.plan(spec.recipe(path).settings):
        resolve.sampler(planned.sampler, planned.knobs)
        resolve.task(planned.task, planned.task_knobs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler", "eeb"], "did you mean 'eb'?"),
        (["--task", "sodoku"], "did you mean 'sudoku'?"),
        (["--model", "sudok"], "did you mean 'sudoku'?"),
        (["--k", "2"], "unknown knob of sampler eb 'k'"),
        (["-S", "gama=1"], "did you mean 'gamma'?"),
        (["-S", "gamma"], "'gamma' is no NAME=VALUE"),
        (["-T", "sise=4"], "did you mean 'side'?"),
        (["--gamma", "-0.1"], "gamma is -0.1"),
        (["--gamma", "nan"], "gamma is nan"),
        (["--gamma", "much"], "gamma is 'much'"),
        (["--sampler", "topk", "--k", "0"], "k is 0"),
        (["--sampler", "topk", "--proxy", "entrpy"], "did you mean 'entropy'?"),
        (["--block-length", "10"], "block length 10 does not divide the answer's 81 positions"),
        (["--block-length", "0"], "block_length is 0"),
        (["--steps", "5"], "follows no schedule"),
        (["--sampler", "topk", "--k", "2", "--steps", "5"], "follows no schedule"),
        (["--sampler", "llada", "--schedule", "liner"], "did you mean 'linear'?"),
        (["--sampler", "llada", "--block-length", "27", "--steps", "10"], "do not divide into 3"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--dtype", "float8"], "dtype is 'float8'"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--task", "maze", "--model", "sudoku"], "cannot hold task maze"),
        (["-T", "side=4"], "the canvas has 16 positions, the model is made for 81"),
        (["--config", "sudoko"], "did you mean 'sudoku'?"),
        (["-T", "data=nowhere.csv"], "cannot read nowhere.csv"),
        (["--sampler", "nowhere.py:Mine"], "no file 'nowhere.py'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_message(arguments: list[str], says: str, tmp_path: Path) -> None:
    message = fails("run", "--limit", "2", "--out", tmp_path, *arguments)
    assert says in message
    assert message.startswith("error: ")
    assert len(message.splitlines()) <= 3
    assert not list(tmp_path.rglob("records.jsonl")) or all(
        not p.read_text() for p in tmp_path.rglob("records.jsonl")
    )


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    folder = bundled.models()["sudoku"]
    (tmp_path / "m").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "m" / file).write_bytes((folder / file).read_bytes())
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    out = tmp_path / "out"
    assert "model.safetensors" in fails("run", "--model", tmp_path / "m", "--out", out)
    config = tmp_path / "m" / "config.json"
    weights.write_bytes((folder / "model.safetensors").read_bytes())
    config.write_text(config.read_text().replace('"width": 128', '"width": 64'))
    assert "wrong shape" in fails("run", "--model", tmp_path / "m", "--out", out)


def test_results_that_cannot_be_written_are_a_mistake_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in fails("run", "--limit", "2", "--out", tmp_path / "file" / "results")


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    command = ["run", "--gamma", "0", "--no-baseline", "--limit", "64", "--batch-size", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mdmbench", *command, "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as a test run may be, hands down that it ignores interruptions.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.rglob("records.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(2)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "take up where they stopped" in message
    assert "Traceback" not in message
    (file,) = tmp_path.rglob("records.jsonl")
    assert file.read_text().endswith("\n")
    assert len(file.read_text().splitlines()) < 64


COMMANDS = ["", "run", "sweep", "check", "noise", "table", "compare", "report", "show", "rescore"]
COMMANDS += ["list", "doctor", "train", "bench"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_torch(command: str) -> None:
    code = (
        "import sys, mdmbench.cli as c\n"
        "try: c.app()\n"
        "finally: print('LOADED', sorted({'torch', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    arguments = [a for a in (command, "--help") if a]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    assert done.stdout.rstrip().endswith("LOADED []")


def test_a_wheel_installed_elsewhere_runs_the_main_job(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(REPO)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(tmp_path / "site"), str(wheel)], check=True)
    code = "import mdmbench.cli as c; print(c.__file__); c.app()"
    arguments = ["run", "--sampler", "eb", "--gamma", "0.1", "--limit", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert Path(lines[0]).is_relative_to(tmp_path / "site")
    assert [r["sampler"] for r in json.loads(lines[-1])["rows"]] == ["topk", "eb"]
