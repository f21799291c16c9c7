"""Find the files of a base: a folder, a Hugging Face id in the hub's cache, or a converted GGUF
file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tequio.core.canonical import digest_json
from tequio.core.errors import BaseModelError
from tequio.core.files import check_regular, digest_file, open_regular, read_regular
from tequio.core.texts.words import refusal

WEIGHTS = ("*.safetensors", "*.gguf")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]  # configuration and tokenizer
LARGEST, LARGE, TEMPLATE = (
    1 << 28,
    1 << 24,
    1 << 20,
)  # bytes: of a vocabulary, of another small file, of a template
LARGE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
TEMPLATES = "additional_chat_templates/*.jinja"
UNQUANTISED = ("F32", "F16", "BF16", "F64")
LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class BaseFiles:
    """Name the folder that holds a base, and say where it came from."""

    name: str
    folder: Path
    source: Literal["hub", "folder", "gguf"]


def cannot_load(name: str, error: Exception) -> BaseModelError:
    """Return the one error for a base that cannot be read, whatever library raised `error`."""
    facts = {"name": name, "error": type(error).__name__, "message": first_line(error).rstrip(".")}
    return refusal(BaseModelError, "base-unloadable", **facts)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 200 characters."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def resolve(name: str, cache: Path, rounded: bool = False) -> BaseFiles:
    """Return the folder of a base, with its configuration and tokenizer in place.

    Args:
        name: a folder, a .gguf file or a Hugging Face id.
        cache: where a converted GGUF file is stored.
        rounded: convert an unquantised GGUF file to bfloat16, as versions before 0.2 did.
    Raises:
        BaseModelError: nothing usable is there, or a file is of another kind or larger than such a
        file can be.
    """
    files = _find(name, cache, rounded)
    check_files(files)
    return files


def _find(name: str, cache: Path, rounded: bool) -> BaseFiles:
    """Return the folder of a base."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    local = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not local.is_file():
            raise refusal(BaseModelError, "base-file-missing", path=local)
        return BaseFiles(name, _convert_gguf(local, cache, rounded), "gguf")
    if local.is_dir():
        if (
            not any(next(local.glob(pattern), None) for pattern in WEIGHTS)
            and not (local / INDEX).is_file()
        ):
            raise refusal(BaseModelError, "no-safetensors", name=local)
        return BaseFiles(name, local, "folder")
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise refusal(BaseModelError, "base-folder-missing", path=local)
    return BaseFiles(name, _snapshot(name), "hub")


def base_file_paths(folder: Path) -> list[Path]:
    """Return the files of a base's folder that can be read, in order of their names."""
    return sorted(
        {path for pattern in (*SMALL, WEIGHTS[0], TEMPLATES) for path in folder.glob(pattern)}
    )


def check_files(files: BaseFiles) -> None:
    """Raise BaseModelError for a file that is no ordinary one, or larger than such a file can be.

    The base may have been chosen by somebody else: a named pipe would let its reader wait for ever.
    """
    for path in base_file_paths(files.folder):
        small = (
            LARGE if path.name in LARGE_FILES else TEMPLATE if path.suffix == ".jinja" else LARGEST
        )
        try:
            check_regular(path, None if path.suffix == ".safetensors" else small)
        except OSError as error:
            raise refusal(
                BaseModelError, "base-file-unreadable", path=path, error=error.strerror
            ) from None


def digest_base_files(path: Path) -> str:
    """Return the SHA-256 of a GGUF file, or that over name and content of each file of a folder
    that can be read.

    Raises OSError for a file that cannot be read or is no ordinary one.
    """
    if not path.is_dir():
        return digest_file(path)
    found = base_file_paths(path)
    return digest_json([[str(file.relative_to(path)), digest_file(file)] for file in found])


def _snapshot(name: str) -> Path:
    """Return the hub's cached folder of `name`, with its small files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(name, allow_patterns=SMALL, ignore_patterns=["*/*"]))
    except Exception as error:  # no network, no such id, a gated model, a bad name
        raise cannot_load(name, error) from None


def weight_files(files: BaseFiles) -> list[Path]:
    """Return the weight files that transformers reads, all present; those of a hub id are
    downloaded.

    Raises BaseModelError that names what is missing.
    """
    folder = files.folder
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return [_present(files, shard) for shard in _shards(files.name, folder / INDEX)]
    if files.source == "hub":
        return [
            _download(files, SINGLE, refusal(BaseModelError, "no-safetensors", name=files.name))
        ]
    raise refusal(BaseModelError, "no-safetensors", name=folder)


def _shards(name: str, index: Path) -> list[str]:
    try:
        found = json.loads(read_regular(index, LARGEST))["weight_map"]
        return sorted({Path(str(shard)).name for shard in found.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise refusal(BaseModelError, "base-file-damaged", name=name, file=index.name) from None


def _present(files: BaseFiles, shard: str) -> Path:
    """Return one shard; download it where the base is a hub id."""
    path = files.folder / shard
    if path.exists():
        return path
    missing = refusal(BaseModelError, "shard-missing", name=files.name, file=shard)
    if files.source != "hub":
        raise missing
    return _download(files, shard, missing)


def _download(files: BaseFiles, file: str, missing: BaseModelError) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(files.name, file, revision=files.folder.name))
    except LocalEntryNotFoundError as error:
        raise cannot_load(files.name, error) from None
    except EntryNotFoundError:
        raise missing from None
    except Exception as error:
        raise cannot_load(files.name, error) from None


def _convert_gguf(file: Path, cache: Path, rounded: bool) -> Path:
    """Convert a GGUF file to safetensors once, keyed by its content.

    A file without quantised tensors is converted without loss, so that it is the same base as the
    safetensors that it was made of. Quantised tensors become bfloat16.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise refusal(BaseModelError, "gguf-package", file=file.name) from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stem = f"{file.stem}-{digest_file(file)[:16]}"
    try:
        lossless = not rounded and all(
            t.tensor_type.name in UNQUANTISED for t in GGUFReader(str(file)).tensors
        )
        target = cache / "gguf" / (f"{stem}-lossless" if lossless else stem)
        if (target / "config.json").is_file():
            return target
        dtype = torch.float32 if lossless else torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:  # any of the reader's errors means the same: not a usable GGUF
        facts = {"file": str(file), "error": type(error).__name__, "message": first_line(error)}
        raise refusal(BaseModelError, "gguf-unreadable", **facts) from None
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    if lossless and (narrow := _narrowest(model)) is not None:
        model.to(narrow)
    staging = target.with_name(f"{target.name}.{os.getpid()}.part")
    model.save_pretrained(staging, safe_serialization=True)
    tokenizer.save_pretrained(staging)
    if not target.exists():
        staging.rename(target)
    return target


def _narrowest(model: Any) -> torch.dtype | None:
    """Return the 16-bit type that holds every parameter exactly, or None."""
    for dtype in NARROW:
        if all(bool((p.to(dtype).float() == p).all()) for p in model.parameters()):
            return dtype
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON table, empty where there is none that can be read."""
    try:
        found = json.loads(read_regular(path, LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_header(name: str, path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and how many bytes follow it."""
    try:
        size = path.stat().st_size
        with open_regular(path) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST_HEADER):
                raise refusal(BaseModelError, "base-file-damaged", name=name, file=path.name)
            header = json.loads(stream.read(length))
    except OSError as error:
        raise refusal(
            BaseModelError, "base-file-unreadable", path=path, error=error.strerror
        ) from None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise refusal(BaseModelError, "base-file-damaged", name=name, file=path.name)
    return header, size - 8 - length
