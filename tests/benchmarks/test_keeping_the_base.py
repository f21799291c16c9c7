"""What the study of keeping does to a shared change after training, how it joins public snippets,
and how it sums up.
"""

from __future__ import annotations

import torch

from benchmarks.study.ability import documents, spread
from benchmarks.study.keeping import correlation, summary
from benchmarks.study.posthoc import away, each, groups, pull, pull_against, without
from tequio.core.update import Dense, Factored, Update, plain


def change(layers: int = 3) -> Update:
    """Two matrices a layer and a head, over inputs of four numbers."""
    generator = torch.Generator().manual_seed(0)

    def made(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator)

    entries: dict[str, Factored | Dense] = {"head.weight": Dense(made(2, 4))}
    for k in range(layers):
        entries[f"model.layers.{k}.self_attn.q_proj"] = Factored(made(4, 2), made(2, 4))
        entries[f"model.layers.{k}.self_attn.v_proj"] = Dense(made(3, 4))
    return Update(entries, "spec")


def gram(*weights: float) -> torch.Tensor:
    """A covariance with these eigenvalues, along the axes."""
    return torch.diag(torch.tensor(weights, dtype=torch.float64))


def test_a_change_without_the_leading_directions_does_nothing_to_such_inputs() -> None:
    less = each(change(), lambda name: away(gram(1.0, 9.0, 2.0, 7.0), 2))
    for name, entry in less.entries.items():
        if name == "head.weight":
            assert torch.equal(plain(entry), plain(change().entries[name]))
        else:
            assert torch.allclose(plain(entry)[:, [1, 3]], torch.zeros(2), atol=1e-6)
            assert float(plain(entry)[:, [0, 2]].abs().min()) > 0.0


def test_pulls_shrink_what_public_text_uses_and_leave_the_rest() -> None:
    """Mean eigenvalue 2: along 4 the factor is 1/(1 + 2γ), along 0 it is 1.

    Against own inputs: c_own / (c_own + γ·c_public).
    """
    assert torch.allclose(pull(gram(4.0, 0.0), 0.5), torch.diag(torch.tensor([0.5, 1.0])))
    found = pull_against(gram(3.0, 3.0), gram(1.0, 0.0), 1.0)
    assert torch.allclose(found, torch.diag(torch.tensor([0.75, 1.0])), atol=1e-3)


def test_groups_are_kinds_by_third_of_the_depth() -> None:
    assert groups(change(6))["q_proj.1"] == [f"model.layers.{k}.self_attn.q_proj" for k in (2, 3)]
    rest = without(change(), "v_proj.2")
    assert change().entries.keys() - rest.entries.keys() == {"model.layers.2.self_attn.v_proj"}


def test_snippets_of_one_text_are_joined() -> None:
    table = "1_1\t.4\tOne.\n1_2\t.1\tTwo.\nno table\n2_1\t0\tThree."
    assert documents(table) == ["One. Two.", "Three."]
    assert spread(list(range(10)), 3) == [0, 3, 6]


def test_the_summary_counts_a_target_only_where_gain_and_price_meet_it() -> None:
    """Of a fall of 1: 95 % at +.1 % meets it, 100 % at +2 % and 80 % at no price do not.

    `world` stands beside the mean.
    """
    points = {
        "base": {"own": 3.0, "kl": 0.0, "price": {"code": 2.0, "world": 1.0}},
        "1": {"own": 2.0, "kl": 0.3, "price": {"code": 2.04, "world": 0.5}},
        "pull-1": {"own": 2.05, "kl": 0.2, "price": {"code": 2.002, "world": 0.5}},
        "0.5": {"own": 2.2, "kl": 0.1, "price": {"code": 2.0, "world": 0.5}},
    }
    lines = summary("schools", {"plain": [{"seed": 0, "points": points}]}).splitlines()
    assert [line for line in lines if "met" in line] == [
        "| plain | pull-1 | 95 % | +0.10 % | +0.10 % | +0.10 % | -50.00 % | 0.2000 | met front |"
    ]
    assert "+1.00 over 3 points" in lines[-1]
    assert correlation([1.0, 2.0, 3.0], [9.0, 4.0, 1.0]) == -1.0
