"""Points between base and shared model that need no training: parts of the way, ranks, kinds of
modules, and projections.

G is the shared change, C the input covariance E[x xᵀ] of an adapted matrix. `away-k` takes the
component of G in the k leading directions of C on public text out of it; `pull-γ` is G·(I +
γ·C_public/τ)⁻¹, τ the mean eigenvalue; `own-γ` is G·C_own·(C_own + γ·C_public)⁻¹, the least-squares
mean of base and shared model (RegMean, Jin et al., arXiv 2212.09849).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.round import open_state, run_round, shared_model
from tequio.core.update import HEAD_PREFIX, Dense, Entry, Factored, Update, is_matrix, plain, zero
from tequio.participant.text_tasks import Item, pad
from tequio.runtimes.embedded import Embedded

Grams = Mapping[str, Tensor]
PARTS = (1.0, 0.9, 0.8, 0.7, 0.5, 0.3)  # of the way from the base to the shared model


def points(
    setup: RunSetup, shared: Update, texts: Mapping[str, Sequence[Item]], extras: bool
) -> dict[str, Callable[[], Update]]:
    """Updates by name, each made when it is asked for. texts: public, centre, own. extras: more
    than parts of the way.
    """
    made: dict[str, Callable[[], Update]] = {
        f"{part:g}": partial(shared.scaled, part) for part in PARTS
    }
    if not extras:
        return made
    made |= {f"rank-{rank}": partial(shared.to_rank, rank) for rank in (1, 2, 4)}
    if any(name.startswith(HEAD_PREFIX) for name in shared.entries):
        made |= {
            f"body-{part:g}": partial(body, shared, part) for part in (0.8, 0.7, 0.5, 0.3, 0.0)
        }
    made |= {f"no-{group}": partial(without, shared, group) for group in groups(shared)}
    made |= {f"top-{share:g}": partial(top, shared, share) for share in (0.25, 0.5, 1.0, 2.0)}
    made |= {f"soft-{share:g}": partial(top, shared, share, soft=True) for share in (0.5, 1.0, 2.0)}
    found: dict[str, Grams] = {}

    def seen_by(which: str) -> Grams:
        if which not in found:
            found[which] = grams(setup, texts[which])
        return found[which]

    def removed(which: str, k: int) -> Update:
        return each(shared, lambda name: away(seen_by(which)[name], k))

    def pulled(strength: float) -> Update:
        return each(shared, lambda name: pull(seen_by("public")[name], strength))

    def against(strength: float) -> Update:
        return each(
            shared,
            lambda name: pull_against(seen_by("own")[name], seen_by("public")[name], strength),
        )

    for k in (1, 8, 16, 32, 64, 128):
        made |= {
            f"away-{k}": partial(removed, "public", k),
            f"centre-{k}": partial(removed, "centre", k),
        }
    for g in (0.1, 0.3, 1.0):
        made |= {f"pull-{g:g}": partial(pulled, g), f"own-{g:g}": partial(against, g)}
    return made


def federated_away(setup: RunSetup, public: Sequence[Item], k: int) -> Update:
    """Make all rounds, and take what they learn in the k leading directions of public text out
    after every round.
    """
    plan, runtime, found = setup.run_spec, Embedded(setup.nodes), grams(setup, public)
    rights = {name: away(gram, k) for name, gram in found.items()}
    state, _ = open_state(plan, runtime)
    while state.round < plan.rounds:
        state, _ = run_round(state, plan, runtime)
        state = replace(
            state,
            shared=each(state.shared, rights.__getitem__),
            pending=each(state.pending, rights.__getitem__),
        )
    return shared_model(state.shared, plan)


def groups(shared: Update) -> dict[str, list[str]]:
    """Names of matrices by kind and third of the depth, such as `v_proj.0`."""
    names = [name for name in shared.entries if not name.startswith(HEAD_PREFIX)]
    depth = 1 + max(layer(name) for name in names)
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(f"{name.rsplit('.', 1)[1]}.{3 * layer(name) // depth}", []).append(name)
    return out


def layer(name: str) -> int:
    """The number of the layer in a module's path."""
    return next(int(part) for part in name.split(".") if part.isdigit())


