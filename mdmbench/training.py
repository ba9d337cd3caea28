"""Training of puzzle models by masked diffusion.

The mask rate of an example is uniform in (0, 1) over its blanks, the loss the mean cross-entropy of
what is masked: the absorbing objective without a time weight, called MLM-U in the maze paper
(Nolte et al. 2024). Step s draws everything from (seed, s), so a resumed training is the same one.
"""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmbench import models, resolve
from mdmbench.base import Example, Observer, Sampler, Trainable
from mdmbench.canvas import Symbols
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.models.puzzle import PuzzleModel, PuzzleNet, PuzzleSpec, save
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import TopK

WARM_UP = 200
"""Steps in which the learning rate rises; it falls to 0 over the last 30 % of all steps."""

STRIDE = 1_000_003
"""Keeps the random streams of seed s apart from those of seed s + 1."""


@dataclass(frozen=True)
class Recipe:
    """All that a trained model depends on.

    puzzles     size of the pool that examples are drawn from, each seen through a random symmetry
                of the task; 0: fresh examples at every step
    task_knobs  of the task that is trained on; `test_knobs` overlay them for the held-out scores
    """

    task: str
    task_knobs: dict[str, str]
    test_knobs: dict[str, str]
    steps: int
    batch_size: int = 64
    puzzles: int = 0
    learning_rate: float = 1.5e-3
    width: int = 128
    layers: int = 3
    loops: int = 4
    heads: int = 4
    evaluate_every: int = 500
    held_out: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise UserError(f"learning rate is {self.learning_rate}", "it lies between 0 and 1")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed is {self.seed}", "it lies between 0 and 2**31")

    def rate(self, step: int) -> float:
        """The learning rate of a step: warm-up, constant, and a straight fall to 0 at the end."""
        warm = min(1.0, (step + 1) / WARM_UP)
        return self.learning_rate * warm * min(1.0, (self.steps - step) / (0.3 * self.steps))

    def command(self, out: Path = Path("training")) -> str:
        """The command line that makes the model."""
        plain = {
            k: v for k, v in asdict(self).items() if not isinstance(v, dict) and k != "held_out"
        }
        words = [f"--{name.replace('_', '-')} {value}" for name, value in plain.items()]
        words += [f"-T {k}={v}" for k, v in self.task_knobs.items()]
        words += [f"-E {k}={v}" for k, v in self.test_knobs.items()]
        return " ".join(["mdmbench train", *words, f"--out {out}"])


