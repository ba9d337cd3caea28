"""Caches: forwards in which some positions go through the model, and the others are as they were.

A policy says which positions are due. Their fresh keys and values are kept in the place of the old
ones, and they attend to all that is kept. All but `exact` are approximations: what is kept of a
position was made when other tokens stood elsewhere. A token that is not the one that its position
last passed with, because it was committed, taken back or edited, makes it due, whatever the policy.

Shapes beyond those of `mdmbench.base`: S slots, Q positions of a row that go through, G rows that
go through together, K, E and D as in `encoder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mdmbench import resolve
from mdmbench.base import Batch, Forward, Model
from mdmbench.errors import UserError, unknown
from mdmbench.models.encoder import Encoder, Layer, NativeForward, NativeModel

SPLIT = 256
"""Rows go through apart where that spares so many padded positions: reading the weights once more
takes a GPU about as long as these."""

NONE = torch.iinfo(torch.int64).min
"""In `Past.first`: the slot has had no forward."""


@dataclass(frozen=True)
class Asked:
    """A forward that is to come, as a policy sees it; int64 [B, 1] where nothing else is said.

    place    int64 [L], of every position
    inside   bool [B, L]: the position is none that pads the row
    masked   bool [B, L]
    changed  bool [B, L]: the token is not the one with which the position last passed; also where
             it never did
    first    where the current block begins,
    behind   and the first position behind it
    start    where the first block began: the prompt lies before it
    length   positions of the row
    step     forwards that the example has had,
    since    and those of them in the current block; 0: the block opens
    block    length of the blocks of the model's attention; None: it is full
    """

    place: Tensor
    inside: Tensor
    masked: Tensor
    changed: Tensor
    first: Tensor
    behind: Tensor
    start: Tensor
    length: Tensor
    step: Tensor
    since: Tensor
    block: int | None

    def take(self, index: Tensor) -> Asked:
        """Of these rows alone."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        rows = {k: v[index] for k, v in parts.items() if isinstance(v, Tensor) and v.dim() == 2}
        return replace(self, **{**parts, **rows})


class Policy(Protocol):
    """Which positions go through. Its knobs are its fields."""

    def due(self, asked: Asked) -> Tensor:
        """bool [B, L], True for all that have changed; what lies outside a row is dropped."""
        ...


@dataclass(frozen=True)
class Prefix:
    """The block and all behind it pass, all when a block opens (Fast-dLLM, 2505.22618).

    The original passes a second time at each block, even one that its opening has filled.
    """

    def due(self, asked: Asked) -> Tensor:
        return (asked.since == 0) | (asked.place >= asked.first) | asked.changed


@dataclass(frozen=True)
class Dual:
    """The block alone passes, all when a block opens (Fast-dLLM, 2505.22618)."""

    def due(self, asked: Asked) -> Tensor:
        block = (asked.place >= asked.first) & (asked.place < asked.behind)
        return (asked.since == 0) | block | asked.changed


@dataclass(frozen=True)
class DKV:
    """Masks pass, and a token once more after its commit (dKV-Cache-Decode, 2505.15781).

    All pass when a block opens, and every `refresh` steps from there. The original keeps the prompt
    from the second step of a block on, when all pass again; here it is kept from the first.
    """

    refresh: int = 8

    def __post_init__(self) -> None:
        _least("refresh", self.refresh)

    def due(self, asked: Asked) -> Tensor:
        return (asked.since % self.refresh == 0) | asked.masked | asked.changed


@dataclass(frozen=True)
class DLLM:
    """Where value vectors move least, layers keep their outputs (dLLM-Cache, 2506.06295).

    The prompt passes every `prompt` steps of the example and the answer every `response`. In
    between a layer is run on the `ratio` of the answer whose fresh values are least like the kept
    ones, by cosine; the first layer is always run on all, and does not count. The defaults are
    those of the authors' demonstration. What has changed is always among the positions that pass,
    which the original leaves to the cosine.
    """

    prompt: int = 100
    response: int = 7
    ratio: float = 0.25

    def __post_init__(self) -> None:
        _least("prompt", self.prompt)
        _least("response", self.response)
        if not 0 <= self.ratio <= 1:
            raise UserError(f"ratio is {self.ratio}", "it is a share from 0 to 1")

    def due(self, asked: Asked) -> Tensor:
        every = torch.where(asked.place < asked.start, self.prompt, self.response)
        return (asked.step % every == 0) | asked.changed

    def moved(self, asked: Asked) -> Tensor:
        """int64 [B]: how many positions pass besides those that are due."""
        share = ((asked.length - asked.start).double() * self.ratio).long()[:, 0]
        changed = (asked.changed & (asked.place >= asked.start)).sum(1)
        return (share - changed).clamp(min=0).where(asked.step[:, 0] % self.response != 0, 0)


