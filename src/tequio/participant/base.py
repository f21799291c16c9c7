"""The base model: from a Hugging Face id, a local folder, or a GGUF file.

Weights from safetensors or GGUF only, no remote code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tequio.core.errors import BaseModelError
from tequio.core.texts.words import refusal
from tequio.participant.base_check import (
    Kind,
    check_runs,
    check_weight_files,
    check_whole,
    embedding_rows,
    max_positions,
    model_class,
    prepare_tokenizer,
    read_config,
    text_config,
)
from tequio.participant.base_digest import (
    digest_base,
    digest_before,
    digest_parameters,
    digest_tokenizer,
    exact_dtype,
    is_current,
    of_files,
    stored_dtype,
)
from tequio.participant.base_files import BaseFiles, cannot_load, first_line, resolve, weight_files
from tequio.participant.base_sizes import check_described, described, stored_numbers
from tequio.participant.cpu_attention import use_plain_where_short
from tequio.participant.fused.loss import cells
from tequio.participant.fused.select import against, frozen_output
from tequio.participant.module_names import choose_layers, layer_shape, linear_layers
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.sharding import local, spread
from tequio.planning.memory import ModelShape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Base", "Kind", "best_device", "best_dtype", "load_base", "model_shape"]

PRODUCT_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
PRODUCTS: Mapping[Kind, int] = MappingProxyType(
    {"classification": 16, "causal": 64}
)  # measured: benchmarks/LOG.md


@dataclass(frozen=True)
class Base:
    """A frozen model with its tokenizer.

    `name` is what the federation calls it, `digest` is over its parameters and its tokenizer.

    among: the processes that keep it in shards; of one process: it is whole. notes: what was chosen
        for it, in sentences.
    stored: the precision of its files.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    digest: str
    parameters: int
    dtype: torch.dtype
    max_positions: int
    hidden: int
    device: torch.device
    among: ProcessGroup = ALONE
    notes: tuple[str, ...] = ()
    stored: torch.dtype = torch.float32

    def looking(self) -> AbstractContextManager[Any]:
        """In which it only looks.

        What inference mode gathers of a base in shards could not be trained through afterwards.
        """
        return torch.inference_mode() if self.among.size == 1 else torch.no_grad()


def best_dtype() -> torch.dtype:
    """bfloat16 where the GPU or CPU computes in it, else float32."""
    if best_device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _has_flag("avx512_bf16", "amx_bf16", "bf16") else torch.float32


def _has_flag(*names: str) -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            return bool(set(line.split()) & set(names))
    return False


def best_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_products(kind: Kind) -> None:
    """Set how many prepared matrix products oneDNN keeps, one per shape, unless the environment
    sets it already.

    Texts to classify have many lengths, so that hardly a shape comes again and more products would
    only fill memory. Blocks of
    text have few row counts: the products of a whole step fit, even with adapters on all linear
        layers, and are prepared once.
    oneDNN reads the number when it prepares the first product of the process; after that the call
    is without effect.
    """
    os.environ.setdefault(PRODUCT_CACHE, str(PRODUCTS[kind]))


def load_base(
    name: str,
    kind: Kind,
    dtype: torch.dtype,
    cache: Path,
    among: ProcessGroup = ALONE,
    recorded: str | None = None,
) -> Base:
    """Load `name` (id, folder or .gguf file) frozen, in `dtype`, on the best device; of several
    processes, each keeps its shards.

    These load one after the other, each the whole base in the machine's memory (files that have
    this precision are only mapped) and from there its shards to the device. A GGUF file is
    converted once to safetensors under `cache`. recorded: the digest that a record has of this
    base; where it is of the scheme before the present one, the base gets the digest of that scheme.
    Raises BaseModelError that says what was looked for. Sets how many prepared products the process
    keeps (`keep_products`).
    """
    keep_products(kind)
    mesh = among.mesh() if among.size > 1 else None
    with among.turn():
        base = _load(name, kind, dtype, cache, mesh, recorded)
    _check_numbers(name, base.model, among)
    return replace(base, among=among)


