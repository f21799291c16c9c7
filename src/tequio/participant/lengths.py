"""Lengths of texts in a base model's tokens, without its weights."""

from collections.abc import Sequence
from pathlib import Path

from tequio.participant.base_files import cannot_load, resolve
from tequio.participant.data import Example


def token_lengths(base: str, examples: Sequence[Example], cache: Path) -> list[int]:
    """Return the number of tokens of each example, its response included.

    Raises BaseModelError where the base has no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer

    folder = resolve(base, cache).folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises OSError, ValueError, KeyError and more
        raise cannot_load(base, error) from None
    texts = [f"{e.text}\n{e.response}" if e.response is not None else e.text for e in examples]
    return (
        [len(row) for row in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        if texts
        else []
    )


def position_limit(base: str, cache: Path) -> int | None:
    """Return how many tokens the base has positions for, None if it names no limit.

    Raises BaseModelError.
    """
    from transformers import AutoConfig

    folder = resolve(base, cache).folder
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as above
        raise cannot_load(base, error) from None
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    reserved = (config.pad_token_id or 0) + 1 if "roberta" in str(config.model_type) else 0
    return limit - reserved
