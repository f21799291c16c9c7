"""The base model: from a Hugging Face id, a local folder, or a GGUF file. Weights from safetensors or GGUF only, no remote code."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from tequio.core.errors import BaseModelError
from tequio.participant.cpu_attention import use_plain_where_short
from tequio.participant.fused.loss import cells
from tequio.participant.fused.select import against, frozen_output
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.sharding import local, spread
from tequio.planning.memory import ModelShape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Kind = Literal["classification", "causal"]
WEIGHTS = ("*.safetensors", "*.gguf")
PRODUCT_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
PRODUCTS: Mapping[Kind, int] = MappingProxyType(
    {"classification": 16, "causal": 64}
)  # by measurement: benchmarks/LOG.md


@dataclass(frozen=True)
class Base:
    """A frozen model with its tokenizer. `name` is what the federation calls it, `digest` SHA-256 over its weight files.

    among: the processes that keep it in shards; of one process: it is whole.
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

    def looking(self) -> AbstractContextManager[Any]:
        """In which it only looks. What inference mode gathers of a base in shards could not be trained through afterwards."""
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
    """Set how many prepared matrix products oneDNN keeps, one per shape, unless the environment sets it already.

    Texts to classify have many lengths, so that hardly a shape comes again and more products would only fill memory. Blocks of
    text have few row counts: the products of a whole step fit, even with adapters on all linear layers, and are prepared once.
    oneDNN reads the number when it prepares the first product of the process; after that the call is without effect.
    """
    os.environ.setdefault(PRODUCT_CACHE, str(PRODUCTS[kind]))


def load_base(name: str, kind: Kind, dtype: torch.dtype, cache: Path, among: ProcessGroup = ALONE) -> Base:
    """Load `name` (id, folder or .gguf file) frozen, in `dtype`, on the best device; of several processes, each keeps its shards.

    These load one after the other, each the whole base in the machine's memory (files that have this precision are only mapped) and from
    there its shards to the device. A GGUF file is converted once to safetensors under `cache`. Raises BaseModelError that says what was
    looked for. Sets how many prepared products the process keeps (`keep_products`).
    """
    keep_products(kind)
    mesh = among.mesh() if among.size > 1 else None
    with among.turn():
        base = _load(name, kind, dtype, cache, mesh)
    _check_numbers(name, base.model, among)
    return replace(base, among=among)


def _load(name: str, kind: Kind, dtype: torch.dtype, cache: Path, mesh: DeviceMesh | None) -> Base:
    folder = _resolve(name, cache)
    auto, from_pretrained = _auto(kind), {"trust_remote_code": False, "use_safetensors": True}
    from transformers import AutoTokenizer

    try:
        model, info = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True, **from_pretrained)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises OSError, ValueError, KeyError, SafetensorError and more
        raise _cannot_load(name, error) from None
    _check_whole(name, info["missing_keys"])
    device = best_device()
    model.requires_grad_(False)
    digest, parameters = _digest_weights(folder, model), sum(p.numel() for p in model.parameters())
    model.eval()
    if mesh is None:
        model.to(device)
    else:
        spread(model, mesh)
    use_plain_where_short(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    config = model.config
    return Base(
        name=name,
        model=model,
        tokenizer=tokenizer,
        digest=digest,
        parameters=parameters,
        dtype=dtype,
        max_positions=int(getattr(config, "max_position_embeddings", None) or 1_000_000),
        hidden=int(config.hidden_size),
        device=device,
    )


def _check_whole(name: str, missing: Iterable[str]) -> None:
    """Refuse weights that the library would have filled in at random."""
    absent = sorted(key for key in missing if not key.startswith("pooler."))  # a pooler is not used
    if absent:
        why = f"They lack {len(absent)} tensors that the architecture needs, {absent[0]} for one."
        raise BaseModelError(f"[base] model = {name!r}: its weights are incomplete.", why, "Download the model again.")


def _check_numbers(name: str, model: nn.Module, among: ProcessGroup) -> None:
    """Refuse numbers that no training survives, in every process alike."""
    named = dict(model.named_parameters())
    bad = torch.stack([(~torch.isfinite(local(tensor.detach()))).any().float() for tensor in named.values()])
    among.add([bad])
    for key, odd in zip(named, bad.tolist(), strict=True):
        if odd:
            why = f"Tensor {key} holds NaN or infinite numbers."
            raise BaseModelError(f"[base] model = {name!r} is damaged.", why, "Download the model again.")


FIRST_PRODUCTS = (
    r"\b(query|key|value|q_proj|k_proj|v_proj|qkv_proj|query_key_value|c_attn)$"  # those that take a layer's input
)


def model_shape(name: str, kind: Kind, modules: list[str], dtype: torch.dtype, cache: Path) -> ModelShape:
    """The model's sizes without its weights, for the memory sum. Raises BaseModelError as `load_base` does."""
    from transformers import AutoConfig

    folder = _resolve(name, cache)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = _auto(kind).from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _cannot_load(name, error) from None
    linears = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.Linear)]
    chosen = {p: m for p, m in linears if p in modules or p.rsplit(".", 1)[-1] in modules}
    output = model.get_output_embeddings()
    parts = output is not None and frozen_output(output) and output not in chosen.values()
    own = kind == "causal" and parts and against(config) is None
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        bytes_per_parameter=torch.empty(0, dtype=dtype).element_size(),
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        adapted=tuple((m.out_features, m.in_features) for m in chosen.values()),
        causal=kind == "causal",
        products=sum(m.in_features * m.out_features for p, m in linears if not p.startswith("pooler.")),
        first=sum(m.in_features * m.out_features for p, m in linears if re.search(r"\.0\..*" + FIRST_PRODUCTS, p)),
        loss_cells=cells(int(config.vocab_size), best_device()) if own else None,
    )


