"""The miniature's base: a byte-level Llama of a quarter million parameters, trained from scratch on
Python's manual, once.

It has read English only. The topics that are kept from it are the public slices and the centre's
English of `world.py`.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tequio.app.demos.manuals import python_topics
from tequio.app.demos.text import Sample, shuffled
from tequio.config.cache import cache_folder
from tequio.core.errors import TequioError

VERSION = 1
STEPS, BATCH, LENGTH, RATE = 1800, 16, 64, 5e-3
WARM = 100  # steps in which the rate rises
THIRD = 3  # manuals.py keeps the first third of the shuffled topics for its public slice; so do we


@dataclass(frozen=True)
class Shape:
    """Sizes of a base; `name` is part of its folder's."""

    name: str
    hidden: int
    layers: int
    heads: int
    wide: int


LARGE = Shape("base", 96, 2, 3, 256)
SMALL = Shape("small", 48, 1, 3, 128)  # about an eighth of the parameters


def base_folder(steps: int = STEPS, shape: Shape = LARGE) -> Path:
    """The trained base, as a folder that `load_base` reads; made where it is not there yet (a
    minute or two).
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    fewer = "" if steps == STEPS else f"-{steps}"
    target = cache_folder() / "study" / f"{shape.name}-v{VERSION}{fewer}-py{python}"
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        tokenizer = byte_tokenizer()
        tokenizer.save_pretrained(work)
        trained(tokenizer, steps, shape).save_pretrained(work)
        if not target.exists():
            os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def byte_tokenizer() -> Any:
    """One token a UTF-8 byte (256), and three special ones; no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {
        token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def base_text() -> str:
    """The topics of Python's manual that are not kept back."""
    pages = shuffled((Sample(page) for page in python_topics()), seed=0)
    return "\n\n".join(page.text for page in pages[len(pages) // THIRD :])


def trained(tokenizer: Any, steps: int = STEPS, shape: Shape = LARGE) -> Any:
    """The model after `steps` steps of AdamW (betas .9, .95; rate falls as a cosine) on random
    windows of the text.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.wide,
        max_position_embeddings=2 * LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    text = torch.tensor(tokenizer(base_text(), verbose=False)["input_ids"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, foreach=True
        )
        for step in range(steps):
            falling = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARM) * falling
            starts = torch.randint(0, len(text) - LENGTH, (BATCH,))
            batch = text[starts[:, None] + torch.arange(LENGTH)]
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(float(loss.detach())):
        raise TequioError(
            "The study's base could not be trained:", "its loss is not a number.", "Lower RATE."
        )
    return model
