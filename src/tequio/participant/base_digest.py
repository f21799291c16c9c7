"""The digest of a base: over its parameters by name, whatever files they came from.

The digest is `tensors:` and the SHA-256 over (name, shape, values as float32). It is the same for a hub
id, a folder, one file or shards, and for float32, float16 and bfloat16 files of equal values. Records
written before have the digest of the files (or of the loaded tensors, for a hub id) without a prefix.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tequio.core.canonical import canonical_json
from tequio.participant.base_files import BaseFiles

SCHEME = "tensors:"
CHUNK = 1 << 22  # numbers converted at a time
UNUSED = ("pooler.",)  # parts that no task of Tequio reads
EXACT = {"BF16", "F8_E4M3", "F8_E5M2"}  # what bfloat16 holds without rounding


def is_current(digest: str | None) -> bool:
    """Return whether a recorded digest is of the present scheme; None counts as such."""
    return digest is None or digest.startswith(SCHEME)


def digest_parameters(model: nn.Module) -> str:
    """Return the digest of a model whose parameters are as the files have them, not rounded."""
    found: dict[int, str] = {}
    sha = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters(remove_duplicate=False)):
        if name.startswith(UNUSED):
            continue
        key = id(tensor)
        if key not in found:
            found[key] = _digest_values(tensor.detach())
        sha.update(canonical_json([name, list(tensor.shape), found[key]]))
    return SCHEME + sha.hexdigest()


def _digest_values(tensor: Tensor) -> str:
    sha, flat = hashlib.sha256(), tensor.reshape(-1)
    for first in range(0, len(flat), CHUNK):
        sha.update(flat[first : first + CHUNK].to(torch.float32).cpu().numpy().tobytes())
    return sha.hexdigest()


def exact_dtype(wanted: torch.dtype, stored: set[str]) -> torch.dtype:
    """Return the precision in which files with `stored` types load without rounding; `wanted` if it is one."""
    if wanted == torch.float32 or stored <= EXACT:
        return wanted
    return torch.float16 if stored == {"F16"} else torch.float32


def stored_dtype(stored: set[str], config: Any) -> torch.dtype:
    """Return the precision of a base's files; where they mix several, the one that its configuration states."""
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    found = {known[name] for name in stored if name in known}
    if len(found) == 1:
        return found.pop()
    named: torch.dtype | None = getattr(config, "dtype", None)
    return named if named is not None and named in known.values() else torch.float32


def digest_before(files: BaseFiles, model: Any, recorded: str) -> str:
    """Return the digest as versions before the present scheme computed it.

    For a hub id it depended on the precision in which the base was loaded: both are tried, and the one
    that equals `recorded` is returned.
    """
    paths = sorted(files.folder.glob("*.safetensors")) if files.source != "hub" else []
    if paths:
        sha = hashlib.sha256()
        for path in paths:
            sha.update(_digest_file(path).encode())
        return sha.hexdigest()
    state = sorted(model.state_dict().items())
    first = _digest_state(state, None)
    if first == recorded:
        return first
    rounded = _digest_state(state, torch.bfloat16)
    return rounded if rounded == recorded else first


def _digest_state(state: list[tuple[str, Tensor]], through: torch.dtype | None) -> str:
    sha = hashlib.sha256()
    for name, tensor in state:
        sha.update(name.encode())
        value = tensor.detach() if through is None else tensor.detach().to(through)
        sha.update(value.to(torch.float32).cpu().numpy().tobytes())
    return sha.hexdigest()


def _digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
