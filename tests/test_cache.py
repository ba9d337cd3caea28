"""What caches promise: the exact one changes nothing, the others do what their papers say."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_cli import document, fails, mdmbench
from test_text import TASK
from torch import Tensor

from mdmbench.base import NEVER, Batch, Canvas, Decoded, Forward, Model, Sampler
from mdmbench.bench.rehearsal import Reads
from mdmbench.canvas import first_end
from mdmbench.clock import Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.models import cache, checkpoint
from mdmbench.models.cache import (
    CACHES,
    DKV,
    DLLM,
    Cached,
    CachedForward,
    Dual,
    Exact,
    Policy,
    Prefix,
    groups,
)
from mdmbench.models.checkpoint import Options
from mdmbench.models.dit import DiT
from mdmbench.models.encoder import Encoder, Layer, ModelSpec, NativeModel, rotate
from mdmbench.paper import Published, beside
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import TopK
from mdmbench.samplers.threshold import Threshold

MASK = 250
SIZE = 8

CAUSAL: dict[str, dict[str, Any]] = {
    "llada2": {"block": 8},
    "qwen3": {"block": 4},
    "fast-dllm": {"block": 4, "shift": True},
}
FULL = ("llada", "dream", "lladamoe")
RULES: dict[str, Sampler] = {
    "top1": TopK(k=1),
    "eb": EB(10),
    "threshold": Threshold(0.1),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)

MODELS: dict[str, NativeModel] = {}


def model(name: str) -> NativeModel:
    """Golden weights; Fast-dLLM v2 is block-causal and shifted, whatever its weights."""
    if name not in MODELS:
        folder = tiny.GOLDEN / ("qwen3" if name == "fast-dllm" else name)
        options = Options(mask_id=MASK, **CAUSAL.get(name, {}))
        cpu = torch.device("cpu")
        MODELS[name] = checkpoint.load(folder, device=cpu, dtype=torch.float32, options=options)
    return MODELS[name]


def canvases(count: int = 9, answer: int = 16, tail: int = 0) -> list[Canvas]:
    """Ragged prompts that end anywhere in a block; every other canvas has masks behind its end."""
    made, rng = [], torch.Generator().manual_seed(0)
    for i in range(count):
        prompt = 3 + (5 * i) % 9
        tokens = torch.randint(240, (prompt,), generator=rng).tolist()
        masks = [MASK] * (answer + tail * (i % 2))
        made.append(Canvas(f"c{i}", (*tokens, *masks), prompt, prompt + answer))
    return made


def how(model: Model, **more: Any) -> Decoding:
    size = model.block or SIZE
    return Decoding(block_length=size, from_zero=model.block is not None, **more)


def run(
    model: Model,
    rule: Sampler,
    items: Sequence[Canvas],
    batch_size: int = 3,
    decoding: Decoding | None = None,
) -> dict[str, Decoded]:
    done = decode(model, rule, items, batch_size=batch_size, decoding=decoding or how(model))
    return {d.id: d for d in done}


def answers(done: dict[str, Decoded]) -> dict[str, tuple[Any, ...]]:
    return {i: (d.tokens, d.committed_at, d.nfe, d.nfe_until, d.end) for i, d in done.items()}


def passed(done: dict[str, Decoded]) -> dict[str, int]:
    return {i: d.forward_tokens for i, d in done.items()}


class Twins(NativeModel):
    """Two models side by side that must say the same of every mask of the current block."""

    def __init__(self, one: NativeModel, other: NativeModel) -> None:
        super().__init__(one.encoder)
        self.one, self.other = one, other

    def start(self) -> Forward:
        return TwinForward(self.one.start(), self.other.start())


class TwinForward(Forward):
    def __init__(self, one: Forward, other: Forward) -> None:
        self.one, self.other = one, other
        self.passing, self.opening = one.passing, one.opening  # type: ignore[method-assign]
        self.seat, self.move = one.seat, one.move  # type: ignore[method-assign]

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.first is not None and batch.behind is not None
        found, wanted = self.one(batch), self.other(batch)
        rows = batch.rows
        asked = (rows >= batch.first[:, None]) & (rows < batch.behind[:, None])
        asked &= batch.tokens.gather(1, rows) == MASK
        assert asked.any(1).all()
        torch.testing.assert_close(found[asked], wanted[asked], atol=2e-5, rtol=0)
        return found


def spent(canvas: Canvas, decoded: Decoded, size: int) -> int:
    """What the exact cache lets through: a block while it is filled, all before it when the first
    one opens, and when another one does those since the last."""
    length, total, last = len(canvas.tokens), 0, None
    for step in range(decoded.nfe):
        block = decoded.committed_at.index(step) // size
        first = 0 if last is None else last
        total += min(length, (block + 1) * size) - first * size
        last = block
    return total


@pytest.mark.parametrize(("early", "split"), [(False, 0), (True, 10_000)], ids=["full", "early"])
@every_rule
@pytest.mark.parametrize("name", CAUSAL)
def test_the_exact_cache_changes_no_answer(
    name: str, rule: Sampler, early: bool, split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SPLIT", split)
    plain, items = model(name), canvases(answer=12, tail=7)
    ends = first_end(tuple(range(0, 250, 6)))
    decoding = how(plain, stop=ends, early=early)
    wanted = run(plain, rule, items, decoding=decoding)
    assert any(d.end for d in wanted.values())
    for batch_size, order in ((1, 1), (3, 1), (8, -1)):
        found = run(
            Twins(Cached(plain, Exact()), plain), rule, items[::order], batch_size, decoding
        )
        assert answers(found) == answers(wanted)
        for canvas in items:
            count = spent(canvas, found[canvas.id], plain.block or 0)
            assert found[canvas.id].forward_tokens == count < wanted[canvas.id].forward_tokens


@pytest.mark.parametrize(
    ("policy", "size", "split"),
    [
        (DKV(refresh=1), SIZE, 0),
        (DLLM(1, 1, 0), SIZE, 10_000),
        (Prefix(), 1, 0),
        (Dual(), 1, 10_000),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", FULL)
def test_where_everything_is_due_nothing_changes(
    name: str, policy: Policy, size: int, split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of one position each step opens one."""
    monkeypatch.setattr(cache, "SPLIT", split)
    plain, items = model(name), canvases(answer=8, tail=5)
    decoding = Decoding(block_length=size)
    for rule in (TopK(k=3), Threshold(0.1)):
        wanted = run(plain, rule, items, decoding=decoding)
        found = run(Twins(Cached(plain, policy), plain), rule, items, decoding=decoding)
        assert answers(found) == answers(wanted)
        assert passed(found) == passed(wanted)


