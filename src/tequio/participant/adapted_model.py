"""The adapted model: one frozen base model in memory, on which any number of participants take
turns.

`fold_in` folds a shared update into it, `attach` starts fresh or given factors, `extract` returns
what training changed. A classification head (float32) sits on the mean-pooled last hidden states of
an encoder.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.core.canonical import digest_json
from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.types import Trained
from tequio.core.update import HEAD_PREFIX, Dense, Entry, Factored, Update, plain, zero
from tequio.participant.base import Base
from tequio.participant.fused.loss import cross_entropy
from tequio.participant.fused.select import LONGEST, Decoder, Encoder, choose
from tequio.participant.lora import AdaptedLinear, adapt, fresh_a

HEAD_WEIGHT, HEAD_BIAS = f"{HEAD_PREFIX}weight", f"{HEAD_PREFIX}bias"
# logits are 10 · cosine at the start: sharp enough, and the head learns as fast as the factors
LOGIT_SCALE = 10.0


@dataclass(frozen=True)
class Attached:
    """What is attached to an adapted model:

    (a, b) of each layer, the head, and what `extract` compares them with.
    """

    factors: Mapping[str, tuple[nn.Parameter, nn.Parameter]]
    head: Mapping[str, Tensor]
    start: Mapping[str, Factored]
    trained: Trained | None


class AdaptedModel:
    """A base with adapters.

    `spec` is the digest of the layout: updates of another base or layout are refused.

    full: shared updates are changes of whole weights, not factors.
    """

    def __init__(
        self,
        base: Base,
        modules: list[str],
        scale: float,
        head: Tensor | None = None,
        full: bool = False,
    ) -> None:
        self.base = base
        self.model = base.model
        self.scale = scale
        self.full = full
        self.layers: dict[str, AdaptedLinear] = adapt(base.model, modules, base.among.size > 1)
        self.device = base.device
        self.path = choose(base.model, base.among.size)
        self.head_start: dict[str, Tensor] = {}
        if head is not None:
            head = head.to(self.device)
            self.head_start = {
                HEAD_WEIGHT: head,
                HEAD_BIAS: torch.zeros(len(head), device=self.device),
            }
        self.head: dict[str, Tensor] = dict(self.head_start)
        self.shapes = {
            name: (layer.weight.shape[0], layer.weight.shape[1])
            for name, layer in self.layers.items()
        }
        head_shapes = {name: list(tensor.shape) for name, tensor in self.head.items()}
        layout = [base.digest, scale, sorted(self.shapes.items()), sorted(head_shapes.items())]
        self.spec = digest_json([*layout, "full"] if full else layout)
        self._held: Update | None = zero(self.spec)
        self._start: dict[
            str, Factored
        ] = {}  # what attached factors were before training; a layer without: fresh ones
        self._trained: Trained | None = None  # of shared factors; None in layout product

    def twin(self) -> AdaptedModel:
        """A second adapted model on the same frozen base: its weights are shared, what is held and
        attached is each one's own.
        """
        tensors = [*self.model.parameters(), *self.model.buffers()]
        for layer in self.layers.values():
            tensors += [t for t in (layer.original, layer.bias) if t is not None]
        other = copy.copy(self)
        shared: dict[int, object] = {id(tensor): tensor for tensor in tensors}
        shared |= {id(layer.weight): layer.original for layer in self.layers.values()}
        self.detach()
        other.model = copy.deepcopy(self.model, shared)
        other.layers = {name: other.model.get_submodule(name) for name in self.layers}  # type: ignore[misc]
        for layer in other.layers.values():
            layer.fold(None)
        if self.path.layers is not None:
            other.path = replace(self.path, layers=type(self.path.layers)(other.model))
        other._held, other._start, other._trained = zero(self.spec), {}, None
        other._reset_head()
        return other

    def head_update(self) -> Update:
        """The head at the start (empty where there is none), as a file of the run."""
        return Update(
            {name: Dense(tensor.cpu()) for name, tensor in self.head_start.items()}, self.spec
        )

    def fold_in(self, update: Update) -> None:
        """Fold base + `update` into the weights; drops factors.

        Raises UpdateError if the layout is another.
        """
        self.detach()
        if update is self._held:
            return
        if update.spec != self.spec:
            raise refusal(UpdateError, "update-of-other-layout")
        self._held = None
        for name, layer in self.layers.items():
            layer.fold(update.entries.get(name))
        self._held = update
        self._reset_head()

    def attach(self, rank: int, seed: int) -> list[nn.Parameter]:
        """Fresh factors of `rank` on every adapted layer, from `seed`; returns what is to be
        trained.
        """
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            m, n = layer.weight.shape
            layer.attach(fresh_a(rank, n, generator), torch.zeros(m, rank), self.scale)
        self._start, self._trained = {}, None
        return self._parameters()

    def attach_full(self) -> list[nn.Parameter]:
        """The whole weights of the adapted layers, from W₀ + what is held; returns what is to be
        trained.
        """
        for layer in self.layers.values():
            layer.attach_full()
        self._start, self._trained = {}, None
        return self._parameters()

    def attach_product(self, start: Update, rank: int, seed: int) -> list[nn.Parameter]:
        """Continue the product `start` (scale included), with fresh ranks from `seed` where it has
        fewer than `rank`.

        b and a share the scale: s·(b/√s)·(a/√s), so that balanced factors stay so. Raises
            UpdateError if an entry does not fit.
        """
        generator = torch.Generator().manual_seed(seed)
        self._start, self._trained = {}, None
        root = math.sqrt(self.scale)
        for name, layer in self.layers.items():
            m, n = layer.weight.shape
            entry = start.entries.get(name, Factored(torch.zeros(m, 0), torch.zeros(0, n)))
            if not isinstance(entry, Factored) or tuple(entry.shape) != (m, n) or entry.rank > rank:
                raise refusal(UpdateError, "start-unfit", entry=name, rank=rank, shape=[m, n])
            known = Factored(b=entry.b / root, a=entry.a / root)
            fresh = rank - known.rank
            a = torch.cat([known.a, fresh_a(fresh, n, generator)])
            layer.attach(a, torch.cat([known.b, torch.zeros(m, fresh)], 1), self.scale)
            self._start[name] = known
        return self._parameters()

    def attach_factors(
        self, start: Update, rank: int, trained: Trained = "both"
    ) -> list[nn.Parameter]:
        """Continue the first `rank` rows and columns of shared factors `module:a`, `module:b`
        (layout factors).

        trained: what is not named is frozen, and left out of what `extract` returns.
        """
        self._start, self._trained = {}, trained
        for name, layer in self.layers.items():
            a, b = plain(start.entries[f"{name}:a"]), plain(start.entries[f"{name}:b"])
            layer.attach(a[:rank], b[:, :rank], self.scale)
            for factor, key in ((layer.a, "a"), (layer.b, "b")):
                if factor is not None:
                    factor.requires_grad_(trained in ("both", key))
            self._start[name] = Factored(b=b, a=a)
        return self._parameters()

    def _parameters(self) -> list[nn.Parameter]:
        if self.head:
            self.head = {
                name: nn.Parameter(tensor.detach().clone()) for name, tensor in self.head.items()
            }
        own = [p for layer in self.layers.values() for p in (layer.full, layer.a, layer.b)]
        factors = [p for p in own if p is not None and p.requires_grad]
        return factors + [p for p in self.head.values() if isinstance(p, nn.Parameter)]

    def attached(self) -> Attached:
        """The factors and the head as they are attached now, themselves and not copies.

        Raises UpdateError if there are none.
        """
        factors = {
            name: (layer.a, layer.b) for name, layer in self.layers.items() if layer.a is not None
        }
        whole = {
            name: (a, b) for name, (a, b) in factors.items() if a is not None and b is not None
        }
        if len(whole) < len(self.layers):
            raise refusal(UpdateError, "nothing-attached")
        return Attached(whole, dict(self.head), dict(self._start), self._trained)

    def attach_again(self, attached: Attached) -> None:
        """Attach what `attached` gave, or the like of it."""
        for name, (a, b) in attached.factors.items():
            layer = self.layers[name]
            layer.a, layer.b, layer.scale = a, b, self.scale
        self.head, self._start, self._trained = (
            dict(attached.head),
            dict(attached.start),
            attached.trained,
        )

    def stacks(self, tokens: int) -> bool:
        """Whether texts of so many tokens can meet the stacked factors of several participants."""
        return self.path.layers is not None and tokens <= LONGEST

    def extract(self) -> Update:
        """What training changed since `attach`, as an update of its layout.

        The factors stay attached.
        """
        return Update(dict(self.changes()), self.spec)

    def changes(self) -> Iterator[tuple[str, Entry]]:
        """The entries of `extract` one by one, each made as it is asked for; full weights come
        sorted by name.
        """
        for name in sorted([*self.layers, *self.head_start]):
            yield from self._change_to(name).items()

    def _change_to(self, name: str) -> dict[str, Entry]:
        if name in self.head_start:
            return {name: Dense((self.head[name].detach() - self._held_head(name)).cpu())}
        layer = self.layers[name]
        if layer.full is not None:
            return {name: Dense(layer.change())}
        if layer.a is None or layer.b is None:
            raise refusal(UpdateError, "nothing-attached")
        a, b = layer.a.detach().cpu(), layer.b.detach().cpu()
        start = self._start.get(name)
        if start is None:
            return {name: Factored(b=b * self.scale, a=a.clone())}
        if self._trained is None:
            return {name: _change(a, b, start, self.scale)}
        return _moved(name, a, b, start, self._trained)

    def moving(self) -> Update:
        """What is being trained, on the device and with gradient: s·B·A, or W − (W₀ + H), a module;
        and the head as it is.
        """
        entries: dict[str, Entry] = {name: Dense(tensor) for name, tensor in self.head.items()}
        for name, layer in self.layers.items():
            if layer.a is not None and layer.b is not None:
                entries[name] = Factored(b=layer.b * self.scale, a=layer.a)
            elif layer.full is not None:
                entries[name] = Dense(layer.full - layer.exact())
        return Update(entries, self.spec)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside, the model is the base: neither what is trained nor what is held, and the head of
        the start.
        """
        head, self.head = self.head, self.head_start
        saved = [
            (layer, layer.weight, layer.a, layer.b, layer.full) for layer in self.layers.values()
        ]
        for layer in self.layers.values():
            layer.weight, layer.a, layer.b, layer.full = layer.original, None, None, None
        try:
            yield
        finally:
            self.head = head
            for layer, weight, a, b, full in saved:
                layer.weight, layer.a, layer.b, layer.full = weight, a, b, full

    def detach(self) -> None:
        """Forget factors and head changes: back to what is held."""
        attached = any(
            layer.a is not None or layer.full is not None for layer in self.layers.values()
        )
        for layer in self.layers.values():
            layer.detach()
        if attached:
            self._reset_head()

    def _held_head(self, name: str) -> Tensor:
        entry = None if self._held is None else self._held.entries.get(name)
        return (
            self.head_start[name]
            if entry is None
            else self.head_start[name] + plain(entry).to(self.device)
        )

    def _reset_head(self) -> None:
        self.head = {name: self._held_head(name) for name in self.head_start}

    def class_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch × classes), float32, of token ids and mask (batch × length)."""
        layers = self._layers(ids)
        pooled = (
            embed(self.model, ids, mask) if layers is None else pool(layers.hidden(ids, mask), mask)
        )
        weight, bias = self.head[HEAD_WEIGHT], self.head[HEAD_BIAS]
        if weight.dim() == 2:
            return F.linear(pooled * LOGIT_SCALE, weight, bias)
        blocks = (pooled * LOGIT_SCALE).view(
            len(weight), -1, pooled.shape[1]
        )  # each participant's rows, its own head
        return torch.baddbmm(bias[:, None], blocks, weight.transpose(1, 2)).flatten(0, 1)

    def token_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Next-token logits (batch × length × vocabulary) in the base's precision."""
        layers = self._layers(ids)
        if isinstance(layers, Decoder):
            own: Tensor = layers.output(layers.hidden(ids, mask))
            return own
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits

    def token_losses(self, ids: Tensor, mask: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
        """Nats of each target token, float32: those of `truth` (batch × length − 1, the next
        tokens) where `counts`, row by row.
        """
        layers = self._layers(ids)
        if isinstance(layers, Decoder) and layers.frozen_output:
            rows = layers.hidden(ids, mask)[:, :-1][counts]
            return cross_entropy(rows, layers.output.weight, truth[counts])
        logits = self.token_logits(ids, mask)[:, :-1][counts].float()
        return F.cross_entropy(logits, truth[counts], reduction="none")

    def _layers(self, ids: Tensor) -> Decoder | Encoder | None:
        """What computes these tokens; None: transformers."""
        whole = any(
            layer.full is not None or layer.weight.requires_grad for layer in self.layers.values()
        )
        return None if whole or ids.shape[1] > LONGEST else self.path.layers


def _change(a: Tensor, b: Tensor, start: Factored, scale: float) -> Factored:
    """s·(b·a − b₀·a₀) as s·[(b − b₀)·a + b₀·(a − a₀)]: no difference of large products. b₀ and a₀
    have the first k of r ranks.
    """
    k = start.rank
    db = b.clone()
    db[:, :k] -= start.b
    return Factored(b=torch.cat([db, start.b], 1) * scale, a=torch.cat([a, a[:k] - start.a]))


def _moved(name: str, a: Tensor, b: Tensor, start: Factored, trained: Trained) -> dict[str, Entry]:
    """Coordinates' changes, of the factors that were trained; ranks that `start` has beyond those
    of a and b did not change.
    """
    out: dict[str, Entry] = {}
    if trained in ("both", "a"):
        da = torch.zeros_like(start.a)
        da[: len(a)] = a - start.a[: len(a)]
        out[f"{name}:a"] = Dense(da)
    if trained in ("both", "b"):
        db = torch.zeros_like(start.b)
        db[:, : len(a)] = b - start.b[:, : len(a)]
        out[f"{name}:b"] = Dense(db)
    return out


def embed(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last hidden states over real tokens, at unit length:

    (batch × hidden), float32.
    """
    return pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


def pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens (batch × length × hidden), at unit length:

    (batch × hidden), float32.
    """
    hidden = hidden.float()
    weights = mask.unsqueeze(-1).float()
    return F.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0), dim=-1)


def head_from_descriptions(base: Base, labels: Mapping[str, str]) -> Tensor:
    """Class vectors (classes × hidden): the embedding of each label's description, at unit
    length.
    """
    with base.looking():
        batch = base.tokenizer(
            list(labels.values()), padding=True, truncation=True, return_tensors="pt"
        ).to(base.device)
        vectors = embed(base.model, batch["input_ids"], batch["attention_mask"])
    return vectors.clone()


def head_at_zero(base: Base, classes: int) -> Tensor:
    """Class vectors (classes × hidden) of zeros: every class equally likely at the start."""
    return torch.zeros(classes, base.hidden) + 1e-3 / math.sqrt(base.hidden)
