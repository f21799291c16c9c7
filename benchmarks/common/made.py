"""Bases with random weights in the shapes of known ones, a tokenizer trained on the spot, and
made-up texts: for speed, memory and energy,
which do not ask what the weights say, where the real models are not at hand.
"""

from __future__ import annotations

import pydoc_data.topics
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tequio.participant.base import Kind, best_device, best_dtype

SPECIAL = ["<pad>", "<unk>", "<eos>"]
LLAMA = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}


@dataclass(frozen=True)
class Shape:
    """A base's sizes;

    `tokens` of its vocabulary are in the tokenizer, the others only in its weights.
    """

    kind: Kind
    sizes: Mapping[str, Any]
    tokens: int = 4000

    @property
    def modules(self) -> list[str]:
        """The layers that are adapted."""
        return ["q_proj", "v_proj"] if self.kind == "causal" else ["query", "value"]


def _llama(
    vocabulary: int, hidden: int, layers: int, heads: int, kv: int, inner: int
) -> Mapping[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        **LLAMA,
    }


SHAPES = {
    "minilm": Shape(
        "classification",
        {
            "vocab_size": 30522,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "max_position_embeddings": 512,
        },
    ),
    "smollm2": Shape("causal", _llama(49_152, 576, 30, 9, 3, 1536)),
    "llama1b": Shape("causal", _llama(128_256, 2048, 16, 32, 8, 8192)),
    "llama1b-32k": Shape("causal", _llama(32_000, 2048, 16, 32, 8, 8192)),
    "llama10m": Shape("causal", _llama(512, 320, 8, 5, 5, 864), 300),
    "tiny": Shape("causal", _llama(512, 64, 2, 4, 2, 128), 300),
    "tinybert": Shape(
        "classification",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": 512,
        },
        300,
    ),
}


@cache
def known_words() -> list[str]:
    """The words of Python's own help texts, in their order."""
    return " ".join(
        pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)
    ).split()


def words(count: int, seed: int) -> str:
    """So many of them, at random."""
    draw = random.Random(seed)
    return " ".join(draw.choices(known_words(), k=count))


def tokenizer(tokens: int) -> Any:
    """Byte-pair encoding of so many tokens, trained on the help texts."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=tokens, special_tokens=SPECIAL, initial_alphabet=ByteLevel.alphabet()
    )
    raw.train_from_iterator([" ".join(known_words())], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )


def make_model(name: str, **more: Any) -> Any:
    """The model with random weights, on the best device in its best precision."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

    shape, before = SHAPES[name], torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(best_dtype())
    try:
        with best_device():
            if shape.kind == "causal":
                return LlamaForCausalLM(LlamaConfig(**shape.sizes, **more))
            return BertModel(BertConfig(**shape.sizes, **more), add_pooling_layer=False)
    finally:
        torch.set_default_dtype(before)


def make_base(name: str, folder: Path) -> Path:
    """A folder with such a model and its tokenizer, which `load_base` reads; made once."""
    home = folder / name
    if not home.is_dir():
        make_model(name).save_pretrained(home)
        tokenizer(SHAPES[name].tokens).save_pretrained(home)
    return home
