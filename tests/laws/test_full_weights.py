"""Full weights in rounds: one participant is the plain fine-tuning loop to the bit; updates stream,
and are admitted before folded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from builders import Altered, build_setup, refused, rounds
from tequio.app.assembly.algorithm import build_coding, build_local
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.app.models.export import export_models
from tequio.app.simulation.run import resume, start
from tequio.config import load_federation
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import Coding, Local, RunSpec
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, RunError
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.types import Reply, TrainRequest
from tequio.core.update import Dense, Factored, Update, plain, zero
from tequio.participant.base import load_base
from tequio.participant.loop import CLIP
from tequio.participant.spool import Spool
from tequio.participant.text_tasks import IGNORE, Item, batches, pad
from tequio.runtimes.embedded import Embedded


def federation(make_federation: Any, **sections: Any) -> Path:
    """Whole weights; nobody declares a largest rank."""
    adapter = {"kind": "full", **sections.pop("adapter", {})}
    path: Path = make_federation(adapter=adapter, **sections)
    for file in path.parent.rglob("*.toml"):
        file.write_text(re.sub(r"max_rank = \d+\n", "", file.read_text()))
    return path


def setup(make_federation: Any, **sections: Any) -> RunSetup:
    return build_setup(federation(make_federation, **sections))


def loss_of(model: Any, items: list[Item]) -> Any:
    """Cross-entropy of next tokens, by hand."""
    ids, mask = pad([i.ids for i in items], 0, torch.device("cpu"))
    truth, _ = pad([i.target for i in items], IGNORE, torch.device("cpu"))
    with sdpa_kernel([SDPBackend.MATH]):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), truth[:, 1:].flatten(), ignore_index=IGNORE
    )


def test_a_federation_of_one_is_plain_full_fine_tuning_exactly(
    make_federation: Any, tiny_llama: Path
) -> None:
    """Against the model as transformers loads it, its weights trained by torch alone.

    Rounds begin with a fresh AdamW from W₀ + H.
    """
    sections = {
        "kind": "causal",
        "participants": 1,
        "centre": False,
        "algorithm": {"weights": "uniform"},
    }
    w = setup(make_federation, base={"dtype": "float32"}, **sections)
    state = rounds(w.run_spec, Embedded(w.nodes), 2)
    node, member = w.nodes[1], w.run_spec.members[0]
    model = load_base(str(tiny_llama), "causal", torch.float32, tiny_llama).model
    weights: dict[str, Any] = {
        name: model.get_submodule(name).weight for name in sorted(w.run_spec.shapes)
    }
    first = {name: weight.detach().clone() for name, weight in weights.items()}
    change = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    for round_ in (1, 2):
        seed = derive(w.run_spec.seed, "train", round_, 1)
        begin = {name: first[name] + change[name] for name in weights}
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(begin[name])
        optimizer = torch.optim.AdamW(
            list(weights.values()), lr=w.run_spec.rate(round_), weight_decay=0.0
        )
        stream = batches(node.data.train, node.batch_size, seed)
        for _ in range(member.steps):
            loss_of(model, next(stream)).backward()
            nn.utils.clip_grad_norm_(list(weights.values()), CLIP)
            optimizer.step()
            optimizer.zero_grad()
        change = {name: change[name] + (weights[name].detach() - begin[name]) for name in weights}
    expected = Update({name: Dense(value) for name, value in change.items()}, w.run_spec.spec)
    assert digest_update(state.shared) == digest_update(expected)
    assert state.shared.norm() > 0.0


def test_several_participants_give_their_weighted_mean(make_federation: Any) -> None:
    """λ·Σ nᵢΔᵢ/Σ nᵢ + (1 − λ)·Δ_centre, each Δ trained here once more."""
    w = setup(make_federation, participants=3, algorithm={"weights": "examples"})
    state = rounds(w.run_spec, Embedded(w.nodes), 1)
    changes = {}
    for index, node in w.nodes.items():
        node.adapted.fold_in(zero(w.run_spec.spec))
        member = w.run_spec.centre if index == 0 else w.run_spec.members[index - 1]
        assert member is not None
        seed = derive(w.run_spec.seed, "train", 1, index)
        task = TrainRequest(
            1,
            index,
            node.name,
            "product",
            1,
            member.steps,
            w.run_spec.rate(1),
            seed,
            zero(w.run_spec.spec),
        )
        changes[index] = opened(node.train(task), w.run_spec)
    total = sum(len(w.nodes[i].data.train) for i in (1, 2, 3))
    expected = changes[0].scaled(1.0 - w.run_spec.federated_share)
    for i in (1, 2, 3):
        expected = expected.plus(
            changes[i].scaled(w.run_spec.federated_share * len(w.nodes[i].data.train) / total)
        )
    assert state.shared.minus(expected).norm() <= 1e-6 * expected.norm()
    assert not state.pending.entries  # nothing is cut to a rank
    assert all(isinstance(entry, Dense) for entry in state.shared.entries.values())


def opened(reply: Reply, run_spec: RunSpec) -> Update:
    out = zero(run_spec.spec)
    for part in reply.parts or ():
        out = out.plus(run_spec.upload.codec.decode(part, "part"))
    return out


def test_a_state_of_full_weights_resumes_to_the_same_bits(make_federation: Any) -> None:
    w = setup(
        make_federation, participants=2, algorithm={"server": "nesterov", "upload": "quantise"}
    )
    unbroken = rounds(w.run_spec, Embedded(w.nodes), 3)
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    for _ in range(3):
        again = build(w.config)
        state, _ = run_round(
            unpack_state(pack_state(state), "checkpoint"), again.run_spec, Embedded(again.nodes)
        )
    assert pack_state(state) == pack_state(unbroken)


def test_a_whole_run_with_merged_export(make_federation: Any, tmp_path: Path) -> None:
    path = federation(make_federation, participants=2, train={"rounds": 1})
    out = start(load_federation(path), tmp_path / "run", True).folder
    assert resume(out).end["rounds"] == 1
    with refused(RunError, "no-adapters"):
        export_models(out, "shared", tmp_path / "x", merged=False)
    row = export_models(out, "shared", tmp_path / "x", merged=True)[0]
    assert sorted(row) == ["merged", "merged_agreement", "merged_dtype", "name"]
    assert (Path(row["merged"]) / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["half", "quantise", "eden"])
def test_full_weights_travel_coded(make_federation: Any, name: str) -> None:
    w = setup(make_federation, participants=2)
    state, full = run_round(
        open_state(w.run_spec, Embedded(w.nodes))[0], w.run_spec, Embedded(w.nodes)
    )
    run_spec = replace(w.run_spec, upload=build_coding(name))
    coded, body = run_round(open_state(run_spec, Embedded(w.nodes))[0], run_spec, Embedded(w.nodes))
    for row, whole in zip(body["train"], full["train"], strict=True):
        assert row["bytes_up"] < 0.8 * whole["bytes_up"]
    assert coded.shared.minus(state.shared).norm() < 0.9 * state.shared.norm()


def test_topk_with_feedback_loses_nothing_of_full_weights(make_federation: Any) -> None:
    """Whole weights are coordinates that persist: Σ sent + memory = Σ updates, entry by entry
    (SparseLoCo's own setting).
    """
    algorithm = {
        "upload": "topk",
        "upload_settings": {"density": 0.1, "bits": 2.0},
        "weights": "uniform",
    }
    w = setup(make_federation, participants=1, centre=False, algorithm=algorithm)
    node, run_spec = w.nodes[1], w.run_spec
    state = rounds(run_spec, Embedded(w.nodes), 2)
    wanted, held = zero(run_spec.spec), zero(run_spec.spec)
    for round_ in (1, 2):
        seed = derive(run_spec.seed, "train", round_, 1)
        task = TrainRequest(
            round_,
            1,
            node.name,
            "product",
            1,
            run_spec.members[0].steps,
            run_spec.rate(round_),
            seed,
            held,
            upload="plain",
        )
        wanted = wanted.plus(opened(node.train(task), replace(run_spec, upload=Coding())))
        held = rounds(run_spec, Embedded(w.nodes), round_).shared
    memory = node.memory.load(2, run_spec.spec, "x")
    assert memory.norm() > 0.1 * wanted.norm()
    assert state.shared.plus(memory).minus(wanted).norm() <= 1e-5 * wanted.norm()


def _nan(parts: list[bytes]) -> list[bytes]:
    codec = Coding().codec
    update = codec.decode(parts[-1], "x")
    (name,) = update.entries
    from tequio.core.canonical import pack

    broken = Dense(plain(update.entries[name]) * float("nan"))
    return [*parts[:-1], pack(Update({name: broken}, update.spec))]


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda parts: parts[:-1], "undecodable"),
        (lambda parts: [*parts, parts[0]], "undecodable"),
        (lambda parts: [parts[1], parts[0], *parts[2:]], "undecodable"),
        (lambda parts: [*parts[:-1], b"no message"], "undecodable"),
        (_nan, "undecodable"),
    ],
)
def test_a_streamed_update_is_admitted_whole_before_any_of_it_is_added(
    make_federation: Any, forge: Any, code: str
) -> None:
    """The fault is in the last part; the round ends as if the participant had not been there."""
    w = setup(make_federation, participants=3)
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    forger = Altered(
        Embedded(w.nodes), 1, lambda reply: replace(reply, parts=forge(list(reply.parts or ())))
    )
    after, body = run_round(state, w.run_spec, forger)
    refused = [a for a in body["admissions"] if a["status"] != "admitted"]
    assert [a["name"] for a in refused] == ["site0"]
    assert refused[0]["reason"]["code"] == code
    without = replace(w.run_spec, members=tuple(m for m in w.run_spec.members if m.index != 1))
    expected, _ = run_round(state, without, Embedded(w.nodes))
    assert digest_update(after.shared) == digest_update(expected.shared)


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"algorithm": {"reduce": "rolora"}}, "full-factors"),
        ({"algorithm": {"reduce": "centred_clipping"}}, "full-robust"),
        ({"algorithm": {"start": "fedex"}}, "full-start"),
        ({"topology": {"kind": "ring"}, "centre": False}, "peers-full"),
        (
            {"train": {"pace": "buffered", "round_seconds": 9.0}, "algorithm": {"upload": "topk"}},
            "buffered-feedback",
        ),
    ],
)
def test_what_has_no_meaning_with_full_weights_is_refused(
    make_federation: Any, sections: Any, code: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        setup(make_federation, **sections)
    assert caught.value.reason is not None
    assert caught.value.reason.code == code


def test_a_rank_of_the_broadcast_is_refused_with_full_weights(make_federation: Any) -> None:
    with pytest.raises(ConfigError, match="there are no ranks"):
        setup(make_federation, algorithm={"broadcast_rank": 4})


def test_a_largest_rank_is_refused_with_full_weights(make_federation: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build_setup(make_federation(adapter={"kind": "full"}))
    assert caught.value.reason == Reason("rank-of-full", {"name": "site1", "max_rank": 2})


def test_a_spool_gives_back_what_it_got() -> None:
    spool = Spool()
    messages = [b"", b"one", bytes(100_000), b"four"]
    for message in messages:
        spool.append(message)
    assert list(spool) == messages
    assert [spool[-1], *spool[1:3]] == [b"four", b"one", bytes(100_000)]
    with pytest.raises(IndexError):
        spool[4]


def test_private_factors_go_on_top_of_shared_full_weights(make_federation: Any) -> None:
    w = setup(make_federation, participants=1)
    adapted = w.adapted
    shared = rounds(w.run_spec, Embedded(w.nodes), 1).shared
    adapted.fold_in(shared)
    adapted.attach(2, 0)
    private = adapted.extract()
    assert all(
        isinstance(e, Factored) for n, e in private.entries.items() if not n.startswith("head.")
    )
    assert all(isinstance(e, Dense) for e in shared.plus(private).entries.values())
    settings = w.settings["site0"]
    assert (settings.local.full, settings.private.full) == (True, False)


def test_local_terms_work_on_full_weights(make_federation: Any) -> None:
    """A pull to the start so strong that nothing moves far; the others only change the outcome."""
    w = setup(
        make_federation,
        kind="causal",
        participants=1,
        local={"terms": {"fedprox": 100.0, "kl": 0.5}},
    )
    free = rounds(replace(w.run_spec, local=Local()), Embedded(w.nodes), 1).shared
    pulled = rounds(
        replace(w.run_spec, local=build_local({"fedprox": 100.0})), Embedded(w.nodes), 1
    ).shared
    assert pulled.norm() < 0.9 * free.norm()
    for term in ("kl", "transfer"):
        run_spec = replace(w.run_spec, local=build_local({term: 0.5}))
        assert digest_update(rounds(run_spec, Embedded(w.nodes), 1).shared) != digest_update(free)
