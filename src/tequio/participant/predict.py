"""What a held model says about texts: class probabilities, or a completion."""

from collections.abc import Sequence
from typing import Any

import torch

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.encoding import Encoder


def classify(answers: torch.Tensor, labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a text: the likeliest label and the probability of each. answers: log probabilities
    (texts × labels).
    """
    rows: list[dict[str, Any]] = []
    for shares in answers.exp().tolist():
        best = max(range(len(labels)), key=lambda i: shares[i])
        rows.append(
            {"label": labels[best], "probabilities": dict(zip(labels, shares, strict=True))}
        )
    return rows


def complete(
    adapted: AdaptedModel, texts: Sequence[str], max_new_tokens: int, max_tokens: int
) -> list[dict[str, Any]]:
    """Return one row per prompt: the likeliest continuation (greedy), at most `max_new_tokens`
    tokens.

    The prompts are encoded as in training, and answers end where the learnt ones do. A prompt that
    leaves the base no room for an answer loses its start.
    """
    tokenizer, rows = adapted.base.tokenizer, []
    model: Any = adapted.model
    encoder = Encoder(tokenizer, max_tokens)
    room = max(adapted.base.max_positions - max_new_tokens, 1)
    ends = sorted({*encoder.stops, *_own_ends(model)})
    for text in texts:
        ids = torch.tensor([encoder.prompt(text, room)], device=adapted.device)
        with torch.inference_mode():
            produced = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends or None,
            )
        rows.append(
            {"completion": tokenizer.decode(produced[0, ids.shape[1] :], skip_special_tokens=True)}
        )
    return rows


def _own_ends(model: Any) -> list[int]:
    """Return the end tokens that the base's own generation settings name."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if named is None else [named] if isinstance(named, int) else list(named)
