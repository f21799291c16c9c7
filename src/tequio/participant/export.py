"""Export: an adapter folder in PEFT's format, and the merged model; both load with the usual libraries, without Tequio."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from tequio.core.update import HEAD_PREFIX, Dense, Factored, Update
from tequio.participant.adapted_model import LOGIT_SCALE, AdaptedModel
from tequio.participant.encoding import Encoder

TOLERANCE = 1e-6  # singular values below this share of the largest are left out


def adapter_files(adapted: AdaptedModel, model: Update, base_name: str, labels: tuple[str, ...]) -> dict[str, bytes]:
    """File name -> bytes of a PEFT LoRA folder for base + `model`; a classification head is a file of its own.

    All modules get the rank of the widest; what is smaller is padded with zeros. α = r, so the scale is 1.
    """
    factors = {name: _factors(e) for name, e in model.entries.items() if not name.startswith(HEAD_PREFIX)}
    rank = max([1, *(f.rank for f in factors.values())])
    tensors: dict[str, Tensor] = {}
    for name in sorted(adapted.layers):
        m, n = adapted.shapes[name]
        f = factors.get(name, Factored(torch.zeros(m, 0), torch.zeros(0, n)))
        a, b = torch.zeros(rank, n), torch.zeros(m, rank)
        a[: f.rank], b[:, : f.rank] = f.a, f.b
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION" if adapted.head else "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(adapted.layers),
    }
    files = {
        "adapter_config.json": json.dumps(config, indent=1).encode(),
        "adapter_model.safetensors": safetensors_save(tensors, metadata={"format": "pt"}),
    }
    if adapted.head:
        files |= head_files(adapted, labels)
    else:
        files |= encoding_file(adapted)
    return files


def encoding_file(adapted: AdaptedModel) -> dict[str, bytes]:
    """Return encoding.json: what begins and ends a text, and how chats are written, for those who use the model elsewhere."""
    facts = Encoder(adapted.base.tokenizer, adapted.base.max_positions).facts()
    return {"encoding.json": json.dumps(facts, indent=1, ensure_ascii=False).encode()}


def head_files(adapted: AdaptedModel, labels: tuple[str, ...]) -> dict[str, bytes]:
    """The classification head that the adapted model holds now: logits = 10 · head.weight · unit(mean(hidden states)) + head.bias."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapted.head.items()}
    recipe = {
        "labels": list(labels),
        "pooling": "mean of the last hidden states over real tokens, then unit length",
        "logits": f"{LOGIT_SCALE:g} * pooled @ head.weight.T + head.bias",
    }
    return {
        "head.safetensors": safetensors_save(tensors, metadata={"format": "pt"}),
        "head.json": json.dumps(recipe, indent=1, ensure_ascii=False).encode(),
    }


def save_merged(adapted: AdaptedModel, model: Update, folder: Path, labels: tuple[str, ...]) -> None:
    """Write base + `model` as an ordinary transformers folder. The adapted model is of no use afterwards."""
    adapted.fold_in(model)
    for path, layer in adapted.layers.items():
        m, n = layer.weight.shape
        plain = nn.Linear(n, m, bias=layer.bias is not None, dtype=layer.weight.dtype, device=layer.weight.device)
        state: Mapping[str, Any] = {"weight": layer.weight} | ({} if layer.bias is None else {"bias": layer.bias})
        plain.load_state_dict(state)
        parent, _, leaf = path.rpartition(".")
        setattr(adapted.model.get_submodule(parent), leaf, plain.requires_grad_(False))
    saver: Any = adapted.model
    saver.save_pretrained(folder, safe_serialization=True)
    adapted.base.tokenizer.save_pretrained(folder)
    if not adapted.head:
        (folder / "encoding.json").write_bytes(encoding_file(adapted)["encoding.json"])
    if adapted.head:
        for name, data in head_files(adapted, labels).items():
            (folder / name).write_bytes(data)


def _factors(entry: Factored | Dense) -> Factored:
    """The entry as factors of its numerical rank."""
    if isinstance(entry, Factored):
        q_b, r_b = torch.linalg.qr(entry.b.double())
        q_a, r_a = torch.linalg.qr(entry.a.double().T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T)
        b, a = q_b @ (u * s), vh @ q_a.T
    else:
        u, s, a = torch.linalg.svd(entry.value.double(), full_matrices=False)
        b = u * s
    rank = int((s > TOLERANCE * s.max().clamp(min=1e-30)).sum()) if len(s) else 0
    return Factored(b[:, :rank].float().contiguous(), a[:rank].float().contiguous())
