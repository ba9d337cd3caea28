"""The published samplers' own decode traces, reproduced commit by commit."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from mdmbench.base import NEVER, Canvas, Choice, Decoded, Sampler
from mdmbench.loop import Decoding, decode, progress
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
    return SAMPLERS[preset.sampler](**knobs), Decoding(block, schedule, draw), length


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
def test_every_commit_of_the_reference_is_reproduced(file: str, batch_size: int) -> None:
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
def test_scores_are_those_of_the_reference(file: str) -> None:
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
