"""Published samplers whose behaviour is a rule together with settings of the loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A rule by its name, with knobs set; the schedule follows --steps; `filtered`: see `Draw`."""

    sampler: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    filtered: bool = False


PRESETS = {
    "llada": Preset("topk", {"proxy": "confidence"}, schedule="linear"),
    "dream-origin": Preset("random", schedule="ancestral", filtered=True),
    "dream-maskgit-plus": Preset("topk", {"proxy": "confidence"}, "dream", filtered=True),
    "dream-entropy": Preset("topk", {"proxy": "entropy"}, "dream", filtered=True),
    "dream-topk-margin": Preset("topk", {"proxy": "margin"}, "dream", filtered=True),
    "fast-dllm-dream": Preset("threshold", {"capped": True}, "linear", filtered=True),
    "fast-dllm-factor": Preset("factor", {"slip": True}),
}
"""LLaDA generate.py; Dream generation_utils.py (alg = origin, maskgit_plus, entropy, topk_margin);
Fast-dLLM's Dream port of the threshold rule; its factor rule with the published slip."""
