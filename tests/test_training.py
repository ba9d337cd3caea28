"""Training: the same command makes the same model, however often it is stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mdmbench import training
from mdmbench.canvas import Symbols
from mdmbench.errors import UserError
from mdmbench.models import puzzle
from mdmbench.training import Batches, Recipe

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


def train(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    training.train(recipe, out, "cpu", threads=1, save_every=1, observer=lambda *_: None)
    model = puzzle.load(out, device=torch.device("cpu"), dtype=torch.float32)
    return model.net.state_dict()


def stopping(at: int):  # type: ignore[no-untyped-def]
    def observer(label: str, done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    return observer


@pytest.mark.parametrize("recipe", [SMALL, RASTER, EDGES], ids=["sudoku", "raster", "edges"])
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
    task = training.trainable("sudoku", {"side": "4"})
    batches = Batches(SMALL, task, Symbols(tuple("1234")))
    shares = []
    for step in range(50):
        tokens, full, masked = batches(step)
        blanks = torch.tensor(
            [
                [c is None for c in e.cells]
                for e in batches._examples(
                    step, torch.Generator().manual_seed(SMALL.seed * training.STRIDE + step)
                )
            ]
        )
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
