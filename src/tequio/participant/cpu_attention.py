"""Attention of a model in training on a CPU: plain for short texts, where the flash kernel's
backward pass is slow.

MiniLM in bf16, one core: 1.5 times the steps a second at 25 tokens, 1.4 at 64; SmolLM2: no
difference at 96. The choice is made call by call from what is called, never by a switch of the
whole process: two adapted models may be at work at once.
"""

from typing import Any

import torch
from torch import Tensor, nn

NAME = "tequio"
SHORT = 96  # tokens: up to here plain attention trains faster on a CPU


def use_plain_where_short(model: Any) -> None:
    """Let a transformers model whose attention is `sdpa` attend by `attend`; others stay as
    they are.

    So do models that do not look attention up by its name: Falcon's code asks for "sdpa" itself,
    and takes any other name for its own slow attention, which reads the mask otherwise.
    """
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    if not getattr(model, "_supports_attention_backend", False):
        return
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """(batch × heads × length × width) to (batch × length × heads × width), as transformers
    wants it.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length = query.shape[2]
    short = torch.is_grad_enabled() and query.device.type == "cpu" and length <= SHORT
    odd = (
        settings.get("position_bias") is not None
        or settings.get("dropout", 0.0)
        or key.shape[2] != length
    )
    if odd or not short:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **settings
        )
        return found
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling = settings.get("scaling")
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(
        2, 3
    )
    causal = settings.get("is_causal")
    if attention_mask is None and (
        getattr(module, "is_causal", True) if causal is None else causal
    ):
        attention_mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores = scores + attention_mask
    return (torch.softmax(scores, -1) @ value).transpose(1, 2).contiguous(), None
