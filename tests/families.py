"""Tiny random bases of many families, with a word tokenizer: what people bring, at a few thousand
parameters each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from builders import tokenizer

VOCABULARY = 40
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
LLAMA = BERT | {"num_key_value_heads": 1, "head_dim": 8, "eos_token_id": 2, "bos_token_id": None}
NEOX = {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "head_dim")}
TEXT_ONLY = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
}

Shape = tuple[str, dict[str, Any]]
ENCODERS: dict[str, Shape] = {
    "bert": ("BertModel", BERT),
    "roberta": ("RobertaModel", BERT | {"pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaModel", BERT | {"pad_token_id": 1}),
    "camembert": ("CamembertModel", BERT | {"pad_token_id": 1}),
    "distilbert": (
        "DistilBertModel",
        {
            "vocab_size": VOCABULARY,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 32,
            "pad_token_id": 0,
        },
    ),
    "albert": ("AlbertModel", BERT | {"embedding_size": 8}),
    "electra": ("ElectraModel", BERT | {"embedding_size": 8}),
    "deberta-v2": (
        "DebertaV2Model",
        BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
    "mpnet": ("MPNetModel", BERT | {"pad_token_id": 1}),
    "modernbert": (
        "ModernBertModel",
        BERT | {"eos_token_id": 2, "bos_token_id": 1, "cls_token_id": 1},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_heads": 2,
        },
    ),
}
DECODERS: dict[str, Shape] = {
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 64,
            "eos_token_id": 2,
        },
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "eos_token_id": 2,
            "bos_token_id": None,
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", NEOX),
    "opt": (
        "OPTForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 2,
        },
    ),
    "bloom": (
        "BloomForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "n_layer": 2,
            "n_head": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "llama": ("LlamaForCausalLM", LLAMA),
    "mistral": ("MistralForCausalLM", LLAMA),
    "qwen2": ("Qwen2ForCausalLM", LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", LLAMA | {"tie_word_embeddings": True}),
    "gemma": ("GemmaForCausalLM", LLAMA),
    "gemma2": ("Gemma2ForCausalLM", LLAMA | {"sliding_window": 16}),
    "gemma3_text": ("Gemma3ForCausalLM", LLAMA | {"sliding_window": 16}),
    "phi": ("PhiForCausalLM", NEOX),
    "phi3": ("Phi3ForCausalLM", LLAMA),
    "falcon": (
        "FalconForCausalLM",
        NEOX | {"new_decoder_architecture": False, "multi_query": True},
    ),
    "olmo2": ("Olmo2ForCausalLM", LLAMA),
    "smollm3": ("SmolLM3ForCausalLM", LLAMA),
    "starcoder2": ("Starcoder2ForCausalLM", LLAMA),
    "granite": ("GraniteForCausalLM", LLAMA),
    "mamba": (
        "MambaForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 4,
            "pad_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "intermediate_size": 16,
            "moe_intermediate_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
            "eos_token_id": 2,
        },
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        LLAMA | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    ),
    "mixtral": ("MixtralForCausalLM", LLAMA | {"num_local_experts": 2}),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": LLAMA,
            "vision_config": TEXT_ONLY | {"num_attention_heads": 2},
            "mm_tokens_per_image": 1,
            "image_token_index": 39,
            "boi_token_index": 38,
            "eoi_token_index": 37,
        },
    ),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "bart": (
        "BartModel",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
        },
        "classification",
        "encoder-decoder model",
    ),
    "t5 that writes": (*ENCODERS["t5"], "causal", "encoder-decoder model"),
    "bert that writes": (*ENCODERS["bert"], "causal", "weights are incomplete"),
    "a vision model": (
        "ViTModel",
        TEXT_ONLY | {"num_attention_heads": 2},
        "classification",
        "has no embeddings of tokens",
    ),
}


def make(folder: Path, shape: Shape, words: Callable[[], Any] = tokenizer) -> Path:
    """Write a random model of this shape, whose weights are large enough for a change of them to
    matter.
    """
    import transformers

    torch.manual_seed(5)
    cls: Any = getattr(transformers, shape[0])
    model = cls(cls.config_class(**shape[1]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    words().save_pretrained(folder)
    return folder
