"""Training by masked diffusion.

The mask rate of an example is uniform in (0, 1) over its blanks, the loss the mean cross-entropy of
what is masked: the absorbing objective without a time weight, called MLM-U in the maze paper
(Nolte et al. 2024). Step s draws everything from (seed, s), so a resumed training is the same one.
"""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from mdmbench import models, trainees
from mdmbench.base import Observer, Sampler
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import TopK
from mdmbench.trainees import Trainee

WARM_UP = 200
"""Steps in which the learning rate rises; it falls to 0 over the last 30 % of all steps."""


@dataclass(frozen=True)
class Recipe:
    """All that a trained model depends on.

    puzzles     size of the pool that examples are drawn from, puzzles each seen through a random
                symmetry of the task; 0: fresh examples at every step
    loops       times that the layers are run: a puzzle model's; a text model runs them once
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


@dataclass
class State:
    """What a checkpoint keeps; `losses` are those since the last point of the curve."""

    net: nn.Module
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
    torch.manual_seed(recipe.seed)
    trainee = trainees.trainee(recipe, device)
    parameters = trainee.net.parameters()
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99), weight_decay=0.01)
    state = State(trainee.net, optimizer)
    checkpoint = out / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state.load(checkpoint, recipe)
    elif any(out.iterdir()):
        raise UserError(f"{out} holds other files", "train into an empty folder, or a training's")
    began = time.monotonic() - state.seconds
    while state.step < recipe.steps:
        state.losses.append(update(recipe, trainee, state, device))
        state.step += 1
        state.seconds = time.monotonic() - began
        observer(f"{recipe.task}, loss {state.losses[-1]:.3f}", state.step, recipe.steps)
        if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
            point = {
                "step": state.step,
                "seconds": round(state.seconds),
                "loss": round(sum(state.losses) / len(state.losses), 5),
            }
            state.curve.append({**point, **evaluate(trainee, recipe)})
            state.losses.clear()
            write(recipe, trainee, state, out)
        if state.step % save_every == 0 or state.step == recipe.steps:
            state.save(checkpoint, recipe)


def update(recipe: Recipe, trainee: Trainee, state: State, device: torch.device) -> float:
    """One step of AdamW on the step's batch; the loss."""
    tokens, full, masked = (x.to(device) for x in trainee.batch(state.step))
    with torch.autocast(device.type, torch.bfloat16):
        logits = trainee.logits(tokens, masked)
    loss = F.cross_entropy(logits.float(), full[masked])
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trainee.net.parameters(), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(state.step)
    state.optimizer.step()
    return loss.item()


def evaluate(trainee: Trainee, recipe: Recipe) -> dict[str, float]:
    """The headline score and mean NFE on held-out examples, by top-1 and by EB at two bounds."""
    model, canvases = trainee.model(), {c.id: c for c in trainee.held_out()}
    rules: dict[str, Sampler] = {"top1": TopK(k=1), "eb0.01": EB(0.01), "eb0.1": EB(0.1)}
    found = {}
    for name, rule in rules.items():
        done = list(decode(model, rule, canvases.values(), batch_size=recipe.batch_size))
        scores = [trainee.score(canvases[d.id], d) for d in done]
        found[name] = round(sum(scores) / len(scores), 4)
        found[f"{name}_nfe"] = round(sum(d.nfe for d in done) / len(done), 2)
    return found


def write(recipe: Recipe, trainee: Trainee, state: State, out: Path) -> None:
    """The model as it stands, its curve, and its card."""
    trainee.save(out)
    with (out / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(state.curve[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state.curve)
    (out / "README.md").write_text(card(recipe, trainee, state))


def card(recipe: Recipe, trainee: Trainee, state: State) -> str:
    """The model card."""
    last = state.curve[-1]
    parameters = sum(p.numel() for p in state.net.parameters())
    examples = "fresh examples at every step"
    if recipe.puzzles:
        examples = f"{recipe.puzzles} generated examples"
    device = next(state.net.parameters()).device.type
    rules = [name for name in last if f"{name}_nfe" in last]
    lines = [
        f"# {recipe.task}: a model of {parameters:,} parameters",
        "",
        f"{trainee.about} Trained by masked diffusion on {examples}, {state.step} steps of"
        f" {recipe.batch_size}, in {state.seconds / 60:.0f} minutes on {device}.",
        "",
        f"    {recipe.command()}",
        "",
        f"On {recipe.held_out} held-out examples (the curve is in curve.csv):",
        "",
        "| rule | score | NFE |",
        "|---|---|---|",
        *(f"| {name} | {last[name]:.1%} | {last[f'{name}_nfe']} |" for name in rules),
    ]
    return "\n".join(lines) + "\n"
