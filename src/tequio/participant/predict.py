"""What a held model says about texts: class probabilities, or a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.text_tasks import pad, prompt_ids

BATCH = 32


def classify(
    adapted: AdaptedModel, texts: Sequence[str], labels: Sequence[str], max_tokens: int
) -> list[dict[str, Any]]:
    """One row a text: the likeliest label and the probability of each."""
    rows: list[dict[str, Any]] = []
    tokenizer = adapted.base.tokenizer
    for start in range(0, len(texts), BATCH):
        ids = tokenizer(list(texts[start : start + BATCH]), truncation=True, max_length=max_tokens)["input_ids"]
        with torch.inference_mode():
            logits = adapted.class_logits(*pad(ids, tokenizer.pad_token_id, adapted.device))
        for shares in torch.softmax(logits, 1).tolist():
            best = max(range(len(labels)), key=lambda i: shares[i])
            rows.append({"label": labels[best], "probabilities": dict(zip(labels, shares, strict=True))})
    return rows


def complete(adapted: AdaptedModel, texts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """One row a prompt: the likeliest continuation (greedy), at most `max_new_tokens` tokens."""
    tokenizer, rows = adapted.base.tokenizer, []
    model: Any = adapted.model
    for text in texts:
        ids = torch.tensor([prompt_ids(tokenizer, text)], device=adapted.device)
        with torch.inference_mode():
            produced = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        rows.append({"completion": tokenizer.decode(produced[0, ids.shape[1] :], skip_special_tokens=True)})
    return rows