@dataclass(frozen=True)
class Exact:
    """The block passes, and what lies before it from the first block that has changed.

    For block-causal attention, where nothing behind a block changes what it says: no approximation.
    A block passes with its last tokens when the next one opens; those behind never pass.
    """

    def due(self, asked: Asked) -> Tensor:
        assert asked.block is not None
        block = asked.place // asked.block
        current = asked.first // asked.block
        changed = torch.where(asked.changed, block, current).amin(1, keepdim=True)
        return (block >= changed.minimum(current)) & (block <= current)


CACHES: dict[str, type[Policy]] = {
    "prefix": Prefix,
    "dual": Dual,
    "dkv": DKV,
    "dllm": DLLM,
    "exact": Exact,
}


def _least(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} is {value}", "it is a number of steps, at least 1")


def policy(name: str, knobs: Mapping[str, Any]) -> Policy | None:
    """The policy of that name; none for `none`. Raises UserError for what does not exist."""
    if name not in (*CACHES, "none"):
        raise unknown("cache", name, [*CACHES, "none"])
    if name == "none":
        for knob in knobs:
            raise unknown("knob of cache none", knob, [])
        return None
    return cast(Policy, resolve.build("cache", name, CACHES[name], knobs))


def usual(model: Model, guided: bool) -> str:
    """The cache of a model where the user says nothing: one that changes no answer, or none."""
    return "exact" if model.block is not None and not guided else "none"


def cached(model: Model, name: str, cache: str, policy: Policy, guided: bool) -> Cached:
    """The model, called `name`, with a cache. Raises UserError where they do not go together."""
    if not isinstance(model, NativeModel) or not isinstance(model.encoder, Encoder):
        raise UserError(
            f"model {name} cannot use a cache: caches are made for Llama-like language models",
            "leave --cache out",
        )
    if isinstance(policy, Exact) and model.block is None:
        raise UserError(
            f"model {name} cannot use cache exact: in it every position sees every other",
            "what it keeps would be wrong; prefix, dual, dkv and dllm are approximations",
        )
    if not isinstance(policy, Exact) and model.block is not None:
        raise UserError(
            f"model {name} cannot use cache {cache}: it attends by blocks of {model.block}",
            "take exact, which passes no more and changes no answer",
        )
    if guided:
        raise UserError(
            f"cache {cache} with cfg: the forwards without the prompt would need their own",
            "leave --cache or --cfg out",
        )
    return Cached(model, policy)


class Cached(NativeModel):
    """A model whose forwards keep what they can."""

    def __init__(self, model: NativeModel, policy: Policy) -> None:
        super().__init__(model.encoder)
        self.policy = policy

    def start(self) -> Forward:
        if isinstance(self.policy, DLLM):
            return LayeredForward(self, self.policy)
        return CachedForward(self)