def without(shared: Update, group: str) -> Update:
    """The shared change without one group of matrices."""
    gone = set(groups(shared)[group])
    return Update(
        {name: entry for name, entry in shared.entries.items() if name not in gone}, shared.spec
    )


def body(shared: Update, part: float) -> Update:
    """The whole head, and a part of every other change."""
    head = {name: entry for name, entry in shared.entries.items() if name.startswith(HEAD_PREFIX)}
    rest = {name: entry for name, entry in shared.entries.items() if name not in head}
    return Update({**Update(rest, shared.spec).scaled(part).entries, **head}, shared.spec)


def top(shared: Update, share: float, soft: bool = False) -> Update:
    """The largest singular directions over all matrices, `share` times as many as there are
    matrices; a head stays.

    soft: what the next one has is taken off all singular values (the proximal step of the nuclear
        norm).
    """
    split = {
        name: torch.linalg.svd(plain(entry), full_matrices=False)
        for name, entry in shared.entries.items()
        if is_matrix(name, entry)
    }
    values = torch.cat([s for _, s, _ in split.values()]).sort(descending=True).values
    least = values[round(share * len(split))]
    out = dict(shared.entries)
    for name, (u, s, vh) in split.items():
        few = int((s > least).sum())
        strengths = s[:few] - least if soft else s[:few]
        out[name] = Factored(u[:, :few] * strengths, vh[:few])
    return Update(out, shared.spec)


def each(shared: Update, right: Callable[[str], Tensor]) -> Update:
    """Every matrix of the change times a square one; a head stays."""

    def changed(name: str, entry: Entry) -> Entry:
        if name.startswith(HEAD_PREFIX):
            return entry
        if isinstance(entry, Factored):
            return Factored(entry.b, entry.a @ right(name))
        return Dense(entry.value @ right(name))

    return Update(
        {name: changed(name, entry) for name, entry in shared.entries.items()}, shared.spec
    )


def away(gram: Tensor, k: int) -> Tensor:
    """I − V·Vᵀ of the k leading directions."""
    vectors = torch.linalg.eigh(gram).eigenvectors[:, -k:]
    right: Tensor = torch.eye(len(gram), dtype=gram.dtype) - vectors @ vectors.T
    return right.float()


def pull(gram: Tensor, strength: float) -> Tensor:
    """(I + γ·C/τ)⁻¹."""
    eye = torch.eye(len(gram), dtype=gram.dtype)
    right: Tensor = torch.linalg.inv(eye + strength * gram / (gram.trace() / len(gram)))
    return right.float()


def pull_against(own: Tensor, gram: Tensor, strength: float) -> Tensor:
    """C_own·(C_own + γ·C_public)⁻¹, both with a little of the identity so that it exists."""
    little = 1e-3 * torch.eye(len(gram), dtype=gram.dtype) * gram.trace() / len(gram)
    right: Tensor = own @ torch.linalg.inv(own + strength * gram + little)
    return right.float()


def grams(setup: RunSetup, items: Sequence[Item]) -> Grams:
    """E[x xᵀ] over tokens, float64, of the input of each adapted matrix in the base."""
    adapted = setup.adapted
    adapted.fold_in(zero(adapted.spec))
    total: dict[str, Tensor] = {}
    real = torch.zeros(0, dtype=torch.bool)

    def add(name: str, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])[real].float()
        total[name] = total.get(name, torch.zeros(())) + (rows.T @ rows).double()

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
        for name, module in adapted.layers.items()
    ]
    count = 0
    with adapted.base.looking():
        for at in range(0, len(items), 8):
            ids, mask = pad(
                [i.ids for i in items[at : at + 8]],
                adapted.base.tokenizer.pad_token_id,
                adapted.device,
            )
            real = mask.reshape(-1).bool()
            count += int(real.sum())
            adapted.model(input_ids=ids, attention_mask=mask)
    for hook in hooks:
        hook.remove()
    return {name: value / count for name, value in total.items()}
