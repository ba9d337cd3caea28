"""Training: the same command makes the same model, however often it is stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mdmbench import canvas, trainees, training
from mdmbench.base import Batch
from mdmbench.errors import UserError
from mdmbench.models import checkpoint
from mdmbench.trainees import PAD, PuzzleTrainee, TextTrainee
from mdmbench.training import Recipe

CPU = torch.device("cpu")

SMALL = Recipe(
    task="sudoku",
    task_knobs={"side": "4", "givens": "6-9"},
    test_knobs={},
    steps=6,
    batch_size=8,
    puzzles=10,
    width=16,
    layers=1,
    loops=2,
    evaluate_every=3,
    held_out=4,
)
EDGES = replace(
    SMALL, task="maze", task_knobs={"size": "5", "form": "edges"}, puzzles=0, steps=2, batch_size=2
)
RASTER = replace(EDGES, task_knobs={"size": "5"})
TEXT = replace(EDGES, task="arithmetic", task_knobs={}, heads=2, loops=1)


def train(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    training.train(recipe, out, "cpu", threads=1, save_every=1, observer=lambda *_: None)
    return load_file(out / "model.safetensors")


def stopping(at: int):  # type: ignore[no-untyped-def]
    def observer(label: str, done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    return observer


@pytest.mark.parametrize(
    "recipe",
    [SMALL, RASTER, EDGES, TEXT],
    ids=["sudoku", "raster", "edges", "arithmetic"],
)
def test_a_stopped_training_ends_with_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training.train(
            recipe,
            tmp_path / "parts",
            "cpu",
            threads=1,
            save_every=1,
            observer=stopping(recipe.steps - 1),
        )
    parts = train(recipe, tmp_path / "parts")
    assert all(torch.equal(parts[key], whole[key]) for key in whole)
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "parts")]
    assert [line.split(",")[::2] for line in curves[0].split()] == [
        line.split(",")[::2] for line in curves[1].split()
    ]


def test_the_loss_falls(tmp_path: Path) -> None:
    train(replace(SMALL, steps=60, evaluate_every=20, learning_rate=1e-2), tmp_path)
    header, *rows = (tmp_path / "curve.csv").read_text().splitlines()
    losses = [float(row.split(",")[header.split(",").index("loss")]) for row in rows]
    assert losses[-1] < 0.8 * losses[0]


def test_another_recipe_in_the_folder_is_an_error(tmp_path: Path) -> None:
    train(SMALL, tmp_path)
    with pytest.raises(UserError, match="holds a training with other settings"):
        train(replace(SMALL, seed=1), tmp_path)


def test_only_blanks_are_masked_at_every_rate() -> None:
    made = trainees.trainee(SMALL, CPU)
    assert isinstance(made, PuzzleTrainee)
    shares = []
    for step in range(50):
        tokens, full, masked = made.batch(step)
        drawn = made.drawn(step, trainees.randomness(SMALL, step))
        blanks = torch.tensor([[cell is None for cell in e.cells] for e in drawn])
        assert not (masked & ~blanks).any()
        assert ((tokens == 4) == masked).all()
        assert torch.equal(tokens[~masked], full[~masked])
        shares += (masked.sum(1) / blanks.sum(1)).tolist()
    thirds = torch.histc(torch.tensor(shares), 3, 0, 1) / len(shares)
    assert thirds.min() > 0.2  # uniform: a third each; 400 draws fall below by chance < 1e-6


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    recipe = replace(SMALL, steps=1000)
    assert recipe.rate(0) == recipe.learning_rate / training.WARM_UP
    assert recipe.rate(500) == recipe.learning_rate
    assert recipe.rate(850) == pytest.approx(recipe.learning_rate / 2)
    assert 0 < recipe.rate(999) < recipe.learning_rate / 100


def test_the_card_tells_the_command(tmp_path: Path) -> None:
    train(SMALL, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "mdmbench train --task sudoku --steps 6 --batch-size 8 --puzzles 10" in card
    assert "-T side=4 -T givens=6-9" in card


@pytest.fixture(scope="module")
def text() -> TextTrainee:
    torch.set_num_threads(1)
    made = trainees.trainee(replace(TEXT, batch_size=16), CPU)
    assert isinstance(made, TextTrainee)
    return made


def test_only_answers_are_masked_and_they_end_in_eos(text: TextTrainee) -> None:
    spec = text.net.spec
    shares = []
    for step in range(20):
        tokens, full, masked = text.batch(step)
        drawn = text.drawn(step, trainees.randomness(text.recipe, step))
        for row, question in enumerate(drawn):
            ids = text.ids(question.prompt), text.ids(question.target)
            start, end = len(ids[0]), len(ids[0]) + text.task.gen_length
            assert full[row, :start].tolist() == ids[0]
            assert full[row, start : start + len(ids[1])].tolist() == ids[1]
            assert set(full[row, start + len(ids[1]) : end].tolist()) == set(spec.eos_ids)
            assert set(full[row, end:].tolist()) <= {PAD}
            assert not masked[row, :start].any() and not masked[row, end:].any()
        assert ((tokens == spec.mask_id) == masked).all()
        assert torch.equal(tokens[~masked], full[~masked])
        shares.append(masked.sum(1) / text.task.gen_length)
    # A rate that is uniform varies by 0.29 from step to step, a repeated one by less than 0.08.
    assert torch.stack(shares).std(0).min() > 0.15


def test_a_pool_is_all_that_is_drawn_from() -> None:
    made = trainees.trainee(replace(TEXT, puzzles=3, batch_size=16), CPU)
    assert isinstance(made, TextTrainee)
    drawn = [made.drawn(step, trainees.randomness(made.recipe, step)) for step in range(4)]
    assert {q.id for questions in drawn for q in questions} == {f"train:0:{i}" for i in range(3)}


def test_what_pads_a_batch_is_never_seen(text: TextTrainee) -> None:
    tokens, _, masked = text.batch(0)
    padded = torch.nn.functional.pad(tokens, (0, 5), value=PAD)
    wider = torch.nn.functional.pad(masked, (0, 5))
    torch.testing.assert_close(text.logits(padded, wider), text.logits(tokens, masked))


def test_training_sees_a_canvas_as_the_loop_shows_it(text: TextTrainee) -> None:
    """Rows of different lengths: what the loop asks of the model is what was trained."""
    canvases = text.held_out()
    widest = max(len(c.tokens) for c in canvases)
    rows = [[*c.tokens, *[PAD] * (widest - len(c.tokens))] for c in canvases]
    tokens = torch.tensor(rows)
    masked = tokens == text.net.spec.mask_id
    where = torch.stack([row.nonzero()[:, 0] for row in masked])
    lengths = torch.tensor([len(c.tokens) for c in canvases])
    seen = text.model().start()(Batch(tokens, where, lengths)).flatten(0, 1)
    trained = text.logits(tokens, masked)
    trained[:, text.net.spec.mask_id] = -torch.inf
    torch.testing.assert_close(seen, trained, rtol=1e-4, atol=1e-4)


def test_a_saved_text_model_is_the_one_that_was_trained(text: TextTrainee, tmp_path: Path) -> None:
    text.save(tmp_path)
    loaded = checkpoint.load(tmp_path, device=CPU, dtype=torch.float32)
    assert loaded.encoder.spec == text.net.spec
    tokens = text.batch(0)[0].clamp(min=0)
    where = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
    before, after = (m.start()(Batch(tokens, where)) for m in (text.model(), loaded))
    assert torch.equal(before, after)
    question = next(text.task.training(5))
    read = canvas.tokenizer(tmp_path)
    assert read(question.target)["input_ids"] == text.ids(question.target)
    assert read.decode(text.ids(question.prompt)) == question.prompt
    assert (read.mask_token_id, read.eos_token_id) == (loaded.mask_id, loaded.eos_ids[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loops": 4}, "runs its layers once"),
        ({"heads": 3}, "does not divide into 3 heads"),
        ({"task": "gsm8k"}, "makes no training examples"),
    ],
)
def test_what_a_text_model_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainees.trainee(replace(TEXT, **change), CPU)  # type: ignore[arg-type]


def test_an_answer_without_room_for_its_end_is_refused(text: TextTrainee) -> None:
    question = next(text.task.training(0))
    room = text.task.gen_length
    assert text.answer(replace(question, target="1" * (room - 1)))[-1] in text.net.spec.eos_ids
    long = replace(question, target="1" * room)
    with pytest.raises(UserError, match="EOS must fit in too"):
        text.answer(long)