def _cannot_load(name: str, error: Exception) -> BaseModelError:
    return BaseModelError(
        f"[base] model = {name!r} cannot be loaded ({type(error).__name__}: {_first_line(error)}).",
        "Expected a Hugging Face id, a folder with config.json, tokenizer and *.safetensors, or a .gguf file.",
        "Check the name; without a network, download the model first and give its folder.",
    )


def _auto(kind: Kind) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if kind == "causal" else AutoModel


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _resolve(name: str, cache: Path) -> str:
    """A folder or hub id that transformers can load; a GGUF file becomes a cached folder."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    local = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not local.is_file():
            raise BaseModelError(f"[base] model: there is no file {local}.", "", "Give the path of a .gguf file.")
        return str(_convert_gguf(local, cache))
    if local.is_dir():
        if not any(next(local.glob(pattern), None) for pattern in WEIGHTS):
            raise BaseModelError(
                f"[base] model: the folder {local} has no *.safetensors.",
                "Other weight formats can hide code and are not read.",
                "Convert the model to safetensors first.",
            )
        return str(local)
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise BaseModelError(f"[base] model: there is no folder {local}.", "", "Give a folder, a .gguf or an id.")
    return name


def _convert_gguf(file: Path, cache: Path) -> Path:
    """Dequantise a GGUF file to bfloat16 safetensors once, keyed by its content."""
    target = cache / "gguf" / f"{file.stem}-{_digest_file(file)[:16]}"
    if (target / "config.json").is_file():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError:
        fix = 'Install it with: pip install "tequio[gguf]"'
        raise BaseModelError(f"{file.name} is a GGUF file,", "which needs the package gguf.", fix) from None
    try:
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:  # any of the reader's errors means the same: not a usable GGUF
        why = f"It could not be read as GGUF ({type(error).__name__}: {_first_line(error)})."
        raise BaseModelError(f"[base] model: {file}.", why, "Check the download.") from None
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    staging = target.with_name(f"{target.name}.{os.getpid()}.part")
    model.save_pretrained(staging, safe_serialization=True)
    tokenizer.save_pretrained(staging)
    if not target.exists():
        staging.rename(target)
    return target


def _digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_weights(folder: str, model: nn.Module) -> str:
    """SHA-256 over the weight files of a folder, or over the tensors where the model came from the hub's cache."""
    sha = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    if files:
        for file in files:
            sha.update(_digest_file(file).encode())
        return sha.hexdigest()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().to(torch.float32).cpu().numpy().tobytes())
    return sha.hexdigest()
