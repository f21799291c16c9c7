"""Plain attention for short texts gives what torch's own gives, and its gradients, with masks and
without.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tequio.participant.base import load_base
from tequio.participant.cpu_attention import NAME, SHORT, attend


def module(causal: bool, groups: int) -> nn.Module:
    found: Any = nn.Module()
    found.is_causal, found.num_key_value_groups = causal, groups
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_the_attention_of_the_library(causal: bool, mask: str, groups: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 4, 7, 8, requires_grad=True)
    key, value = (torch.randn(2, 4 // groups, 7, 8, requires_grad=True) for _ in range(2))
    where = torch.rand(2, 1, 7, 7) > 0.3
    where[..., 0] = True  # every row sees something
    given = {
        "none": None,
        "bool": where,
        "float": torch.zeros(2, 1, 7, 7).masked_fill(~where, -1e9),
    }[mask]
    found, _ = attend(module(causal, groups), query, key, value, given)
    grads = torch.autograd.grad(found.square().sum(), (query, key, value))
    wide = [t.repeat_interleave(groups, 1) for t in (key, value)]
    alone = causal and given is None
    expected = nn.functional.scaled_dot_product_attention(
        query, wide[0], wide[1], given, is_causal=alone
    )
    expected = expected.transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-6)
    for mine, theirs in zip(
        grads, torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_loaded_base_attends_so_and_long_texts_and_evaluation_go_to_the_library(
    tiny_bert: Any, tmp_path: Any
) -> None:
    base = load_base(str(tiny_bert), "classification", torch.float32, tmp_path)
    config: Any = base.model.config
    assert config._attn_implementation == NAME
    long = torch.randn(1, 2, SHORT + 1, 8)
    with torch.inference_mode():
        assert attend(module(False, 1), long, long, long, None)[0].shape == (1, SHORT + 1, 2, 8)
