"""How the authors of each checkpoint evaluated it: what to set to meet their numbers.

From their papers, cards and scripts. Where these say nothing of a task, there is no row for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setting:
    """One evaluation.

    tasks        what it was used for
    length       answer tokens
    steps        forwards for them; None: as the threshold has it
    block        tokens of a block of the decoding; None: one block
    temperature  of the tokens that are drawn; 0: the likeliest
    top_p        cut of the distribution they are drawn from; None: none
    alg          the rule, by the authors' name
    eos          logits: end tokens are never written; confidence: they are written last
    chat         with the chat template
    """

    tasks: str
    length: int
    steps: int | None
    block: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    alg: str = "low_confidence"
    eos: Literal["", "logits", "confidence"] = ""
    chat: bool = True

    def __str__(self) -> str:
        parts = [
            f"length {self.length}",
            "steps as the threshold has it" if self.steps is None else f"steps {self.steps}",
            f"block {self.block}" if self.block else "one block",
            f"temperature {self.temperature:g}",
            f"top_p {self.top_p:g}" if self.top_p else "",
            self.alg,
            {"": "", "logits": "no EOS", "confidence": "EOS last"}[self.eos],
            "chat template" if self.chat else "no chat template",
        ]
        return f"{self.tasks}: {', '.join(filter(None, parts))}"


@dataclass(frozen=True)
class Published:
    """A checkpoint on the hub, or several that are used alike.

    names    the last parts of their ids
    mask_id  the mask token, where neither config nor tokenizer may name it
    block    of block-causal attention, where the config may not name it
    note     what else is needed to meet the authors' numbers
    """

    names: tuple[str, ...]
    settings: tuple[Setting, ...] = ()
    mask_id: int | None = None
    block: int | None = None
    note: str = ""


def _dream(tasks: str, length: int, temperature: float, top_p: float, chat: bool) -> Setting:
    return Setting(
        tasks, length, length, temperature=temperature, top_p=top_p, alg="entropy", chat=chat
    )


PUBLISHED = (
    Published(
        ("LLaDA-8B-Base",),
        (Setting("gsm8k, math, humaneval, mbpp", 1024, 1024, chat=False),),
        note="also run with length, steps and block 512, and with 256",
    ),
    Published(
        ("LLaDA-8B-Instruct",),
        (
            Setting("gsm8k, math", 512, 512, eos="confidence"),
            Setting("humaneval", 512, 512, eos="logits"),
            Setting("mbpp", 256, 256, eos="confidence"),
            Setting("gsm8k in blocks", 256, 256, 8),
            Setting("math in blocks", 512, 512, 64),
        ),
    ),
    Published(
        ("LLaDA-1.5",),
        (
            Setting("gsm8k", 256, 256, 16, eos="confidence"),
            Setting("math", 1024, 1024, 128, eos="confidence"),
            Setting("humaneval, mbpp", 512, 512, 32, eos="confidence"),
        ),
    ),
    Published(("iLLaDA-8B-Base", "iLLaDA-8B-Instruct"), mask_id=5),
    Published(
        ("LLaDA-MoE-7B-A1B-Base", "LLaDA-MoE-7B-A1B-Instruct", "LLaDA-MoE-7B-A1B-Instruct-TD"),
        mask_id=156895,
        note="the sampler is LLaDA's",
    ),
    Published(
        ("LLaDA2.0-mini", "LLaDA2.0-flash", "LLaDA2.0-mini-preview", "LLaDA2.0-flash-preview"),
        mask_id=156895,
        block=32,
        note="blocks of 32 with 32 steps each, temperature 0, confidence threshold 0.95",
    ),
    Published(
        ("LLaDA2.1-mini", "LLaDA2.1-flash"),
        mask_id=156895,
        block=32,
        note="rewrites tokens that are already written, which no sampler here does",
    ),
    Published(
        ("Dream-v0-Base-7B",),
        (
            _dream("humaneval, mbpp", 512, 0.2, 0.95, chat=False),
            _dream("gsm8k", 256, 0.0, 0.95, chat=False),
            _dream("math", 512, 0.0, 0.95, chat=False),
        ),
        note="few-shot: mbpp 3, gsm8k 8, math 4",
    ),
    Published(
        ("Dream-v0-Instruct-7B",),
        (
            _dream("humaneval", 768, 0.1, 0.9, chat=True),
            _dream("mbpp", 1024, 0.1, 0.9, chat=True),
            _dream("gsm8k", 256, 0.1, 0.9, chat=True),
            _dream("math", 512, 0.1, 0.9, chat=True),
        ),
    ),
    Published(
        ("Dream-Coder-v0-Base-7B",),
        (
            _dream("humaneval", 512, 0.2, 0.9, chat=False),
            _dream("mbpp", 512, 0.1, 0.9, chat=False),
        ),
    ),
    Published(
        ("Dream-Coder-v0-Instruct-7B",),
        (_dream("humaneval, mbpp", 768, 0.1, 0.95, chat=True),),
    ),
    Published(("DiffuCoder-7B-Base",), (_dream("humaneval, mbpp", 256, 0.2, 0.95, chat=False),)),
    Published(
        ("DiffuCoder-7B-Instruct", "DiffuCoder-7B-cpGRPO"),
        (_dream("humaneval, mbpp", 256, 0.3, 0.95, chat=True),),
        note="the temperature was 0.3 to 0.4; the answer ends at <|dlm_pad|>",
    ),
    Published(
        ("SDAR-1.7B-Chat", "SDAR-4B-Chat", "SDAR-8B-Chat"),
        mask_id=151669,
        block=4,
        note="blocks of 4 with 4 steps each, temperature 0",
    ),
    Published(
        ("Fast_dLLM_v2_7B", "Fast_dLLM_v2_1.5B"),
        mask_id=151665,
        block=32,
        note="sub-blocks of 8, temperature 0, top_p 0.95, confidence threshold 0.9 to 0.95",
    ),
    Published(
        ("open-dcoder-0.5B",),
        (Setting("humaneval, mbpp", 128, 128, None, 0.8, 0.95, "p2", chat=False),),
        note="p2 takes written tokens back, which no sampler here does",
    ),
    Published(
        ("Qwen3-0.6B-diffusion-mdlm-v0.1", "Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1"),
        (Setting("gsm8k, math, humaneval, mbpp", 256, 256, 256),),
    ),
    Published(
        ("Qwen3-0.6B-diffusion-bd3lm-v0.1", "Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1"),
        (Setting("gsm8k, math, humaneval, mbpp", 256, 256, 32),),
        block=32,
    ),
    Published(
        ("mdlm-owt",),
        note="text without a prompt: 1,000 steps for 1,024 tokens, drawn from the whole"
        " distribution",
    ),
)


def published(name: str) -> Published | None:
    """By a hub id, or by a folder that is called as the hub calls the checkpoint."""
    last = name.rstrip("/").rpartition("/")[2].casefold()
    return next((p for p in PUBLISHED if last in map(str.casefold, p.names)), None)