@dataclass
class Past:
    """What was when each slot had its last forward.

    tokens  int64 [S, L]: what each position held when it last passed; -1: it never did
    first   int64 [S]: where the block began
    start   int64 [S]: where the first block began
    opened  int64 [S]: forwards before the block,
    step    int64 [S]: and in all
    """

    tokens: Tensor
    first: Tensor
    start: Tensor
    opened: Tensor
    step: Tensor

    @classmethod
    def blank(cls, slots: int, width: int, device: torch.device) -> Past:
        """Of slots that have had none."""
        counts = torch.zeros(3, slots, dtype=torch.int64, device=device)
        tokens = torch.full((slots, width), -1, device=device)
        return cls(tokens, torch.full_like(counts[0], NONE), *counts.unbind())

    def part(self, slots: int, width: int) -> Past:
        """The first slots, and of each the first positions; writing to it writes to these."""
        rest = {f.name: getattr(self, f.name)[:slots] for f in fields(self)}
        return Past(**{**rest, "tokens": self.tokens[:slots, :width]})

    def grown(self, slots: int, width: int) -> Past:
        """The same with more room."""
        made = Past.blank(slots, width, self.step.device)
        every = torch.arange(len(self.step), device=self.step.device)
        made.part(*self.tokens.shape).put(every, self)
        return made

    def put(self, index: Tensor, other: Past) -> None:
        """Writes other slots over those of `index`."""
        for f in fields(self):
            getattr(self, f.name).index_copy_(0, index, getattr(other, f.name))

    def select(self, index: Tensor) -> Past:
        return Past(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))

    def asked(self, batch: Batch, mask_id: int, block: int | None) -> Asked:
        """What a batch of the first slots asks for."""
        assert batch.first is not None and batch.behind is not None
        rows, width = batch.tokens.shape
        last = self.part(rows, width)
        place = torch.arange(width, device=batch.tokens.device)
        length = torch.full_like(batch.first, width) if batch.lengths is None else batch.lengths
        inside = place < length[:, None]
        since = torch.where(batch.first == last.first, last.step - last.opened, 0)
        return Asked(
            place=place,
            inside=inside,
            masked=batch.tokens == mask_id,
            changed=(batch.tokens != last.tokens) & inside,
            first=batch.first[:, None],
            behind=batch.behind[:, None],
            start=torch.where(last.step == 0, batch.first, last.start)[:, None],
            length=length[:, None],
            step=last.step[:, None],
            since=since[:, None],
            block=block,
        )

    def note(self, asked: Asked, tokens: Tensor, due: Tensor) -> None:
        """That what was `asked` has been done with `tokens` [B, L], where they were `due`."""
        last = self.part(*tokens.shape)
        last.tokens.copy_(torch.where(due, tokens, last.tokens))
        for name in ("first", "start"):
            getattr(last, name).copy_(getattr(asked, name)[:, 0])
        last.opened.copy_((asked.step - asked.since)[:, 0])
        last.step += 1


class Store:
    """Tensors `[S, L + 1, ...]` that outlast a forward; what no position is to keep goes to the
    last one, which nothing reads.

    keys, values  of each layer, `[S, L + 1, K, E]`
    added         by each layer to the residual stream, `[S, L + 1, D]`; of none unless asked for
    hidden        states behind the last norm, `[S, L + 1, D]`, alone in its list
    """

    def __init__(self, net: Encoder, added: bool) -> None:
        spec, like = net.spec, net.embed_tokens.weight
        heads, stream = (spec.kv_heads, spec.head_dim), (spec.width,)

        def empty(count: int, shape: tuple[int, ...]) -> list[Tensor]:
            return [like.new_zeros(0, 1, *shape) for _ in range(count)]

        self.keys, self.values = empty(spec.layers, heads), empty(spec.layers, heads)
        self.added, self.hidden = empty(added * spec.layers, stream), empty(1, stream)
        self.slots = self.width = 0

    @property
    def _lists(self) -> list[list[Tensor]]:
        return [self.keys, self.values, self.added, self.hidden]

    def fit(self, slots: int, width: int) -> None:
        """Makes room; what is there stays."""
        for tensors in self._lists:
            for i, old in enumerate(tensors):
                # Zeros: what nobody may attend to is multiplied by 0, and has to be a number.
                tensors[i] = old.new_zeros(slots, width + 1, *old.shape[2:])
                tensors[i][: self.slots, : self.width] = old[:, : self.width]
        self.slots, self.width = slots, width

    def move(self, source: Tensor, target: Tensor) -> None:
        for tensor in chain(*self._lists):
            tensor.index_copy_(0, target, tensor.index_select(0, source))