@dataclass
class Slow:
    """One example, decoded as the papers say it: position by position, everything kept in lists.

    attended, fed  what attention and feed-forward of each layer last said of each position
    """

    model: NativeModel
    canvas: Canvas
    tokens: list[int] = field(default_factory=list)
    keys: list[dict[int, Tensor]] = field(default_factory=list)
    values: list[dict[int, Tensor]] = field(default_factory=list)
    attended: list[dict[int, Tensor]] = field(default_factory=list)
    fed: list[dict[int, Tensor]] = field(default_factory=list)
    hidden: dict[int, Tensor] = field(default_factory=dict)
    at: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens, self.at = list(self.canvas.tokens), [NEVER] * len(self.canvas.tokens)
        for kept in (self.keys, self.values, self.attended, self.fed):
            kept += [{} for _ in self.net.layers]

    @property
    def net(self) -> Encoder:
        assert isinstance(self.model.encoder, Encoder)
        return self.model.encoder

    @property
    def layers(self) -> Iterator[tuple[int, Layer]]:
        for i, layer in enumerate(self.net.layers):
            assert isinstance(layer, Layer)
            yield i, layer

    def project(self, i: int, layer: Layer, inner: Tensor, p: int) -> Tensor:
        """The query `[H, E]` of position `p`, whose key and value are kept."""
        a, cos, sin = layer.self_attn, self.net.cos[p], self.net.sin[p]
        shaped = inner.view(1, 1, -1)
        query = rotate(a.q_norm(a.split(a.q_proj(shaped))), cos, sin)
        self.keys[i][p] = rotate(a.k_norm(a.split(a.k_proj(shaped))), cos, sin)[0, :, 0]
        self.values[i][p] = a.split(a.v_proj(shaped))[0, :, 0]
        return query[0, :, 0]

    def attend(self, i: int, layer: Layer, query: Tensor) -> Tensor:
        """What attention adds, `[D]`."""
        places = sorted(self.keys[i])
        keys = torch.stack([self.keys[i][p] for p in places], 1)
        values = torch.stack([self.values[i][p] for p in places], 1)
        shared = len(query) // len(keys)
        mixed = []
        for head, q in enumerate(query):
            weights = (keys[head // shared] @ q / len(q) ** 0.5).softmax(0)
            mixed.append(weights @ values[head // shared])
        return layer.self_attn.o_proj(torch.cat(mixed))

    def forward(self, due: Sequence[int]) -> None:
        """These positions go through; the others are as they were."""
        self.counts.append(len(due))
        x = {p: self.net.embed_tokens.weight[self.tokens[p]] for p in due}
        for i, layer in self.layers:
            query = {p: self.project(i, layer, layer.input_layernorm(x[p]), p) for p in due}
            for p in due:
                x[p] = x[p] + self.attend(i, layer, query[p])
                inner = layer.post_attention_layernorm(x[p])
                x[p] = x[p] + layer.mlp(inner.view(1, 1, -1)).flatten()
        self.hidden |= {p: self.net.norm(x[p]) for p in due}

    def layered(self, step: int, policy: DLLM) -> None:
        """One step of dLLM-Cache, as its authors' hook for LLaDA goes, with both of its caches."""
        length, start = len(self.tokens), self.canvas.start
        prompt, answer = range(start), range(start, length)
        new = [p for p in answer if step and self.at[p] == step - 1]
        share = int(len(answer) * policy.ratio)
        x = {p: self.net.embed_tokens.weight[token] for p, token in enumerate(self.tokens)}
        for i, layer in self.layers:
            inner = {p: layer.input_layernorm(x[p]) for p in x}
            chosen = list(prompt) if not i or step % policy.prompt == 0 else []
            if not i or step % policy.response == 0:
                chosen += answer
            else:
                like = {}
                for p in answer:
                    fresh = layer.self_attn.v_proj(inner[p])
                    kept = self.values[i][p].flatten()
                    like[p] = torch.cosine_similarity(fresh, kept, dim=0).item()
                    self.values[i][p] = fresh.view(-1, layer.self_attn.head_dim)
                others = sorted(set(answer) - set(new), key=lambda p: like[p])
                chosen += new + others[: max(0, share - len(new))]
            query = {p: self.project(i, layer, inner[p], p) for p in chosen}
            for p in chosen:
                self.attended[i][p] = self.attend(i, layer, query[p])
            for p in x:
                x[p] = x[p] + self.attended[i][p]
            for p in chosen:
                inner[p] = layer.post_attention_layernorm(x[p])
                self.fed[i][p] = layer.mlp(inner[p].view(1, 1, -1)).flatten()
            for p in x:
                x[p] = x[p] + self.fed[i][p]
        self.counts.append(len(chosen))
        self.hidden = {p: self.net.norm(x[p]) for p in x}

    def commit(self, eligible: Sequence[int], k: int, step: int) -> None:
        """The k surest of these."""
        found = []
        for p in eligible:
            state = self.hidden[max(0, p - 1) if self.net.spec.shift else p]
            logits = self.net.lm_head(state)
            logits[MASK] = -torch.inf
            sure, token = logits.double().softmax(0).max(0)
            found.append((-sure.item(), p, int(token)))
        for _, p, token in sorted(found)[:k]:
            self.tokens[p], self.at[p] = token, step


Rule = Callable[[Slow, int, int, int], Sequence[int]]
"""From a step, its number within the block and the block's first position to what goes through."""


def prefix(slow: Slow, step: int, since: int, first: int) -> Sequence[int]:
    return range(first if since else 0, len(slow.tokens))


def dual(slow: Slow, step: int, since: int, first: int) -> Sequence[int]:
    return range(first, first + SIZE) if since else range(len(slow.tokens))


def dkv(slow: Slow, step: int, since: int, first: int) -> Sequence[int]:
    """With a refresh every 3 steps."""
    if since % 3 == 0:
        return range(len(slow.tokens))
    new = [p for p, at in enumerate(slow.at) if at == step - 1]
    return sorted(new + [p for p, token in enumerate(slow.tokens) if token == MASK])


PAPERS: dict[str, tuple[Policy, Rule | None]] = {
    "prefix": (Prefix(), prefix),
    "dual": (Dual(), dual),
    "dkv": (DKV(refresh=3), dkv),
    "dllm": (DLLM(prompt=5, response=3, ratio=0.3), None),
    "dllm-all-changed": (DLLM(prompt=7, response=4, ratio=0), None),
}


@torch.inference_mode()
def decoded_slowly(model: NativeModel, canvas: Canvas, policy: Policy, rule: Rule | None) -> Slow:
    """Two positions a step, block by block."""
    slow, step, since, block = Slow(model, canvas), 0, 0, None
    while MASK in slow.tokens[: canvas.end]:
        first = slow.tokens.index(MASK)
        first -= (first - canvas.start) % SIZE
        since = since + 1 if first == block else 0
        block = first
        if rule:
            slow.forward(rule(slow, step, since, first))
        else:
            assert isinstance(policy, DLLM)
            slow.layered(step, policy)
        eligible = [p for p in range(first, first + SIZE) if slow.tokens[p] == MASK]
        slow.commit(eligible, 2, step)
        step += 1
    return slow


@pytest.mark.parametrize(("policy", "rule"), PAPERS.values(), ids=PAPERS)
@pytest.mark.parametrize("name", FULL[:2])
def test_a_cache_does_what_its_paper_says(
    name: str, policy: Policy, rule: Rule | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares the batch, and whoever had the slot before."""
    plain, items = model(name), canvases(4, tail=3)
    slow = {c.id: decoded_slowly(plain, c, policy, rule) for c in items}
    for split in (0, 10_000):
        monkeypatch.setattr(cache, "SPLIT", split)
        found = run(Cached(plain, policy), TopK(k=2), items)
        for id, decoded in found.items():
            assert decoded.tokens == tuple(slow[id].tokens)
            assert decoded.committed_at == tuple(slow[id].at)
            assert decoded.forward_tokens == sum(slow[id].counts)
    uncached = run(plain, TopK(k=2), items)
    assert answers(found) != answers(uncached), "it is an approximation"
    assert all(passed(found)[i] < passed(uncached)[i] for i in found)


@pytest.mark.parametrize("rule", [TopK(k=3), Threshold(0.1)], ids=["top3", "threshold"])
@pytest.mark.parametrize("policy", [p for p, _ in PAPERS.values()], ids=PAPERS)
def test_the_batch_changes_nothing(policy: Policy, rule: Sampler) -> None:
    kept, items = Cached(model("dream"), policy), canvases(tail=3)
    alone = run(kept, rule, items, 1)
    for batch_size, order in ((3, 1), (8, -1)):
        found = run(kept, rule, items[::order], batch_size)
        assert answers(found) == answers(alone)
        assert passed(found) == passed(alone)


def test_an_answer_that_is_one_block_opens_once() -> None:
    kept, items = Cached(model("llada"), Dual()), canvases(3)
    for canvas in items:
        decoded = run(kept, TopK(k=2), [canvas], decoding=Decoding())[canvas.id]
        assert decoded.forward_tokens == len(canvas.tokens) + (decoded.nfe - 1) * 16


def ask(forward: Forward, slow: Slow, first: int) -> tuple[list[int], Tensor]:
    """How many positions of one row go through, and the logits of the block from `first` on."""
    block = torch.arange(first, first + SIZE)[None]
    places = torch.tensor([first]), torch.tensor([first + SIZE])
    batch = Batch(torch.tensor([slow.tokens]), block, None, *places)
    counts = forward.passing(batch)
    assert counts is not None
    return counts.tolist(), forward(replace(batch, passing=counts.tolist()))[0]


LATER: dict[str, tuple[Policy, range]] = {
    "prefix": (Prefix(), range(10, 26)),
    "dual": (Dual(), range(10, 18)),
    "dkv": (DKV(refresh=99), range(10, 26)),
}


@pytest.mark.parametrize(("policy", "later"), LATER.values(), ids=LATER)
@pytest.mark.parametrize("name", ["llada", "dream"])
@torch.inference_mode()
def test_a_token_that_is_edited_or_taken_back_passes_again(
    name: str, policy: Policy, later: range
) -> None:
    plain = model(name)
    slow = Slow(plain, canvases(8)[7])
    slow.tokens = slow.tokens[:11] + [7] + [MASK] * 14
    slow.canvas = replace(slow.canvas, tokens=tuple(slow.tokens), start=10)
    forward = Cached(plain, policy).start()
    forward.seat([0])
    due = [*range(26)]
    for edit in (None, None, (1, 9), None, (11, MASK), None, (11, 8), None, (3, 1), None):
        if slow.counts:
            due = [p for p in later if not isinstance(policy, DKV) or slow.tokens[p] == MASK]
        if edit:
            slow.tokens[edit[0]] = edit[1]
            due = sorted({*due, edit[0]})
        slow.forward(due)
        counts, logits = ask(forward, slow, 10)
        assert counts == [len(due)]
        shift = plain.encoder.spec.shift
        states = torch.stack([slow.hidden[p - shift] for p in range(10, 18)])
        wanted = plain.encoder.lm_head(states)
        wanted[:, MASK] = -torch.inf
        torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_change_in_a_finished_block_is_felt_by_all_behind_it(name: str) -> None:
    plain = model(name)
    size = plain.block or 0
    canvas = Canvas("x", (*range(3 * size), *[MASK] * (2 * size)))
    tokens = list(canvas.tokens)
    forward, whole = Cached(plain, Exact()).start(), plain.start()
    forward.seat([0])
    for edit, count in (
        (None, 4),
        (None, 1),
        ((size, 9), 3),
        ((2 * size, MASK), 2),
        ((0, 3), 4),
        ((3 * size, 7), 1),
        ((4 * size, 7), 1),
    ):
        if edit:
            tokens[edit[0]] = edit[1]
        first = torch.tensor([3 * size])
        rows = first[:, None] + torch.arange(size)
        batch = Batch(torch.tensor([tokens]), rows, None, first, first + size)
        counts = forward.passing(batch)
        assert counts is not None and counts.tolist() == [count * size]
        found = forward(replace(batch, passing=counts.tolist()))
        torch.testing.assert_close(found, whole(batch), atol=2e-5, rtol=0)


def test_between_its_refreshes_dllm_passes_a_share_of_the_answer_and_all_that_changed() -> None:
    slow = Slow(model("llada"), canvases(1)[0])
    forward = Cached(slow.model, DLLM(prompt=100, response=7, ratio=0.25)).start()
    forward.seat([0])
    assert ask(forward, slow, 3)[0] == [3 + 16]
    assert ask(forward, slow, 3)[0] == [4]
    slow.tokens[5:7] = [1, 2]
    assert ask(forward, slow, 3)[0] == [4]
    slow.tokens[0] = 9
    assert ask(forward, slow, 3)[0] == [4 + 1]
    slow.tokens[7:13] = range(6)
    assert ask(forward, slow, 3)[0] == [6]
    assert [ask(forward, slow, 3)[0] for _ in range(3)] == [[4], [4], [16]]


@pytest.mark.parametrize("policy", [Prefix(), Dual(), DKV(), DLLM(), Exact()], ids=repr)
def test_the_host_waits_for_the_device_once_a_step(policy: Policy) -> None:
    """And a few times more when canvases are seated, which happens on the host."""
    plain = model("qwen3" if isinstance(policy, Exact) else "llada")
    extra = []
    for one in (plain, Cached(plain, policy)):
        work = Work()
        with Reads(torch.device("cpu")) as reads:
            done = decode(one, TopK(k=2), canvases(), batch_size=9, decoding=how(one), work=work)
            assert len(list(done)) == 9
        extra.append(reads.count - work.steps)
    assert extra[1] - extra[0] == (2 if isinstance(policy, DLLM) else 1)


@given(counts=st.lists(st.integers(0, 900), min_size=1, max_size=20))
def test_every_row_goes_through_once(counts: list[int]) -> None:
    found = groups(counts)
    assert sorted(row for rows in found for row in rows) == [*range(len(counts))]
    assert all(rows == sorted(rows) for rows in found)


def test_rows_go_through_apart_where_that_spares_much_padding() -> None:
    assert groups([32, 320, 32, 40]) == [[1], [0, 2, 3]]
    assert groups([32, 40, 32]) == [[0, 1, 2]]
    assert groups([700, 32, 690, 350]) == [[0, 2], [3], [1]]


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_needs_a_model_that_it_was_made_for(name: str) -> None:
    spec = ModelSpec(9, 8, 1, 1, 1, 8, 8, 1e-5, 1e4, False, 1, (0,), 16, conditioning=4)
    found = cache.policy(name, {})
    assert found is not None
    with pytest.raises(UserError, match="model mdlm cannot use a cache"):
        cache.cached(NativeModel(DiT(spec)), "mdlm", name, found, guided=False)


@pytest.fixture
def echo(tmp_path: Path) -> str:
    (tmp_path / "echo.py").write_text(TASK)
    return f"{tmp_path / 'echo.py'}:Echo"


@pytest.fixture
def sdar(tmp_path: Path) -> Path:
    folder = tmp_path / "sdar"
    folder.mkdir()
    shutil.copy(tiny.GOLDEN / "qwen3" / "model.safetensors", folder)
    shutil.copy(tiny.GOLDEN / "qwen3" / "config_sdar.json", folder / "config.json")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def records(out: Path, **wanted: Any) -> dict[str, dict[str, Any]]:
    """Those of the only run with these settings, by id."""
    found = []
    for path in out.iterdir():
        settings = json.loads((path / "spec.json").read_text())["settings"]
        if settings == {**settings, **wanted}:
            text = (path / "records.jsonl").read_text()
            found.append([json.loads(line) for line in text.splitlines()])
    (only,) = found
    return {record["id"]: record for record in only}


def test_a_cache_is_another_setting_with_a_baseline_of_its_own(echo: str, tmp_path: Path) -> None:
    folder, out = tiny.llada(tmp_path / "llada"), tmp_path / "out"
    command = ["run", "--model", folder, "--task", echo, "--block-length", "8", "--gamma", "6"]
    command += ["--limit", "4", "--out", out, "--json"]
    mdmbench(*command)
    assert len([*out.iterdir()]) == 2
    rows = document(mdmbench(*command, "--cache", "none,dual"))["rows"]
    assert len([*out.iterdir()]) == 4, "none is what it was without the option"
    table = [(r["settings"].get("cache"), r["sampler"], r["baseline"]) for r in rows]
    assert set(table) == {
        (None, "eb", False),
        (None, "topk", True),
        ("dual", "eb", False),
        ("dual", "topk", True),
    }
    assert all(r["speedup"]["nfe"]["value"] > 1 for r in rows if not r["baseline"])
    kept, plain = (records(out, cache=name, sampler="eb") for name in ("dual", "none"))
    for some in (kept, plain):
        assert len(some) == 4
    assert all(kept[i]["forward_tokens"] < plain[i]["forward_tokens"] for i in kept)
    runs = [path for path in out.iterdir() if "-eb-" in path.name]
    said = mdmbench("compare", *runs).stdout
    assert "cache: " in said and "for everything: the rule is not the only difference" in said
    assert "cache=dual" in mdmbench("table", out, "--format", "markdown").stdout


def test_a_knob_of_a_cache_is_part_of_the_run(echo: str, tmp_path: Path) -> None:
    folder, out = tiny.llada(tmp_path / "llada"), tmp_path / "out"
    command = ["run", "--model", folder, "--task", echo, "--cache", "dkv", "--limit", "2"]
    command += ["--no-baseline", "--json", "--out", out]
    for knobs, value in (((), 8), (("-C", "refresh=3"), 3)):
        (row,) = document(mdmbench(*command, *knobs))["rows"]
        assert row["settings"] == {"gen_length": 16, "cache": "dkv", "refresh": value}
    assert len([*out.iterdir()]) == 2
    assert "cache_knobs.refresh: " in mdmbench("compare", *out.iterdir()).stdout


def test_a_block_causal_model_has_its_exact_cache(echo: str, sdar: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["run", "--model", sdar, "--task", echo, "-M", f"mask_id={tiny.MASK}", "--gamma", "6"]
    command += ["--limit", "4", "--no-baseline", "--out", out, "--json"]
    document(mdmbench(*command))
    assert records(out, cache="exact"), "it is the default"
    for more in (("--cache", "none"), ("--cache", "exact"), ("--cfg", "1")):
        document(mdmbench(*command, *more))
    assert len([*out.iterdir()]) == 3
    assert records(out, cache="none", cfg=1), "guidance has none"
    plain, kept = (records(out, cache=name, cfg=0) for name in ("none", "exact"))
    for id, record in kept.items():
        for same in ("answer", "nfe", "committed_at", "scores"):
            assert record[same] == plain[id][same]
        assert record["forward_tokens"] < plain[id]["forward_tokens"]


def test_no_cached_run_stands_beside_a_papers_numbers() -> None:
    def measured(line: Published, **settings: Any) -> int:
        shape = {"block_length": line.block_length, "pad_to": "max", **settings}
        knobs = {"gamma": line.gamma, "proxy": line.proxy}
        names = {"model": line.model, "task": line.task, "sampler": line.sampler}
        row: Any = SimpleNamespace(**names, knobs=knobs, task_knobs={}, settings=shape)
        return sum(found.measured is row for found in beside("eb", [row]))

    lines = beside("eb", [])
    assert any(measured(line) for line in lines)
    assert not any(measured(line, cache="dual") for line in lines)


WRONG = {
    "unknown cache 'dul'\ndid you mean 'dual'?": ("--cache", "dul"),
    "unknown knob of cache dkv 'refrsh'": ("--cache", "dkv", "-C", "refrsh=2"),
    "cache dkv: refresh is 0": ("--cache", "dkv", "-C", "refresh=0"),
    "cache dllm: response is 0": ("--cache", "dllm", "-C", "response=0"),
    "cache dllm: ratio is 2.0": ("--cache", "dllm", "-C", "ratio=2"),
    "unknown knob of cache none 'refresh'": ("-C", "refresh=2"),
    "cache exact: in it every position sees every other": ("--cache", "exact"),
    "cache dual with cfg": ("--cache", "dual", "--cfg", "1"),
}


@pytest.mark.parametrize(("message", "options"), WRONG.items(), ids=WRONG)
def test_a_cache_that_cannot_be_is_refused_before_any_work(
    message: str, options: Sequence[str], echo: str, tmp_path: Path
) -> None:
    folder, out = tiny.llada(tmp_path / "llada"), tmp_path / "out"
    said = fails("run", "--model", folder, "--task", echo, *options, "--out", out)
    assert " ".join(message.split()) in " ".join(said.split())
    assert not out.exists()


def test_a_model_that_has_no_use_for_a_cache_says_so(echo: str, sdar: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "model sudoku cannot use a cache" in fails("run", "--cache", "dual", *out)
    nowhere = ("--model", tmp_path / "nowhere")
    assert "unknown cache 'dul'" in fails("run", "--cache", "dul", *nowhere, *out)
    mask = ("-M", f"mask_id={tiny.MASK}")
    said = fails("run", "--model", sdar, "--task", echo, *mask, "--cache", "prefix", *out)
    assert "it attends by blocks of 4" in " ".join(said.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["prefix", "dual", "dkv", "dllm"])
def test_a_canvas_without_masks_costs_nothing_with_any_cache(name: str) -> None:
    net = Cached(model("llada"), CACHES[name]())
    items = canvases(3)
    # Its prompt is shorter than a block: no place must be counted from before the canvas.
    full = replace(items[0], id="full", tokens=tuple(t % 200 for t in items[0].tokens))
    done = run(net, TopK(k=2), [items[0], full, items[2]])
    assert (done["full"].nfe, done["full"].forward_tokens) == (0, 0)
    alone = run(net, TopK(k=2), [items[0], items[2]])
    assert answers(done) == answers(alone) | answers({"full": done["full"]})


def test_out_of_memory_with_a_cache_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Cached(model("llada"), Dual())
    want = run(net, TopK(k=2), canvases(), batch_size=4)
    call, calls = CachedForward.__call__, 0

    def short(self: CachedForward, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        found = call(self, batch)
        if calls == 5:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(CachedForward, "__call__", short)
    done = run(net, TopK(k=2), canvases(), batch_size=4)
    assert answers(done) == answers(want) and passed(done) == passed(want)
    assert {d.batch_size for d in done.values()} == {2}
