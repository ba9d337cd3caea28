"""Feed-forward layers: one gated MLP, or a router that chooses among many.

Shapes: N tokens of the batch in a row, D width, X experts, K experts that a token is sent to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Experts:
    """The mixture of a checkpoint.

    count         X
    top_k         K
    ff            inner width of an expert
    shared_ff     inner width of the MLP that every token passes besides; 0: there is none
    dense_layers  layers with a plain feed-forward instead
    router        softmax: weights are probabilities, as they are (LLaDA-MoE modeling);
                  sigmoid: they are made to sum to `scale` (LLaDA2 modeling)
    groups        sigmoid only: experts come in so many groups of equal size,
    top_groups    and a token chooses in the best of them, by the sum of a group's two best scores
    """

    count: int
    top_k: int
    ff: int
    dense_layers: frozenset[int]
    router: Literal["softmax", "sigmoid"]
    shared_ff: int = 0
    groups: int = 1
    top_groups: int = 1
    scale: float = 1.0


class MLP(nn.Module):
    """SiLU-gated feed-forward."""

    def __init__(self, width: int, ff: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, ff, bias=bias)
        self.up_proj = nn.Linear(width, ff, bias=bias)
        self.down_proj = nn.Linear(ff, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[..., D]`."""
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class Router(nn.Module):
    """Chooses K of X experts for each token. Its weights are small and never quantised."""

    def __init__(self, width: int, experts: Experts) -> None:
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts.count, width))
        if experts.router == "sigmoid":
            self.expert_bias = nn.Parameter(torch.empty(experts.count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, D]` -> the experts of each token, and their weights in float32 or less, `[N, K]`."""
        if self.experts.router == "softmax":
            scores = F.linear(x, self.weight).softmax(-1, dtype=torch.float32)
            # In ascending order, in which the answers are added: bfloat16 rounds at each of them.
            chosen = scores.topk(self.experts.top_k).indices.sort().values
            return chosen, scores.gather(1, chosen).to(x.dtype)
        scores = F.linear(x.float(), self.weight.float()).sigmoid()
        # The bias moves the choice alone; the weights are the scores without it.
        chosen = self.in_best_groups(scores + self.expert_bias).topk(self.experts.top_k).indices
        weights = scores.gather(1, chosen)
        return chosen, weights / weights.sum(-1, keepdim=True) * self.experts.scale

    def in_best_groups(self, scores: Tensor) -> Tensor:
        """`scores` `[N, X]`, -inf outside each token's best groups."""
        grouped = scores.view(len(scores), self.experts.groups, -1)
        best = grouped.topk(2).values.sum(-1).topk(self.experts.top_groups).indices
        barred = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(1, best, False)
        return grouped.masked_fill(barred[..., None], -torch.inf).flatten(1)


class Mixture(nn.Module):
    """A router, its experts, and the MLP they may share."""

    def __init__(self, width: int, experts: Experts) -> None:
        super().__init__()
        self.gate = Router(width, experts)
        self.experts = nn.ModuleList(MLP(width, experts.ff) for _ in range(experts.count))
        self.shared_experts = MLP(width, experts.shared_ff) if experts.shared_ff else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`."""
        flat = x.flatten(0, 1)
        chosen, weights = self.gate(flat)
        parts = self.answers(flat, chosen) * weights[..., None]
        total: Tensor = parts[:, 0]
        for part in parts.unbind(1)[1:]:
            total = total + part
        total = total.to(x.dtype).view_as(x)
        return total if self.shared_experts is None else total + self.shared_experts(x)

    def answers(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What the `chosen` `[N, K]` experts say of their tokens, `[N, K, D]`.

        Tokens are sorted by expert, so that each runs once; how many it got is read by the host.
        """
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        groups = torch.split(x[order // chosen.shape[1]], counts)
        pairs = zip(self.experts, groups, strict=True)
        said = [expert(group) for expert, group in pairs if len(group)]
        answers = torch.empty(len(order), x.shape[1], dtype=x.dtype, device=x.device)
        answers[order] = torch.cat(said)
        return answers.view(*chosen.shape, -1)
