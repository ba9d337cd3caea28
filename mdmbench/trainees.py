"""What can be trained: the puzzle model on a puzzle task, the encoder on a text task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mdmbench import resolve
from mdmbench.base import Canvas, Decoded, Example, Model, Question, TextTask, Trainable
from mdmbench.canvas import Symbols, Text, is_puzzle
from mdmbench.errors import UserError
from mdmbench.models import puzzle
from mdmbench.models.encoder import Encoder, ModelSpec, NativeModel
from mdmbench.models.families import llada_name
from mdmbench.scoring.scorer import cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mdmbench.training import Recipe

STRIDE = 1_000_003
"""Keeps the random streams of seed s apart from those of seed s + 1."""

PAD = -1
"""Stands behind a canvas that is shorter than its batch; it is no token."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Masked tokens, full tokens, and where they differ, all [B, L]."""


class TrainableText(TextTask, Protocol):
    """A task that a text model can be trained on."""

    def training(self, seed: int) -> Iterator[Question]:
        """An endless stream, disjoint from `examples`; prompt and target are the text to learn."""
        ...

    def score(self, question: Question, answer: str) -> Mapping[str, float]: ...


class Trainee(Protocol):
    """A model under training, with the task that it is trained on.

    net    what is trained, on its device
    about  the architecture, as a card tells it
    """

    @property
    def net(self) -> nn.Module: ...
    @property
    def about(self) -> str: ...

    def batch(self, step: int) -> Batch:
        """The examples of a step: a function of it and the recipe."""
        ...

    def logits(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Of the masked positions, [N, V]."""
        ...

    def model(self) -> Model:
        """The net as it stands."""
        ...

    def held_out(self) -> Sequence[Canvas]:
        """The canvases of the held-out examples."""
        ...

    def score(self, canvas: Canvas, decoded: Decoded) -> float:
        """The headline score of one of them."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the model such that it can be loaded by `--model FOLDER`."""
        ...


def trainee(recipe: Recipe, device: torch.device) -> Trainee:
    """The untrained model of a recipe."""
    task, test = (
        trainable(recipe.task, knobs)
        for knobs in (recipe.task_knobs, {**recipe.task_knobs, **recipe.test_knobs})
    )
    if is_puzzle(task):
        return PuzzleTrainee(recipe, cast(Trainable, task), cast(Trainable, test), device)
    return TextTrainee(recipe, cast(TrainableText, task), cast(TrainableText, test), device)


def trainable(name: str, knobs: dict[str, str]) -> Trainable | TrainableText:
    """A task by its name, as `resolve.task`."""
    task = resolve.task(name, knobs)
    if not hasattr(task, "training"):
        raise UserError(
            f"task {name} makes no training examples", "train on sudoku, maze or arithmetic"
        )
    return cast(Trainable | TrainableText, task)


def randomness(recipe: Recipe, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed * STRIDE + step)


def hide(full: Tensor, blank: Tensor, mask_id: int, rng: torch.Generator) -> Batch:
    """Masks each row's blanks at a rate of its own, uniform in (0, 1)."""
    rate = torch.rand(len(full), 1, generator=rng)
    masked = blank & (torch.rand(full.shape, generator=rng) < rate)
    return torch.where(masked, mask_id, full), full, masked


class PuzzleTrainee:
    """A PuzzleNet on canvases of symbols."""

    def __init__(
        self, recipe: Recipe, task: Trainable, test: Trainable, device: torch.device
    ) -> None:
        if (test.symbols, test.layout()) != (task.symbols, task.layout()):
            raise UserError("the held-out puzzles are of another shape", "-E may not set it")
        self.recipe, self.task, self.test = recipe, task, test
        self.symbols = Symbols(tuple(task.symbols))
        self.ids = {symbol: i for i, symbol in enumerate(task.symbols)}
        self.pool = list(islice(task.training(recipe.seed), recipe.puzzles))
        self.examples = {e.id: e for e in test.examples(recipe.held_out, recipe.seed)}
        spec = puzzle.PuzzleSpec(
            symbols=tuple(task.symbols),
            end_symbols=tuple(task.end_symbols),
            layout=task.layout(),
            width=recipe.width,
            layers=recipe.layers,
            loops=recipe.loops,
            heads=recipe.heads,
            ff=2 * recipe.width,
        )
        self.net = puzzle.PuzzleNet(spec).to(device)
        self.about = (
            f"A bidirectional transformer of width {recipe.width}: {recipe.layers} layers, run"
            f" {recipe.loops} times, attention biased by how two cells relate."
        )

    def batch(self, step: int) -> Batch:
        rng = randomness(self.recipe, step)
        examples = self.drawn(step, rng)
        full = torch.tensor([[self.ids[s] for s in self._filled(e)] for e in examples])
        blank = torch.tensor([[cell is None for cell in e.cells] for e in examples])
        return hide(full, blank, len(self.ids), rng)

    def drawn(self, step: int, rng: torch.Generator) -> list[Example]:
        r = self.recipe
        if not self.pool:
            return list(islice(self.task.training(r.seed * STRIDE + step + 1), r.batch_size))
        drawn = torch.randint(len(self.pool), (r.batch_size,), generator=rng).tolist()
        first = step * r.batch_size
        return [self.task.augment(self.pool[i], first + j) for j, i in enumerate(drawn)]

    def _filled(self, example: Example) -> list[str]:
        return [*cast(tuple[str, ...], example.cells[: example.start]), *example.target]

    def logits(self, tokens: Tensor, masked: Tensor) -> Tensor:
        return self.net.logits(self.net.hidden(tokens)[masked])

    def model(self) -> Model:
        return puzzle.PuzzleModel(self.net)

    def held_out(self) -> list[Canvas]:
        return [self.symbols.canvas(e) for e in self.examples.values()]

    def score(self, canvas: Canvas, decoded: Decoded) -> float:
        answer = self.symbols.answer(decoded.tokens[canvas.start :])
        return self.test.score(self.examples[canvas.id], answer)[self.test.headline]

    def save(self, folder: Path) -> None:
        puzzle.save(self.net, folder)


EOS, MASK, UNKNOWN = "<|endoftext|>", "<|mask|>", "<|unknown|>"
PIECE = r" ?[A-Za-z]+|#+ |[^A-Za-z]"
"""A word with the space before it, the mark of the result, or one character."""

SAMPLED = 5_000
"""Training texts whose pieces make the vocabulary: a task of few words shows them all."""


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a piece of these texts; what is decoded is what was encoded."""
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(PIECE), "isolated")
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    special = [EOS, MASK, UNKNOWN]
    vocabulary = {piece: i for i, piece in enumerate([*special, *sorted(pieces)])}
    made = Tokenizer(WordLevel(vocabulary, UNKNOWN))
    made.pre_tokenizer = split
    made.decoder = decoders.Fuse()
    made.add_special_tokens(special)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


class TextTrainee:
    """An encoder in LLaDA's layout on prompts and answers, with a tokenizer of their words.

    An answer is filled up to `gen_length` with EOS, and EOS is learned like any token: the model
    decides how long an answer is.
    """

    def __init__(
        self, recipe: Recipe, task: TrainableText, test: TrainableText, device: torch.device
    ) -> None:
        if recipe.loops != 1:
            raise UserError("a text model runs its layers once", "add --loops 1")
        if recipe.width % (2 * recipe.heads):
            raise UserError(
                f"width {recipe.width} does not divide into {recipe.heads} heads",
                "each head takes an even part",
            )
        if test.gen_length != task.gen_length:
            raise UserError("the held-out answers are of another length", "-E may not set it")
        self.recipe, self.task, self.test = recipe, task, test
        sample = list(islice(task.training(recipe.seed), max(SAMPLED, recipe.puzzles)))
        self.pool = sample[: recipe.puzzles]
        self.questions = {q.id: q for q in test.examples(recipe.held_out, recipe.seed)}
        made = tokenizer(q.prompt + q.target for q in sample)
        self.encoder = made.backend_tokenizer
        longest = max(len(self.ids(q.prompt)) for q in (*sample, *self.questions.values()))
        spec = ModelSpec(
            vocab_rows=len(made),
            width=recipe.width,
            layers=recipe.layers,
            heads=recipe.heads,
            kv_heads=recipe.heads,
            head_dim=recipe.width // recipe.heads,
            ff=3 * recipe.width,
            norm_eps=1e-5,
            rope_theta=10_000.0,
            rope_fp32=True,
            tie=False,
            mask_id=made.mask_token_id,
            eos_ids=(made.eos_token_id,),
            max_length=2 * (longest + task.gen_length),
        )
        self.net = Encoder(spec).to(device)
        self.net.build_rope(device, torch.float32)
        self.codec = Text(made, self.model(), test, gen_length=test.gen_length, chat=False)
        self.about = (
            f"A bidirectional transformer in LLaDA's layout: width {recipe.width},"
            f" {recipe.layers} layers, {recipe.heads} heads, {spec.vocab_rows} tokens."
        )

    def ids(self, text: str) -> list[int]:
        return self.encoder.encode(text).ids

    def batch(self, step: int) -> Batch:
        rng = randomness(self.recipe, step)
        questions = self.drawn(step, rng)
        prompts = [self.ids(q.prompt) for q in questions]
        rows = [ids + self.answer(q) for ids, q in zip(prompts, questions, strict=True)]
        full = torch.tensor([row + [PAD] * (max(map(len, rows)) - len(row)) for row in rows])
        start = torch.tensor([len(ids) for ids in prompts])[:, None]
        blank = (torch.arange(full.shape[1]) >= start) & (full != PAD)
        return hide(full, blank, self.net.spec.mask_id, rng)

    def answer(self, question: Question) -> list[int]:
        """The answer region: the target, and EOS up to its end."""
        ids = self.ids(question.target)
        room = self.task.gen_length - len(ids)
        if room < 1:
            raise UserError(
                f"the answer of {question.id} has {len(ids)} tokens, and EOS must fit in too",
                f"the task's gen_length is {self.task.gen_length}",
            )
        return ids + room * [self.net.spec.eos_ids[0]]

    def drawn(self, step: int, rng: torch.Generator) -> list[Question]:
        r = self.recipe
        if not self.pool:
            return list(islice(self.task.training(r.seed * STRIDE + step + 1), r.batch_size))
        drawn = torch.randint(len(self.pool), (r.batch_size,), generator=rng).tolist()
        return [self.pool[i] for i in drawn]

    def logits(self, tokens: Tensor, masked: Tensor) -> Tensor:
        real = tokens != PAD
        # On a CPU the backward pass of the fused kernel takes as long as all the rest.
        with sdpa_kernel(SDPBackend.MATH):
            hidden = self.net(tokens.where(real, 0), real)
        return cast(Tensor, self.net.lm_head(hidden[masked]))

    def model(self) -> Model:
        return NativeModel(self.net)

    def held_out(self) -> list[Canvas]:
        return [self.codec.canvas(question) for question in self.questions.values()]

    def score(self, canvas: Canvas, decoded: Decoded) -> float:
        answer = cut(self.test, self.codec.answer(decoded.tokens[canvas.start : canvas.end]))
        return self.test.score(self.questions[canvas.id], answer)[self.test.headline]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.codec.tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(self._config(), indent=1) + "\n")
        tensors = {llada_name(key): tensor for key, tensor in self.net.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")

    def _config(self) -> dict[str, Any]:
        """The fields that `families.llada_spec` reads."""
        spec = self.net.spec
        return {
            "architectures": ["LLaDAModelLM"],
            "block_type": "llama",
            "activation_type": "silu",
            "layer_norm_type": "rms",
            "rope": True,
            "rope_full_precision": spec.rope_fp32,
            "rope_theta": spec.rope_theta,
            "weight_tying": spec.tie,
            "vocab_size": spec.vocab_rows,
            "d_model": spec.width,
            "n_layers": spec.layers,
            "n_heads": spec.heads,
            "mlp_hidden_size": spec.ff,
            "max_sequence_length": spec.max_length,
            "rms_norm_eps": spec.norm_eps,
            "mask_token_id": spec.mask_id,
            "eos_token_id": spec.eos_ids[0],
            "pad_token_id": spec.eos_ids[0],
        }
