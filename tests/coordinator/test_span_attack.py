"""The span attack on a real base: tokens are read from one open gradient, and not from what crosses
in masked rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders import build_setup
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.round import open_state
from tequio.core.update import Dense, Update, plain, zero
from tequio.runtimes.embedded import Embedded
from tequio.trust.keys import new_key, public_bytes
from tequio.trust.secure_sum.agreement import Context, Layout, Policy
from tequio.trust.secure_sum.coordinator import Collector
from tequio.trust.secure_sum.participant import Member

MODULE = "encoder.layer.0.attention.self.query"
RANK, MEMBERS = 16, 4


def gradient(
    setup: RunSetup, index: int, shared: Update
) -> tuple[torch.Tensor, set[tuple[int, int]]]:
    """Return the gradient of the first layer's A on one text of a participant, and the text's
    (token, position) pairs."""
    node = setup.nodes[index]
    text = node.data.train[0]
    setup.adapted.fold_in(zero(shared.spec))
    setup.adapted.attach_factors(shared, RANK, "a")
    setup.task.loss(setup.adapted, [text]).backward()  # type: ignore[no-untyped-call]
    a = setup.adapted.layers[MODULE].a
    assert a is not None
    assert a.grad is not None
    found = a.grad.clone().double()
    setup.adapted.detach()
    return found, {(token, place) for place, token in enumerate(text.ids)}


def in_span(
    matrix: torch.Tensor, inputs: dict[tuple[int, int], torch.Tensor]
) -> set[tuple[int, int]]:
    """Return the (token, position) pairs whose input lies in the span of a gradient's rows (Petrov
    et al., 2024)."""
    _, sizes, rows = torch.linalg.svd(matrix, full_matrices=False)
    rows = rows[sizes > 1e-5 * sizes[0]]
    return {
        pair
        for pair, x in inputs.items()
        if float((x - x @ rows.T @ rows).norm() / x.norm()) < 1e-3
    }


def first_inputs(base: Path, longest: int) -> dict[tuple[int, int], torch.Tensor]:
    """Return what the first layer reads for every token at every position: anybody can compute it
    from the published base."""
    from transformers import BertModel

    model = BertModel.from_pretrained(base, add_pooling_layer=False).double()
    ids = torch.arange(model.config.vocab_size)
    found: dict[tuple[int, int], torch.Tensor] = {}
    with torch.no_grad():
        for place in range(longest):
            rows = model.embeddings(ids[:, None], position_ids=torch.full((len(ids), 1), place))[
                :, 0
            ]
            found |= {(int(token), place): row for token, row in zip(ids, rows, strict=True)}
    return found


def no_figures(values: np.ndarray) -> tuple[np.ndarray, Mapping[str, float]]:
    """Return what a member adds up: its values alone."""
    return values, {}


def masked_sum(values: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (what member 1 sends, the opened sum) of a secure sum of these values."""
    keys = {index: new_key() for index in values}
    layout = Layout(
        (len(values[1]),),
        dict.fromkeys(values, 1),
        max(float(np.abs(v).max()) for v in values.values()),
        {},
    )
    policy = Policy({index: public_bytes(key) for index, key in keys.items()})
    context = Context("run", "", "", "train", 1, 1, policy, layout)
    members, collector = {i: Member(i, key) for i, key in keys.items()}, Collector(context, b"")
    directory = collector.directory({i: m.announce(context) for i, m in members.items()})
    inboxes = collector.inboxes({i: m.share(context, directory) for i, m in members.items()})
    vectors = {i: partial(no_figures, value) for i, value in values.items()}
    sent = {i: m.mask(context, b"", inboxes[i], vectors[i]) for i, m in members.items()}
    for index, vector in sent.items():
        collector.receive(index, vector)
    survivors = frozenset(collector.close())
    for index, member in members.items():
        collector.answer(index, member.unmask(context, survivors))
    return np.frombuffer(sent[1], "<i4")[1:-1].astype(np.float64), collector.open().values


def test_a_text_is_read_from_an_open_gradient_not_a_masked_one(
    make_federation: Callable[..., Path], tiny_bert: Path
) -> None:
    sections: dict[str, Any] = {
        "algorithm": {"reduce": "rolora", "weights": "uniform"},
        "adapter": {"ranks": [RANK]},
    }
    path = make_federation(participants=MEMBERS, centre=False, **sections)
    for own in (path.parent / "participants").glob("*.toml"):
        own.write_text(
            "".join(line for line in own.read_text().splitlines(True) if "max_rank" not in line)
        )
    setup = build_setup(path)
    state, _ = open_state(setup.run_spec, Embedded(setup.nodes))
    draw = torch.Generator().manual_seed(3)
    shared = Update(
        {
            name: Dense(torch.randn(plain(entry).shape, generator=draw) * 0.1)
            if name.endswith(":b")
            else entry
            for name, entry in state.shared.entries.items()
        },
        state.shared.spec,
    )
    found = {index: gradient(setup, index, shared) for index in range(1, MEMBERS + 1)}
    inputs = first_inputs(
        tiny_bert, max(place for _, pairs in found.values() for _, place in pairs) + 1
    )
    matrix, text = found[1]
    assert in_span(matrix, inputs) == text, "an open gradient tells every token and where it stands"
    crossed, opened = masked_sum({index: one.numpy().ravel() for index, (one, _) in found.items()})
    assert np.allclose(
        opened.reshape(matrix.shape), sum(one.numpy() for one, _ in found.values()), atol=1e-6
    )
    for seen in (crossed, opened):
        assert not in_span(torch.from_numpy(seen.reshape(matrix.shape).copy()), inputs)