class Window:
    """Positions of some rows that go through together, as `encoder.Memory`.

    index   int64 [G], the rows; `leading`: they are the first ones, in order
    length  L
    places  int64 [G, Q], where in the store each position is kept
    """

    def __init__(
        self, store: Store, index: Tensor, leading: bool, length: int, places: Tensor
    ) -> None:
        self.store, self.index, self.leading = store, index, leading
        self.length, self.places = length, places

    def keep(self, kept: Tensor, fresh: Tensor) -> None:
        """Writes `[G, Q, ...]` to a tensor of the store."""
        kept[self.index[:, None], self.places] = fresh

    def read(self, kept: Tensor) -> Tensor:
        """What a tensor of the store has of these rows, `[G, L, ...]`."""
        kept = kept[:, : self.length]
        # Nothing is copied where all rows go through together, as they mostly do.
        return kept[: len(self.index)] if self.leading else kept.index_select(0, self.index)

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See `encoder.Memory`."""
        keys, values = self.store.keys[layer], self.store.values[layer]
        self.keep(keys, key.transpose(1, 2))
        self.keep(values, value.transpose(1, 2))
        return self.read(keys).transpose(1, 2), self.read(values).transpose(1, 2)


@dataclass(frozen=True)
class Group:
    """Rows that go through together.

    rows    G rows of the batch, `index` int64 [G] on the device
    count   Q
    tokens  int64 [G, L]
    mask    bool [G, L], True where a position may be attended to; None: everywhere
    asked   of these rows
    due     bool [G, L]
    """

    rows: list[int]
    index: Tensor
    count: int
    tokens: Tensor
    mask: Tensor | None
    asked: Asked
    due: Tensor

    def window(self, store: Store, at: Tensor, kept: Tensor) -> Window:
        """On the positions `at` [G, Q], of which those are kept that are `kept` [G, Q]."""
        leading = self.rows[-1] == len(self.rows) - 1
        places = at.where(kept, store.width)
        return Window(store, self.index, leading, self.tokens.shape[1], places)


def groups(counts: Sequence[int]) -> list[list[int]]:
    """Which rows go through together, by how many positions of each do; see SPLIT."""
    order = sorted(range(len(counts)), key=lambda row: -counts[row])
    found = [order[:1]]
    for place, row in enumerate(order[1:], start=1):
        spared = (counts[found[-1][0]] - counts[row]) * (len(order) - place)
        if spared > SPLIT:
            found.append([])
        found[-1].append(row)
    return [sorted(rows) for rows in found]


def pick(x: Tensor, at: Tensor) -> Tensor:
    """`x` [G, L, D] at the positions `at` [G, Q] -> [G, Q, D]."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


