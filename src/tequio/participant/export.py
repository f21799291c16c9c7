"""Export: an adapter folder in PEFT's format, and the merged model; both load with the usual
libraries, without Tequio.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from tequio.core.update import HEAD_PREFIX, Dense, Factored, Update
from tequio.participant.adapted_model import LOGIT_SCALE, AdaptedModel
from tequio.participant.encoding import Encoder
from tequio.participant.export_loader import loader_script
from tequio.participant.fused.select import Path as Chosen
from tequio.participant.lora import AdaptedLinear

TOLERANCE = 1e-6  # singular values below this share of the largest are left out
DEFAULT_RANK = 16  # what engines such as vLLM take without further settings
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def hub_id(base: str) -> str | None:
    """Return the name of a base on the Hugging Face hub;

    None for a folder or file, whose path says nothing elsewhere.
    """
    if base.endswith(".gguf") or not HUB_ID.match(base) or Path(base).exists():
        return None
    return base


def factored(model: Update, rank: int | None = None) -> Update:
    """Return the update with every matrix as factors of its numerical rank, or of the best
    approximation of `rank`.

    The factors are found by QR of both factors and the SVD of the small core, in float64
    (Eckart-Young). Entries of a head stay as they are.
    """
    entries = {
        n: e if n.startswith(HEAD_PREFIX) else _factors(e, rank) for n, e in model.entries.items()
    }
    return Update(entries, model.spec)


def adapter_files(
    adapted: AdaptedModel,
    model: Update,
    base_name: str,
    labels: tuple[str, ...],
    rank: int | None = None,
) -> dict[str, bytes]:
    """Return file name -> bytes of a PEFT LoRA folder for base + `model`; a classification head is
    a file of its own.

    Args:
        adapted: the base, which holds the model's head now.
        model: what is exported.
        base_name: as the federation calls the base; written only where it is a hub id.
        labels: of the head, in its order.
        rank: the largest rank of the adapter; None: the exact one.

    All modules get the rank of the widest; what is smaller is padded with zeros. α = r, so the
    scale is 1.
    """
    small = factored(model, rank)
    factors = {name: e for name, e in small.entries.items() if isinstance(e, Factored)}
    widest = max([1, *(f.rank for f in factors.values())])
    tensors: dict[str, Tensor] = {}
    for name in sorted(adapted.layers):
        m, n = adapted.shapes[name]
        f = factors.get(name, Factored(torch.zeros(m, 0), torch.zeros(0, n)))
        a, b = torch.zeros(widest, n), torch.zeros(m, widest)
        a[: f.rank], b[:, : f.rank] = f.a, f.b
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION" if adapted.head else "CAUSAL_LM",
        "base_model_name_or_path": hub_id(base_name),
        "r": widest,
        "lora_alpha": widest,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(layer.transposed for layer in adapted.layers.values()),
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
    """Return encoding.json: what begins and ends a text, and how chats are written, for those who
    use the model elsewhere.
    """
    facts = Encoder(adapted.base.tokenizer, adapted.base.max_positions).facts()
    return {"encoding.json": json.dumps(facts, indent=1, ensure_ascii=False).encode()}


def head_files(adapted: AdaptedModel, labels: tuple[str, ...]) -> dict[str, bytes]:
    """The classification head that the adapted model holds now: logits = 10 · head.weight ·
    unit(mean(hidden states)) + head.bias.
    """
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


def save_merged(
    adapted: AdaptedModel,
    model: Update,
    folder: Path,
    labels: tuple[str, ...],
    dtype: torch.dtype | None = None,
) -> None:
    """Write base + `model` as an ordinary transformers folder, in `dtype` or the precision of the
    base's files.

    A classifier's folder has the head in a file of its own and load.py, which applies it. Its
    weights hold one tensor that makes AutoModelForSequenceClassification refuse the folder: that
    class pools otherwise, and would fill in a random head. The pipeline for text classification is
    that of load.py, which transformers runs with trust_remote_code=True only. Afterwards `adapted`
    can only compute with what was written.
    """
    adapted.fold_in(model)
    merged: Any = adapted.model
    for path, layer in adapted.layers.items():
        parent, _, leaf = path.rpartition(".")
        setattr(merged.get_submodule(parent), leaf, _plain(layer))
    _untie(merged)
    merged.to(dtype or adapted.base.stored)
    blocked = _block_sequence_classifier(merged) if adapted.head else None
    if adapted.head:
        merged.config.id2label = dict(enumerate(labels))
        merged.config.label2id = {label: i for i, label in enumerate(labels)}
        pipeline = {
            "impl": "load.HeadPipeline",
            "pt": [_loader(merged)],
        }  # only with trust_remote_code
        merged.config.custom_pipelines = {
            "text-classification": pipeline,
            "sentiment-analysis": pipeline,
        }
    merged.config._name_or_path = ""
    merged.save_pretrained(folder, safe_serialization=True)
    adapted.base.tokenizer.save_pretrained(folder)
    _without_paths(folder / "tokenizer_config.json")
    if adapted.head:
        script = loader_script(_loader(merged))
        for name, data in (head_files(adapted, labels) | {"load.py": script.encode()}).items():
            (folder / name).write_bytes(data)
    else:
        (folder / "encoding.json").write_bytes(encoding_file(adapted)["encoding.json"])
    if blocked is not None:
        delattr(merged, blocked)
    merged.float()
    adapted.path = Chosen(None, "merged")


def _loader(merged: Any) -> str:
    """Return the class of transformers that loads such a model."""
    return (
        "AutoModelForTextEncoding"
        if type(merged).__name__.endswith("EncoderModel")
        else "AutoModel"
    )


def _plain(layer: AdaptedLinear) -> nn.Module:
    """Return an ordinary layer with what an adapted one holds."""
    m, n = layer.weight.shape
    plain: Any
    if layer.transposed:
        from transformers.pytorch_utils import Conv1D

        plain = Conv1D(m, n)
    else:
        plain = nn.Linear(n, m, bias=layer.bias is not None)
    plain.weight = nn.Parameter(layer.weight.T.contiguous() if layer.transposed else layer.weight)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias)
    module: nn.Module = plain.requires_grad_(False)
    return module


def _untie(merged: Any) -> None:
    """Say in the configuration that the output layer is one of its own, where training made it
    so.
    """
    output, words = merged.get_output_embeddings(), merged.get_input_embeddings()
    if (
        output is None
        or output.weight is words.weight
        or output.weight.data_ptr() == words.weight.data_ptr()
    ):
        return
    for config in (merged.config, merged.config.get_text_config()):
        config.tie_word_embeddings = False
    merged.all_tied_weights_keys = {}


def _block_sequence_classifier(merged: Any) -> str | None:
    """Give the model one parameter of a shape that its family's sequence classifier cannot load;
    return the attribute.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            theirs = AutoModelForSequenceClassification.from_config(merged.config)
    except Exception:  # the family has none, so nobody can load one
        return None
    prefix = f"{theirs.base_model_prefix}."
    own = set(merged.state_dict())
    keys = [
        k
        for k in theirs.state_dict()
        if not k.startswith(prefix) and k not in own and k.endswith(".weight")
    ]
    if not keys:
        return None
    *path, leaf = str(keys[-1]).split(".")
    if hasattr(merged, path[0]):
        return None
    module = nn.Module()
    setattr(merged, path[0], module)
    for part in path[1:]:
        inner = nn.Module()
        setattr(module, part, inner)
        module = inner
    setattr(module, leaf, nn.Parameter(torch.zeros(1, dtype=merged.dtype), requires_grad=False))
    return path[0]


def _without_paths(file: Path) -> None:
    """Remove the folder that a tokenizer was read from."""
    if not file.is_file():
        return
    table = json.loads(file.read_text(encoding="utf-8"))
    named = [key for key in ("name_or_path", "tokenizer_file") if key in table]
    for key in named:
        del table[key]
    if named:
        file.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _factors(entry: Factored | Dense, most: int | None) -> Factored:
    """Return the entry as factors of its numerical rank, at most `most`."""
    if isinstance(entry, Factored):
        q_b, r_b = torch.linalg.qr(entry.b.double())
        q_a, r_a = torch.linalg.qr(entry.a.double().T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T)
        b, a = q_b @ (u * s), vh @ q_a.T
    else:
        u, s, a = torch.linalg.svd(entry.value.double(), full_matrices=False)
        b = u * s
    rank = int((s > TOLERANCE * s.max().clamp(min=1e-30)).sum()) if len(s) else 0
    rank = rank if most is None else min(rank, most)
    return Factored(b[:, :rank].float().contiguous(), a[:rank].float().contiguous())