def _load(
    name: str,
    kind: Kind,
    dtype: torch.dtype,
    cache: Path,
    mesh: DeviceMesh | None,
    recorded: str | None,
) -> Base:
    files = resolve(name, cache, rounded=of_files(recorded))
    config = read_config(files)
    auto = model_class(name, config, kind)
    paths = weight_files(files)
    stored = check_weight_files(name, paths)
    check_described(name, described(name, config, auto), stored_numbers(name, paths))
    tokenizer = _tokenizer(files)
    exact = exact_dtype(dtype, stored)
    own = digest_tokenizer(tokenizer, kind) if is_current(recorded) else None
    digest = None if exact == dtype else digest_parameters(_weights(files, auto, exact))
    model = _weights(files, auto, dtype)
    if recorded is not None and of_files(recorded):
        digest = digest_before(files, model, recorded)
    notes = prepare_tokenizer(name, tokenizer, model, kind)
    model.requires_grad_(False)
    digest = digest or digest_parameters(model)
    digest = digest if own is None else digest_base(digest, own)
    parameters, hidden = (
        sum(p.numel() for p in model.parameters()),
        getattr(text_config(config), "hidden_size", 0),
    )
    model.eval()
    if mesh is None:
        model.to(best_device())
        width = check_runs(name, model, tokenizer, kind)
        hidden = hidden if kind == "causal" else width
    else:
        spread(model, mesh)
    use_plain_where_short(model)
    return Base(
        name=name,
        model=model,
        tokenizer=tokenizer,
        digest=digest,
        parameters=parameters,
        dtype=dtype,
        max_positions=max_positions(model, config),
        hidden=int(hidden),
        device=best_device(),
        notes=notes,
        stored=stored_dtype(stored, config),
    )


def _weights(files: BaseFiles, auto: Any, dtype: torch.dtype) -> Any:
    """The model with its weights, none of them made up."""
    settings = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    try:
        model, info = auto.from_pretrained(files.folder, dtype=dtype, **settings)
    except (
        Exception
    ) as error:  # the library raises OSError, ValueError, KeyError, SafetensorError and more
        raise cannot_load(files.name, error) from None
    check_whole(files.name, info["missing_keys"])
    return model


def _tokenizer(files: BaseFiles) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:
        facts = {"name": files.name, "error": type(error).__name__, "message": first_line(error)}
        raise refusal(BaseModelError, "tokenizer-unloadable", **facts) from None


def _check_numbers(name: str, model: nn.Module, among: ProcessGroup) -> None:
    """Refuse numbers that no training survives, in every process alike."""
    named = dict(model.named_parameters())
    bad = torch.stack(
        [(~torch.isfinite(local(tensor.detach()))).any().float() for tensor in named.values()]
    )
    among.add([bad])
    for key, odd in zip(named, bad.tolist(), strict=True):
        if odd:
            raise refusal(BaseModelError, "base-not-finite", name=name, tensor=key)


# those that take a layer's input
FIRST_PRODUCTS = r"\b(query|key|value|q_proj|k_proj|v_proj|qkv_proj|query_key_value|c_attn)$"


def model_shape(
    name: str, kind: Kind, modules: list[str], dtype: torch.dtype, cache: Path
) -> ModelShape:
    """The model's sizes without its weights, for the memory sum.

    Raises BaseModelError as `load_base` does.
    """
    config = read_config(resolve(name, cache))
    auto = model_class(name, config, kind)
    model = described(name, config, auto)
    try:
        return _shape(name, model, config, kind, modules, dtype)
    except (
        AttributeError,
        TypeError,
        ValueError,
    ) as error:  # sizes that are missing, or are no numbers
        raise cannot_load(name, error) from None


def _shape(
    name: str, model: Any, config: Any, kind: Kind, modules: list[str], dtype: torch.dtype
) -> ModelShape:
    """The sizes of a model that was made without weights."""
    text = text_config(config)
    rows = embedding_rows(name, model)
    vocabulary = int(getattr(text, "vocab_size", rows))
    linears = {p: layer_shape(m) for p, m in linear_layers(model).items()}
    chosen = choose_layers(model, modules)
    output = model.get_output_embeddings()
    parts = output is not None and frozen_output(output) and output not in chosen.values()
    own = kind == "causal" and parts and against(config) is None
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        bytes_per_parameter=torch.empty(0, dtype=dtype).element_size(),
        layers=int(getattr(text, "num_hidden_layers", 1)),
        hidden=int(getattr(text, "hidden_size", 0)) or model.get_input_embeddings().weight.shape[1],
        vocabulary=vocabulary,
        adapted=tuple(layer_shape(m) for m in chosen.values()),
        causal=kind == "causal",
        products=sum(m * n for p, (m, n) in linears.items() if not p.startswith("pooler.")),
        first=sum(
            m * n for p, (m, n) in linears.items() if re.search(r"\.0\..*" + FIRST_PRODUCTS, p)
        ),
        loss_cells=cells(vocabulary, best_device()) if own else None,
    )