class Batches:
    """The training examples of each step, as tokens."""

    def __init__(self, recipe: Recipe, task: Trainable, symbols: Symbols) -> None:
        self.recipe, self.task = recipe, task
        self.ids = {symbol: i for i, symbol in enumerate(symbols.symbols)}
        self.pool = list(islice(task.training(recipe.seed), recipe.puzzles))

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Masked tokens, full tokens and where they differ, all [B, L]: a function of the step."""
        r = self.recipe
        rng = torch.Generator().manual_seed(r.seed * STRIDE + step)
        examples = self._examples(step, rng)
        full = torch.tensor([[self.ids[s] for s in self._filled(e)] for e in examples])
        blank = torch.tensor([[cell is None for cell in e.cells] for e in examples])
        rate = torch.rand(r.batch_size, 1, generator=rng)
        masked = blank & (torch.rand(full.shape, generator=rng) < rate)
        return torch.where(masked, len(self.ids), full), full, masked

    def _examples(self, step: int, rng: torch.Generator) -> list[Example]:
        r = self.recipe
        if not self.pool:
            return list(islice(self.task.training(r.seed * STRIDE + step + 1), r.batch_size))
        drawn = torch.randint(len(self.pool), (r.batch_size,), generator=rng).tolist()
        first = step * r.batch_size
        return [self.task.augment(self.pool[i], first + j) for j, i in enumerate(drawn)]

    def _filled(self, example: Example) -> list[str]:
        return [*cast(tuple[str, ...], example.cells[: example.start]), *example.target]


@dataclass
class State:
    """What a checkpoint keeps; `losses` are those since the last point of the curve."""

    net: PuzzleNet
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    PLAIN: ClassVar = ("step", "seconds", "curve", "losses")

    def save(self, path: Path, recipe: Recipe) -> None:
        draft = path.with_suffix(".draft")
        kept = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in self.PLAIN},
            "recipe": asdict(recipe),
        }
        torch.save(kept, draft)
        draft.replace(path)

    def load(self, path: Path, recipe: Recipe) -> None:
        try:
            # To the CPU: AdamW keeps its step counts where they are loaded.
            kept = torch.load(path, map_location="cpu", weights_only=True)
            before = Recipe(**kept["recipe"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path} cannot be read: {reason}", "delete it to begin anew") from None
        # Until the rate begins to fall, trainings of different lengths are the same one.
        shared = 0.7 * min(before.steps, recipe.steps)
        same = asdict(before) | {"steps": 0} == asdict(recipe) | {"steps": 0}
        if not same or (before.steps != recipe.steps and kept["step"] > shared):
            raise UserError(
                f"{path.parent} holds a training with other settings",
                f"repeat {before.command(path.parent)}, or choose another --out",
            )
        self.net.load_state_dict(kept["net"])
        self.optimizer.load_state_dict(kept["optimizer"])
        for name in self.PLAIN:
            setattr(self, name, kept[name])


def train(
    recipe: Recipe,
    out: Path,
    device_name: str,
    *,
    threads: int,
    save_every: int,
    observer: Observer,
) -> None:
    """Trains to the last step, scoring and saving on the way, and writes the model to `out`."""
    if threads:
        torch.set_num_threads(threads)
    device = models.device(device_name)
    task = trainable(recipe.task, recipe.task_knobs)
    test = trainable(recipe.task, {**recipe.task_knobs, **recipe.test_knobs})
    if (test.symbols, test.layout()) != (task.symbols, task.layout()):
        raise UserError("the held-out puzzles are of another shape", "-E may not set it")
    torch.manual_seed(recipe.seed)
    net = PuzzleNet(spec(recipe, task)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    state = State(net, optimizer)
    checkpoint = out / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state.load(checkpoint, recipe)
    elif any(out.iterdir()):
        raise UserError(f"{out} holds other files", "train into an empty folder, or a training's")
    batches = Batches(recipe, task, Symbols(net.spec.symbols))
    began = time.monotonic() - state.seconds
    while state.step < recipe.steps:
        state.losses.append(update(recipe, state, batches(state.step)))
        state.step += 1
        state.seconds = time.monotonic() - began
        observer(f"{recipe.task}, loss {state.losses[-1]:.3f}", state.step, recipe.steps)
        if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
            point = {
                "step": state.step,
                "seconds": round(state.seconds),
                "loss": round(sum(state.losses) / len(state.losses), 5),
            }
            state.curve.append({**point, **evaluate(net, test, recipe)})
            state.losses.clear()
            write(recipe, state, out)
        if state.step % save_every == 0 or state.step == recipe.steps:
            state.save(checkpoint, recipe)


def trainable(name: str, knobs: dict[str, str]) -> Trainable:
    task = resolve.task(name, knobs)
    if not hasattr(task, "training"):
        raise UserError(f"task {name} makes no training examples", "train on sudoku or maze")
    return cast(Trainable, task)


def spec(recipe: Recipe, task: Trainable) -> PuzzleSpec:
    return PuzzleSpec(
        symbols=tuple(task.symbols),
        end_symbols=tuple(task.end_symbols),
        layout=task.layout(),
        width=recipe.width,
        layers=recipe.layers,
        loops=recipe.loops,
        heads=recipe.heads,
        ff=2 * recipe.width,
    )


def update(recipe: Recipe, state: State, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """One step of AdamW on one batch; the loss."""
    net, device = state.net, state.net.pairs.device
    tokens, full, masked = (x.to(device) for x in batch)
    with torch.autocast(device.type, torch.bfloat16):
        logits = net.logits(net.hidden(tokens)[masked])
    loss = F.cross_entropy(logits.float(), full[masked])
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(state.step)
    state.optimizer.step()
    return loss.item()


def evaluate(net: PuzzleNet, task: Trainable, recipe: Recipe) -> dict[str, float]:
    """The headline score and mean NFE on held-out examples, by top-1 and by EB at two bounds."""
    model = PuzzleModel(net)
    symbols = Symbols(model.symbols)
    examples = {e.id: e for e in task.examples(recipe.held_out, recipe.seed)}
    rules: dict[str, Sampler] = {"top1": TopK(k=1), "eb0.01": EB(0.01), "eb0.1": EB(0.1)}
    found = {}
    for name, rule in rules.items():
        canvases = [symbols.canvas(e) for e in examples.values()]
        done = list(decode(model, rule, canvases, batch_size=recipe.batch_size))
        answers = ((examples[d.id], symbols.answer(d.tokens[examples[d.id].start :])) for d in done)
        scores = [task.score(example, answer)[task.headline] for example, answer in answers]
        found[name] = round(sum(scores) / len(scores), 4)
        found[f"{name}_nfe"] = round(sum(d.nfe for d in done) / len(done), 2)
    return found


def write(recipe: Recipe, state: State, out: Path) -> None:
    """The model as it stands, its curve, and its card."""
    save(state.net, out)
    with (out / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(state.curve[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state.curve)
    (out / "README.md").write_text(card(recipe, state))


def card(recipe: Recipe, state: State) -> str:
    """The model card."""
    last = state.curve[-1]
    parameters = sum(p.numel() for p in state.net.parameters())
    data = (
        f"{recipe.puzzles} generated puzzles" if recipe.puzzles else "fresh puzzles at every step"
    )
    rules = [name for name in last if f"{name}_nfe" in last]
    lines = [
        f"# A {recipe.task} model of {parameters:,} parameters",
        "",
        f"A bidirectional transformer of width {recipe.width}: {recipe.layers} layers, run"
        f" {recipe.loops} times, attention biased by how two cells relate. Trained by masked"
        f" diffusion on {data}, {state.step} steps of {recipe.batch_size}, in"
        f" {state.seconds / 60:.0f} minutes on {state.net.pairs.device.type}.",
        "",
        f"    {recipe.command()}",
        "",
        f"On {recipe.held_out} held-out puzzles (the curve is in curve.csv):",
        "",
        "| rule | score | NFE |",
        "|---|---|---|",
        *(f"| {name} | {last[name]:.1%} | {last[f'{name}_nfe']} |" for name in rules),
    ]
    return "\n".join(lines) + "\n"
