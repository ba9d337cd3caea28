"""Questions in words: prompts, ends, stop phrases, and whole runs on a tiny LLaDA folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
from test_cli import document, fails, mdmbench

from mdmbench import resolve
from mdmbench.base import Question, Turn
from mdmbench.canvas import Text, Unfit, mask_id, tokenizer
from mdmbench.errors import UserError
from mdmbench.models import checkpoint
from mdmbench.scoring.sandbox import Kind
from mdmbench.scoring.scorer import cut

TASK = """
from dataclasses import dataclass
from mdmbench.base import Question


@dataclass(frozen=True)
class Echo:
    longest: int = 3
    name = "echo"
    chat = False
    stops = ("zz",)
    finish = ""
    version = "1"
    headline = "vowels"
    gen_length = 16

    def examples(self, limit, seed):
        for i in range(limit or 12):
            yield Question(f"q{i}", "Say " + "ab" * (i % self.longest), "a", meta={"length": i})

    def score(self, question, answer):
        return {"vowels": float("a" in answer), "seen": answer[:3]}
"""


@dataclass
class Shape:
    """What a codec asks of a model."""

    mask_id: int = tiny.MASK
    eos_ids: tuple[int, ...] = (tiny.EOS,)
    max_length: int = 64
    block: int | None = None
    vocab_size: int = 256
    device = torch.device("cpu")

    def start(self) -> Any:
        raise AssertionError


@dataclass
class Rules:
    """What a codec asks of a task."""

    stops: tuple[str, ...] = ()
    finish: str = ""
    name = version = headline = ""
    gen_length = 8
    chat = False

    def examples(self, limit: int | None, seed: int) -> list[Question]:
        return []


def codec(rules: Rules | None = None, model: Shape | None = None, **how: Any) -> Text:
    settings = {"gen_length": 8, "chat": False, **how}
    return Text(tiny.tokenizer(), model or Shape(), rules or Rules(), **settings)


def ids(text: str) -> list[int]:
    return list(tiny.tokenizer()(text)["input_ids"])


def test_a_canvas_is_the_prompt_and_as_many_masks_as_the_answer_has_tokens() -> None:
    canvas = codec().canvas(Question("q", "Hi", ""))
    assert canvas.tokens == (*ids("Hi"), *[tiny.MASK] * 8)
    assert (canvas.start, canvas.end) == (2, 10)


def test_a_chat_prompt_goes_through_the_template_and_begins_the_answer() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    text = codec(chat=True).tokenizer.decode(
        codec(chat=True).prompt(Question("q", "unused", "", turns=turns, prefix="Sure: "))
    )
    assert text == "[user]a<|eot_id|>[assistant]b<|eot_id|>[user]c<|eot_id|>[assistant]Sure: "
    assert codec(chat=True).prompt(Question("q", "Hi", "")) == ids("[user]Hi<|eot_id|>[assistant]")


@pytest.mark.parametrize(("pad_to", "length"), [(None, 10), (20, 20), ("max", 64), (5, 10)])
def test_padding_lies_behind_the_answer_and_is_masks(pad_to: Any, length: int) -> None:
    canvas = codec(pad_to=pad_to).canvas(Question("q", "Hi", ""))
    assert len(canvas.tokens) == length and canvas.end == 10
    assert set(canvas.tokens[2:]) == {tiny.MASK}


def test_a_block_causal_model_sees_whole_blocks() -> None:
    canvas = codec(model=Shape(block=16)).canvas(Question("q", "Hello you", ""))
    assert len(canvas.tokens) == 32 and canvas.end == 17


@pytest.mark.parametrize("prompt", ["x" * 57, "a <|mdm_mask|> b"])
def test_a_prompt_that_no_canvas_can_hold_is_unfit(prompt: str) -> None:
    with pytest.raises(Unfit, match=r"mask token|longer than the model's 64"):
        codec().canvas(Question("q", prompt, ""))


def test_an_answer_ends_at_the_first_end_token_of_any_kind() -> None:
    for end in (tiny.EOS, tiny.EOT):
        tokens = [*ids("yes"), end, *ids("no"), tiny.EOS]
        assert codec().answer(tokens) == "yes"
        assert codec().stop(tokens) == 4
    assert codec().stop(ids("yes")) is None


@pytest.mark.parametrize(
    ("rules", "text", "length", "answer"),
    [
        (Rules(stops=("END", "Q:")), "a Q: b END", 4, "a "),
        (Rules(stops=("END",)), "abc", None, "abc"),
        (Rules(finish=r"is \d+\."), "it is 18. Or 19.", 9, "it is 18."),
        (Rules(finish=r"is \d+\."), "it is 18", None, "it is 18"),
        (Rules(stops=("Q",), finish=r"\d\."), "7. Q 8.", 2, "7."),
    ],
)
def test_a_stop_phrase_ends_the_answer(
    rules: Rules, text: str, length: int | None, answer: str
) -> None:
    """Where the phrase is complete; what is scored has it cut off, or ends with the match."""
    assert codec(rules).stop(ids(text)) == length
    assert cut(rules, codec(rules).answer(ids(text))) == answer


def test_a_phrase_behind_the_end_token_is_not_part_of_the_answer() -> None:
    made = codec(Rules(stops=("Q",)))
    tokens = [*ids("a"), tiny.EOS, *ids("Q")]
    assert made.stop(tokens) == 2 and made.answer(tokens) == "a"


def test_chat_without_a_template_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chat template"):
        Text(tiny.tokenizer(None), Shape(), Rules(), gen_length=8, chat=True)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer can be read"):
        tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="no tokenizer can be read"):
        tokenizer(tmp_path)


def test_dreams_tokenizer_is_read_without_its_code(tmp_path: Path) -> None:
    """Files as on the hub: a vocabulary and merges, and a class of its own that is not loaded."""
    vocab = {c: i for i, c in enumerate(["a", "b", "c", "\u0120", "\u010a", "ab"])}
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    added = {
        str(i): {"content": name, "special": True, **flags}
        for i, name in ((6, "<|endoftext|>"), (7, "<|mask|>"))
    }
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        "eos_token": "<|endoftext|>",
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = tokenizer(tmp_path)
    assert found("abc\n a<|mask|>")["input_ids"] == [5, 2, 4, 3, 0, 7]
    assert mask_id(found) == 7


# Whole runs.


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llada(tmp_path_factory.mktemp("tiny") / "llada")


@pytest.fixture
def echo(tmp_path: Path) -> str:
    (tmp_path / "echo.py").write_text(TASK)
    return f"{tmp_path / 'echo.py'}:Echo"


def run(folder: Path, echo: str, out: Path, *more: str | Path) -> Any:
    words = ("--model", folder, "--task", echo, "--limit", "6", "--no-baseline", "--out", out)
    return mdmbench("run", *words, *more, "--json")


def kept(out: Path) -> dict[str, dict[str, Any]]:
    """Records by id, without what the batch and the clock may change."""
    (file,) = out.glob("*/records.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    for record in found:
        for key in ("seconds", "batch_size", "session"):
            del record[key]
        record["bound_spent"] = round(record["bound_spent"], 4)
    return {record["id"]: record for record in found}


def test_a_local_llada_folder_answers_a_users_task(folder: Path, echo: str, tmp_path: Path) -> None:
    (row,) = document(run(folder, echo, tmp_path / "out", "--gamma", "0.5"))["rows"]
    assert row["n"] == 6 and set(row["scores"]) == {"vowels"}
    records = kept(tmp_path / "out")
    for record in records.values():
        assert len(record["committed_at"]) == len(record["pieces"]) == 16
        assert record["notes"] == {"seen": record["answer"].partition("zz")[0][:3]}
        assert "".join(record["pieces"]).startswith(record["answer"])


def test_padding_between_prompts_never_changes_an_answer(
    folder: Path, echo: str, tmp_path: Path
) -> None:
    for size in ("1", "6"):
        run(folder, echo, tmp_path / size, "--batch-size", size, "--gamma", "1.0")
    assert kept(tmp_path / "1") == kept(tmp_path / "6")


@pytest.mark.parametrize(
    "setting",
    [
        ("--pad-to", "max"),
        ("--eos", "never"),
        ("--eos", "last"),
        ("--cfg", "1.5"),
        ("--chat",),
        ("--gen-length", "24"),
        ("--block-length", "4"),
    ],
)
def test_every_setting_of_texts_is_a_run_of_its_own(
    folder: Path, echo: str, tmp_path: Path, setting: tuple[str, ...]
) -> None:
    run(folder, echo, tmp_path / "plain", "--gamma", "1")
    document(run(folder, echo, tmp_path / "set", "--gamma", "1", *setting))
    assert kept(tmp_path / "set") != kept(tmp_path / "plain")
    (plain,) = (tmp_path / "plain").iterdir()
    (other,) = (tmp_path / "set").iterdir()
    assert plain.name != other.name


def test_guidance_counts_both_forwards(folder: Path, echo: str, tmp_path: Path) -> None:
    (row,) = document(run(folder, echo, tmp_path, "--sampler", "topk", "--k", "4", "--cfg", "1"))[
        "rows"
    ]
    assert row["nfe"]["value"] == 8.0


def test_a_prompt_too_long_for_the_model_is_recorded_and_the_run_goes_on(
    folder: Path, echo: str, tmp_path: Path
) -> None:
    knobs = ("-T", "longest=99", "--gen-length", "248")
    (row,) = document(run(folder, echo, tmp_path, *knobs, "--gamma", "inf"))["rows"]
    records = kept(tmp_path)
    unasked = [r for r in records.values() if "unasked" in r["notes"]]
    assert row["n"] == 6 and len(unasked) == 3
    assert "longer than the model's 256" in unasked[0]["notes"]["unasked"]
    assert all(r["scores"] == {"vowels": 0.0} and r["nfe"] == 0 for r in unasked)
    assert row["nfe"]["value"] == 1.0, "those that were not asked are not measured"


def test_a_block_causal_model_is_decoded_in_its_own_blocks(echo: str, tmp_path: Path) -> None:
    """Blocks of 4 on a grid from position 0: the prompt's last block is the answer's first."""
    sdar = tmp_path / "sdar"
    sdar.mkdir()
    shutil.copy(tiny.GOLDEN / "qwen3" / "model.safetensors", sdar)
    shutil.copy(tiny.GOLDEN / "qwen3" / "config_sdar.json", sdar / "config.json")
    tiny.tokenizer().save_pretrained(sdar)
    wanted = ("-M", f"mask_id={tiny.MASK}", "--gen-length", "10", "--gamma", "inf")
    document(run(sdar, echo, tmp_path / "out", *wanted))
    for record in kept(tmp_path / "out").values():
        start = len(ids("Say " + "ab" * (int(record["id"][1:]) % 3)))
        blocks = [(start + i) // 4 for i in range(10)]
        assert record["committed_at"] == [block - blocks[0] for block in blocks]
        assert record["nfe"] == blocks[-1] - blocks[0] + 1
        # All up to the answer's first block, and then each block with the one before.
        assert record["forward_tokens"] == 4 * (blocks[0] + 1) + 8 * (record["nfe"] - 1)
    text = fails("run", "--model", sdar, "--task", echo, *wanted, "--block-length", "8")
    assert "the model attends by blocks of 4" in text


def test_scores_can_be_made_again_without_a_model(folder: Path, echo: str, tmp_path: Path) -> None:
    run(folder, echo, tmp_path / "out")
    again = mdmbench("rescore", tmp_path / "out")
    assert again.exit_code == 0 and "6 answers, 0 scores changed" in again.stdout
    file = Path(echo.partition(":")[0])
    file.write_text(TASK.replace('"a" in answer', '"a" not in answer'))
    changed = mdmbench("rescore", tmp_path / "out")
    assert changed.exit_code == 1 and "6 answers, 6 scores changed" in changed.stdout
    made = list((tmp_path / "out").glob("*/records.jsonl"))
    assert len(made) == 2, "the old run is as it was"
    assert all(len(file.read_text().splitlines()) == 6 for file in made)


def test_scores_are_made_again_where_the_environment_is_lost(
    folder: Path, echo: str, tmp_path: Path
) -> None:
    run(folder, echo, tmp_path / "out")
    next((tmp_path / "out").glob("*/env.json")).unlink()
    file = Path(echo.partition(":")[0])
    file.write_text(TASK.replace('"a" in answer', '"a" not in answer'))
    assert mdmbench("rescore", tmp_path / "out").exit_code == 1
    made = list((tmp_path / "out").glob("*/records.jsonl"))
    assert [len(file.read_text().splitlines()) for file in made] == [6, 6]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('finish = ""', 'finish = "("', "finish is '('"),
        ('stops = ("zz",)', 'stops = ("",)', "none empty"),
        ('stops = ("zz",)', 'stops = "Q:"', "it is of type tuple"),
        ("chat = False", "", "chat is 'missing'"),
        ('"Say "', '"Say \\ud800"', "its prompt is no text"),
        ("def score", "def judge", "cannot score"),
        ('float("a" in answer)', "7.0", "numbers from 0 to 1"),
        ('float("a" in answer)', "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_task_that_is_not_whole_is_refused(
    folder: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TASK
    (tmp_path / "echo.py").write_text(TASK.replace(old, new))
    command = ("run", "--model", folder, "--task", f"{tmp_path / 'echo.py'}:Echo", "--limit", "2")
    assert message in fails(*command, "--out", tmp_path / "out")


def test_an_answer_as_long_as_the_model_is_an_error(
    folder: Path, echo: str, tmp_path: Path
) -> None:
    command = ("run", "--model", folder, "--task", echo, "--out", tmp_path)
    assert "gen-length is 256" in fails(*command, "--gen-length", "256")
    assert "no example of" in fails(*command, "--gen-length", "255")
    assert "a number of tokens, or max" in fails(*command, "--pad-to", "foo")
    assert "known: block, family, mask_id, quant, revision, shift" in fails(*command, "-M", "x=1")


def test_a_language_model_is_no_puzzle_model(folder: Path, echo: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path)
    assert "is a language model" in fails("run", "--task", "sudoku", "--model", folder, *out)
    assert "has no words" in fails("run", "--task", echo, "--model", "sudoku", *out)
    assert "is a puzzle" in fails("run", "--task", "sudoku", "--cfg", "1", *out)
    assert "no model of its own" in fails("run", "--task", echo, *out)


def test_a_model_without_a_mask_token_is_an_error(folder: Path, echo: str, tmp_path: Path) -> None:
    bare = tiny.llada(tmp_path / "bare")
    config = checkpoint.read_config(bare)
    del config["mask_token_id"]
    (bare / "config.json").write_text(json.dumps(config))
    document(run(bare, echo, tmp_path / "out"))
    spoken = (bare / "tokenizer.json").read_text().replace("<|mdm_mask|>", "<|other|>")
    (bare / "tokenizer.json").write_text(spoken)
    assert "names a mask token" in fails("run", "--model", bare, "--task", echo)
    document(run(bare, echo, tmp_path / "again", "-M", f"mask_id={tiny.MASK}"))


METRIC = """
import datasets
import evaluate


