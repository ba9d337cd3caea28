"""The published samplers' own decode traces, reproduced commit by commit."""

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import document, mdmbench
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mdmbench.base import NEVER, Canvas, Choice, Decoded, Sampler
from mdmbench.decoding import Decoding
from mdmbench.loop import decode, progress
from mdmbench.models.checkpoint import load
from mdmbench.models.encoder import NativeModel
from mdmbench.samplers import SAMPLERS
from mdmbench.samplers.presets import PRESETS, Preset
from mdmbench.schedule import Schedule
from mdmbench.step import Draw, Step

GOLDEN = Path(__file__).parent / "golden" / "traces"

FILES = {
    "llada_low_confidence": "llada",
    "llada_batch_left_pad": "llada",
    "fastdllm_threshold": "threshold",
    "fastdllm_factor": "factor",
    "fastdllm_factor_asis": "fast-dllm-factor",
    "dream_maskgit_plus": "dream-maskgit-plus",
    "dream_topk_margin": "dream-topk-margin",
    "dream_entropy": "dream-entropy",
    "dream_fastdllm_threshold": "fast-dllm-dream",
    "eb_llada": "eb",
    "eb_dream": "eb",
}
KNOBS = {"threshold": "threshold", "factor": "factor", "gamma": "gamma", "error_proxy": "proxy"}


@lru_cache
def model(name: str) -> NativeModel:
    return load(
        GOLDEN / name.removeprefix("traces/"), device=torch.device("cpu"), dtype=torch.float32
    )