class CachedForward(Forward):
    """What is due goes through the network; the head reads what is kept of any position."""

    def __init__(self, model: Cached, added: bool = False) -> None:
        self.model, self.net = model, cast(Encoder, model.encoder)
        self.whole = NativeForward(model)
        self.store = Store(self.net, added)
        self.past = Past.blank(0, 0, model.device)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[B, W, V]` in the model's dtype, see `mdmbench.base.Forward`."""
        assert batch.passing is not None
        tokens, mask = self.whole.seen(batch)
        asked = self._asked(batch)
        due = self.due(asked)
        together = groups(batch.passing)
        # Sent at once, and not waited for.
        order = torch.tensor([*chain(*together)]).to(tokens.device, non_blocking=True)
        parts = torch.split(order, [*map(len, together)])
        for rows, index in zip(together, parts, strict=True):
            group = Group(
                rows=rows,
                index=index,
                # Where nothing is due, one position goes through for nothing.
                count=max(1, *(batch.passing[row] for row in rows)),
                tokens=tokens[index],
                mask=None if mask is None else mask[index],
                asked=asked.take(index),
                due=due[index],
            )
            self.go(group)
        self.past.note(asked, batch.tokens, due)
        hidden = self.store.hidden[0][: len(tokens), : tokens.shape[1]]
        return self.whole.logits(hidden, batch.rows)

    def _asked(self, batch: Batch) -> Asked:
        self._fit(*batch.tokens.shape)
        return self.past.asked(batch, self.model.mask_id, self.model.block)

    def due(self, asked: Asked) -> Tensor:
        """bool [B, L]."""
        return self.model.policy.due(asked) & asked.inside

    def count(self, asked: Asked) -> Tensor:
        """int64 [B]: how many positions go through."""
        return self.due(asked).sum(1)

    def go(self, group: Group) -> None:
        """Runs the network on what is due, and keeps what comes of it."""
        # A stable sort of the flags lists what is due in order without a host read.
        order = group.due.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        at = order[:, : group.count]
        window = group.window(self.store, at, group.due.gather(1, at))
        hidden = self.net(group.tokens.gather(1, at), group.mask, at, memory=window)
        window.keep(self.store.hidden[0], hidden)

    @torch.inference_mode()
    def passing(self, batch: Batch) -> Tensor:
        return self.count(self._asked(batch))

    @torch.inference_mode()
    def opening(self, batch: Batch) -> Sequence[int]:
        rows, width = batch.tokens.shape
        past = Past.blank(rows, width, batch.tokens.device)
        asked = past.asked(batch, self.model.mask_id, self.model.block)
        counts: list[int] = self.count(asked).tolist()
        return counts

    @torch.inference_mode()
    def seat(self, rows: Sequence[int]) -> None:
        self._fit(max(rows) + 1, 0)
        index = torch.tensor(rows, device=self.model.device)
        self.past.put(index, Past.blank(len(rows), self.store.width, self.model.device))

    def _fit(self, slots: int, width: int) -> None:
        """Makes room for so many slots of so many positions at least."""
        size = max(slots, self.store.slots), max(width, self.store.width)
        if size != (self.store.slots, self.store.width):
            self.store.fit(*size)
            self.past = self.past.grown(*size)

    @torch.inference_mode()
    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        old, new = (torch.tensor(rows, device=self.model.device) for rows in (source, target))
        self.store.move(old, new)
        self.past.put(new, self.past.select(old))


class LayeredForward(CachedForward):
    """Each layer chooses for itself what goes through besides what is due; see DLLM.

    answer  positions of the longest answer that has opened
    """

    def __init__(self, model: Cached, policy: DLLM) -> None:
        super().__init__(model, added=True)
        self.policy = policy
        self.answer = 0

    def opening(self, batch: Batch) -> Sequence[int]:
        assert batch.first is not None
        length = batch.tokens.shape[1] if batch.lengths is None else batch.lengths
        self.answer = max(self.answer, int((length - batch.first).amax()))
        return super().opening(batch)

    def count(self, asked: Asked) -> Tensor:
        return super().count(asked) + self.policy.moved(asked)

    def go(self, group: Group) -> None:
        """Runs each layer on its choice; to the rest is added what was when that went through."""
        net, store, length = self.net, self.store, group.tokens.shape[1]
        rank = torch.arange(group.count, device=group.index.device)
        goes = rank < self.count(group.asked)[:, None]
        seen = net.seen(length, group.mask)
        x = net.embed_tokens(group.tokens)
        for i, layer in enumerate(cast(Sequence[Layer], net.layers)):
            if not i:
                x = layer(x, net.cos[:length], net.sin[:length], seen)
                continue
            inner = layer.input_layernorm(x)
            at = self.likeness(i, layer, inner, group).argsort(dim=1, stable=True)[:, : group.count]
            window = group.window(store, at, goes)
            cos, sin = net.cos[at].unsqueeze(1), net.sin[at].unsqueeze(1)
            attended = layer.self_attn(pick(inner, at), cos, sin, seen, window)
            fed = layer.mlp(layer.post_attention_layernorm(pick(x, at) + attended))
            window.keep(store.added[i], attended + fed)
            x = x + window.read(store.added[i])
        store.hidden[0][group.index, :length] = net.norm(x)

    def likeness(self, i: int, layer: Layer, inner: Tensor, group: Group) -> Tensor:
        """float32 [G, L]: the cosine of the answer's kept values and the fresh ones, which take
        their place; 2 in the prompt, and -2 where a position is due whatever it says."""
        start, behind = group.asked.start, group.asked.length
        at = start + torch.arange(self.answer or inner.shape[1], device=inner.device)
        within = at < behind
        at = at.where(within, 0)
        window, values = group.window(self.store, at, within), self.store.values[i]
        fresh = layer.self_attn.v_proj(pick(inner, at))
        kept = values[group.index[:, None], window.places].flatten(2)
        like = F.cosine_similarity(fresh.float(), kept.float(), dim=2)
        window.keep(values, fresh.view(*at.shape, *values.shape[2:]))
        found = like.new_full((len(inner), self.store.width + 1), 2)
        found.scatter_(1, window.places, like)
        return found[:, : inner.shape[1]].masked_fill(group.due, -2)