class Longer(evaluate.Metric):
    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=features
        )

    def _compute(self, predictions, references):
        pairs = zip(predictions, references)
        return {"longer": sum(len(p) > len(r) for p, r in pairs) / len(predictions)}
"""


def test_a_metric_of_the_evaluate_library_can_be_asked_for(
    folder: Path, echo: str, tmp_path: Path
) -> None:
    run(folder, echo, tmp_path / "out", "--eos", "never")
    (tmp_path / "longer.py").write_text(METRIC)
    asked = mdmbench("rescore", tmp_path / "out", "--metric", tmp_path / "longer.py")
    assert asked.exit_code == 0 and "longer 1.0000" in asked.stdout
    text = fails("rescore", tmp_path / "out", "--metric", tmp_path / "no.py")
    assert "cannot be used" in text


# Code tasks.


@pytest.mark.parametrize("task", ["humaneval", "humaneval-instruct", "mbpp", "gsm8k", "math"])
def test_a_task_runs_end_to_end_offline_and_is_scored_the_same_again(
    tmp_path: Path, task: str
) -> None:
    """On invented problems: a model that knows nothing fails, and each answer says how."""
    data = resolve.source("task", task)
    assert data is not None
    knobs = [f"data={data.parent / 'tiny.jsonl'}", *([] if "human" in task else ["shots=0"])]
    words = [word for knob in knobs for word in ("-T", knob)]
    model, out = tiny.llada(tmp_path / "model", max_length=1024), tmp_path / "out"
    settings = ("--gen-length", "32", "--limit", "2", "--gamma", "2", "--out", out)
    command = ("run", "--task", task, "--model", model, *words, *settings, "--no-baseline")
    (row,) = document(mdmbench(*command, "--json"))["rows"]
    assert row["n"] == 2
    records = kept(out).values()
    assert all(r["nfe"] for r in records)
    if "pass@1" in row["scores"]:
        assert all(r["notes"]["pass@1 outcome"] in get_args(Kind) for r in records)
        assert all(r["notes"]["pass@1 branch"] for r in records)
        (made,) = out.glob("*/env.json")
        assert json.loads(made.read_text())[0]["sandbox"] in ("bwrap", "landlock")
    again = mdmbench("rescore", out)
    assert again.exit_code == 0 and "2 answers, 0 scores changed" in again.stdout, again.output


def test_without_a_sandbox_no_program_runs(folder: Path, tmp_path: Path) -> None:
    data = resolve.source("task", "humaneval")
    assert data is not None
    words = ("-T", f"data={data.parent / 'tiny.jsonl'}", "--gen-length", "8", "--out", tmp_path)
    command = ("run", "--task", "humaneval", "--model", folder, *words, "--sandbox", "none")
    assert "--i-know" in fails(*command)
    done = mdmbench(*command, "--i-know", "--no-baseline", "--limit", "1")
    assert done.exit_code == 0 and "warning: no sandbox" in done.stderr


def test_a_papers_table_stands_beside_what_was_measured(tmp_path: Path) -> None:
    lines = mdmbench("table", "--paper", "eb", tmp_path).stdout.splitlines()
    assert sum(line.startswith("| ") and "| top-1 " in line for line in lines) == 8
    assert "**Table 6: GSAI-ML/LLaDA-8B-Base, gsm8k-eb**" in lines
    assert any("72.2 | - | 147.5 | - | 45.8 | - |" in line for line in lines)
    assert "did you mean 'eb'" in fails("table", "--paper", "ebb", tmp_path)
