"""Choose the linear layers of a base that [adapter] modules names: by name, or by the words
"attention" and "all".
"""

import difflib
import re
from typing import Any

from torch import nn

from tequio.core.errors import BaseModelError
from tequio.core.texts.words import refusal

ATTENTION, ALL = "attention", "all"
IN_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
ROUTERS = ("gate", "router", "shared_expert_gate", "classifier")  # they choose experts
MAMBA = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
EXPERTS = (
    "gate_proj",
    "up_proj",
    "down_proj",
    "w1",
    "w2",
    "w3",
)  # peft takes these names for fused experts
SAME = (  # what families call the same layer
    {
        "q_proj",
        "query",
        "q_lin",
        "q",
        "query_proj",
        "in_proj",
        "c_attn",
        "query_key_value",
        "Wqkv",
        "qkv_proj",
    },
    {"k_proj", "key", "k_lin", "k", "key_proj", "c_attn", "query_key_value", "Wqkv", "qkv_proj"},
    {
        "v_proj",
        "value",
        "v_lin",
        "v",
        "value_proj",
        "c_attn",
        "query_key_value",
        "Wqkv",
        "qkv_proj",
    },
    {"o_proj", "out_lin", "o", "out_proj", "dense", "c_proj", "Wo"},
    {
        "up_proj",
        "fc1",
        "c_fc",
        "dense_h_to_4h",
        "lin1",
        "wi",
        "Wi",
        "ffn",
        "fc_in",
        "gate_up_proj",
        "wi_0",
    },
    {
        "down_proj",
        "fc2",
        "c_proj",
        "dense_4h_to_h",
        "lin2",
        "wo",
        "Wo",
        "ffn_output",
        "fc_out",
        "dense",
    },
)


def is_transposed(module: nn.Module) -> bool:
    """Return whether a layer is transformers' Conv1D: linear, with its weight stored as (in × out),
    as in GPT-2.
    """
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a model by path."""
    return {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear) or is_transposed(m)}


def layer_shape(module: Any) -> tuple[int, int]:
    """Return (out × in) of a linear layer."""
    rows, columns = module.weight.shape
    return (int(columns), int(rows)) if is_transposed(module) else (int(rows), int(columns))


def choose_layers(model: Any, names: list[str]) -> dict[str, nn.Module]:
    """Return the layers that `names` chooses, by path, sorted.

    Args:
        model: a transformers model.
        names: whole paths, last parts of paths, or "attention" and "all". Of a multimodal base only
            the
            text part is searched, except for whole paths. "all" leaves out the output layer.
    Raises:
        BaseModelError: a name chooses nothing; the error lists the layers and the nearest name.
    """
    linears = linear_layers(model)
    text = _text_part(model, linears)
    chosen: dict[str, nn.Module] = {}
    missing = []
    for name in names:
        found = {p: m for p, m in linears.items() if p == name or (p in text and _leaf(p) == name)}
        if not found and name in (ATTENTION, ALL):
            found = _by_word(model, text, name)
        if not found:
            missing.append(name)
        chosen |= found
    if missing or not chosen:
        raise _not_there(missing, sorted({_leaf(path) for path in text}))
    if odd := sorted({_leaf(path) for path in chosen} & _unloadable(model)):
        raise refusal(
            BaseModelError, "modules-unloadable", names=odd, family=model.config.model_type
        )
    return dict(sorted(chosen.items()))


def _not_there(missing: list[str], have: list[str]) -> BaseModelError:
    near = [found for name in missing if (found := _nearest(name, have))]
    return refusal(
        BaseModelError, "modules-unknown", missing=missing, names=have, nearest=near or None
    )


def _nearest(name: str, have: list[str]) -> str | None:
    leaf = _leaf(name)
    for group in SAME:
        same = [h for h in have if h in group]
        if leaf in group and same:
            return same[0]
    close = difflib.get_close_matches(leaf.lower(), [h.lower() for h in have], 1, 0.5)
    return next((h for h in have if close and h.lower() == close[0]), None)


def _by_word(model: Any, text: dict[str, nn.Module], word: str) -> dict[str, nn.Module]:
    """Return the layers of attention, or all but output layer, pooler and routers."""
    output = model.get_output_embeddings()
    body = {p: m for p, m in text.items() if m is not output and _leaf(p) != "lm_head"}
    body = {
        p: m for p, m in body.items() if _leaf(p) not in ROUTERS and "pooler" not in p.split(".")
    }
    body = {p: m for p, m in body.items() if _leaf(p) not in _unloadable(model)}
    if word == ALL:
        return body
    return {
        p: m
        for p, m in body.items()
        if any(IN_ATTENTION.search(part) for part in p.split(".")[:-1])
    }


def _unloadable(model: Any) -> set[str]:
    """Return names of layers whose adapters peft refuses (Mamba), or takes for those of fused
    experts.
    """
    odd = {"out_proj"} if model.config.model_type in MAMBA else set()
    if any(p.dim() == 3 and ".experts." in f".{name}." for name, p in model.named_parameters()):
        odd |= set(EXPERTS)
    return odd


def _text_part(model: Any, linears: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the linear layers of the text model and the output layer; of most bases these are
    all.
    """
    config: Any = model.config
    text: Any = config if config.is_encoder_decoder else config.get_text_config()
    if text is config:
        return linears
    parts = [
        path
        for path, module in model.named_modules()
        if path and getattr(getattr(module, "config", None), "model_type", None) == text.model_type
    ]
    output = model.get_output_embeddings()
    roots = tuple(f"{path}." for path in parts)
    return (
        {p: m for p, m in linears.items() if p.startswith(roots) or m is output}
        if roots
        else linears
    )


def _leaf(path: str) -> str:
    return path.rsplit(".", 1)[-1]