def read(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def setting(name: str, settings: dict[str, Any]) -> tuple[Sampler, Decoding, int]:
    """The rule, the loop's settings and the answer's length for one group of a trace file."""
    preset = PRESETS.get(name, Preset(name))
    knobs = {KNOBS[k]: v for k, v in settings.items() if k in KNOBS} | dict(preset.knobs)
    length = settings.get("gen_length", settings.get("max_new_tokens"))
    block = settings.get("block_length")
    schedule = None
    if preset.schedule:
        schedule = Schedule(preset.schedule, settings["steps"] * (block or length) // length)
    draw = Draw(top_p=settings.get("top_p"), top_k=settings.get("top_k"), filtered=preset.filtered)
    how = Decoding(block_length=block, schedule=schedule, draw=draw)
    return SAMPLERS[preset.sampler](**knobs), how, length


def commits(decoded: Decoded) -> list[list[tuple[int, int]]]:
    """Per step, the (position, token) pairs it committed."""
    steps: list[list[tuple[int, int]]] = [[] for _ in range(decoded.nfe)]
    for position, (at, token) in enumerate(zip(decoded.committed_at, decoded.tokens, strict=True)):
        if at != NEVER:
            steps[at].append((position, token))
    return steps


def expected(steps: list[dict[str, Any]], shift: int = 0) -> list[list[tuple[int, int]]]:
    return [[(c[0] - shift, c[1]) for c in step["commits"]] for step in steps]


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("file", FILES)
def test_every_commit_of_the_golden_traces_is_reproduced(file: str, batch_size: int) -> None:
    trace = read(file)
    net = model(trace["model"])
    for group in trace["groups"]:
        sampler, decoding, length = setting(FILES[file], group["settings"])
        cases = group.get("cases") or group["rows"]
        canvases = [
            Canvas(str(i), (*c["prompt_ids"], *[net.mask_id] * length), len(c["prompt_ids"]))
            for i, c in enumerate(cases)
        ]
        done = decode(net, sampler, canvases, batch_size=batch_size, decoding=decoding)
        by_id = {d.id: d for d in done}
        for i, case in enumerate(cases):
            prompt = len(case["prompt_ids"])
            padding = group["settings"].get("width", prompt) - prompt
            assert commits(by_id[str(i)]) == expected(case["steps"], padding), group["settings"]
            answer = case.get("generated_ids") or case["final_ids"][prompt:]
            assert list(by_id[str(i)].tokens[prompt:]) == answer
            assert by_id[str(i)].nfe == case.get("nfe", group.get("forwards"))


@pytest.mark.parametrize("file", FILES)
def test_scores_are_those_of_the_golden_traces(file: str) -> None:
    """Confidence, entropy and margin at each committed position, as far as fp32 logits go."""
    trace = read(file)
    net = model(trace["model"])
    for group in trace["groups"]:
        sampler, decoding, length = setting(FILES[file], group["settings"])
        case = (group.get("cases") or group["rows"])[0]
        prompt = case["prompt_ids"]
        padding = group["settings"].get("width", len(prompt)) - len(prompt)
        wanted = [
            [c[0] - padding, *c[2:]] for step in case["steps"] for c in sorted(step["commits"])
        ]
        seen: list[list[float]] = []

        def watched(step: Step) -> Choice:
            choice = sampler(step)  # noqa: B023
            commit, _ = progress(step, choice)
            columns = step.positions, step.confidence, step.entropy, step.margin
            seen.extend(torch.stack([c[commit].double() for c in columns], 1).tolist())  # noqa: B023
            return choice

        canvas = Canvas("0", (*prompt, *[net.mask_id] * length), len(prompt))
        list(decode(net, watched, [canvas], batch_size=1, decoding=decoding))
        torch.testing.assert_close(torch.tensor(seen), torch.tensor(wanted), atol=2e-5, rtol=0)


TASK = """
import json
from dataclasses import dataclass
from pathlib import Path

from mdmbench.base import Question


@dataclass(frozen=True)
class Cases:
    data: str
    name = "cases"
    version = "1"
    headline = "whole"
    gen_length = 32
    chat = False
    stops = ()
    finish = ""

    def examples(self, limit, seed):
        for i, ids in enumerate(json.loads(Path(self.data).read_text())):
            yield Question(str(i), " ".join(f"t{id}" for id in ids), "")

    def score(self, question, answer):
        return {"whole": float(len(answer.split()) == answer.count("t"))}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models of the traces, with a tokenizer in which token 5 is the word t5."""
    out = tmp_path_factory.mktemp("traces")
    vocab = {"<eos>" if i == 240 else f"t{i}": i for i in range(256)}
    words = Tokenizer(models.WordLevel(vocab, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for name in ("llada", "dream"):
        shutil.copytree(GOLDEN / "models" / name, out / name)
        made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
        made.save_pretrained(out / name)
    (out / "cases.py").write_text(TASK)
    return out


@pytest.mark.parametrize("file", FILES)
def test_the_command_line_reproduces_the_golden_traces(
    file: str, folders: Path, tmp_path: Path
) -> None:
    """One group of each: from a prompt in words to a record of what was committed when."""
    trace = read(file)
    group = trace["groups"][-1]
    settings, cases = group["settings"], group.get("cases") or group["rows"]
    (tmp_path / "data.json").write_text(json.dumps([c["prompt_ids"] for c in cases]))
    names = {**KNOBS, "top_p": "top-p", "top_k": "top-k", "block_length": "block-length"}
    names |= {"gen_length": "gen-length", "max_new_tokens": "gen-length"}
    if PRESETS.get(FILES[file], Preset("")).schedule:
        names["steps"] = "steps"
    given = {names[k]: v for k, v in settings.items() if k in names and v is not None}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    options += ["-T", f"data={tmp_path / 'data.json'}", "--sampler", FILES[file]]
    folder = folders / trace["model"].rpartition("/")[2]
    command = ("run", "--model", folder, "--task", f"{folders / 'cases.py'}:Cases", *options)
    document(mdmbench(*command, "--no-baseline", "--out", tmp_path / "out", "--json"))
    (kept,) = (tmp_path / "out").glob("*/records.jsonl")
    records = {r["id"]: r for r in map(json.loads, kept.read_text().splitlines())}
    for i, case in enumerate(cases):
        prompt = len(case["prompt_ids"])
        padding = settings.get("width", prompt) - prompt
        wanted = expected(case["steps"], padding)
        steps = {position - prompt: at for at, step in enumerate(wanted) for position, _ in step}
        tokens = {position - prompt: f"t{token}" for step in wanted for position, token in step}
        record = records[str(i)]
        assert record["committed_at"] == [steps[j] for j in range(len(steps))]
        assert record["pieces"] == [tokens[j] for j in range(len(tokens))]
        assert record["scores"] == {"whole": 1.0}
        assert record["nfe"] == case.get("nfe", group.get("forwards"))
