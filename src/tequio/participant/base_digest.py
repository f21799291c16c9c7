"""The digest of a base: over its parameters by name and its tokenizer, whatever files they came
from.

The digest is `base:` and the SHA-256 over (name, shape, values as float32) and over what the
tokenizer does (ADR 12). It is the same for a hub id, a folder, one file or shards, and for float32,
float16 and bfloat16 files of equal values. Records written before have `tensors:`, over the
parameters alone; those written before that, the digest of the files (or of the loaded tensors, for
a hub id) without a prefix.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tequio.core.canonical import canonical_json, digest_json
from tequio.core.files import digest_file
from tequio.participant.base_check import Kind
from tequio.participant.base_files import BaseFiles

SCHEME, TENSORS = "base:", "tensors:"
SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
LINES, BATCH = 256, 64  # tokens' texts in one, and how many such are encoded at a time
SAMPLES = (
    "",
    " ",
    "Hello, world!  Two  spaces,\ta tab,\r\na line end.\n\n",
    " leading and trailing ",
    "It's 3.14159, 2026-11-30, 12,345,678 or 007; 50% & #7 @you (a[b]{c}) <d> \"e\" 'f' `g` "
    "~h^i_j|k\\l/m",
    "don't can't we'll I'm DON'T",
    "Año, café, naïve, Straße, Çığ, Łódź; cafe\u0301 nai\u0308ve",
    "Ñandú ÁÉÍÓÚ áéíóú ¿qué? ¡sí! «cita» “quote” ‘x’ – — …",
    "Привет, мир. Γειά σου. שלום مرحبا नमस्ते สวัสดี 你好,世界 こんにちは 안녕하세요 \u200bzero\u00a0width",
    "👩‍⚕️🙂🇪🇸 ½ ² ﬁ Ⅳ ＡＢＣ \x01\x7f",
    "def f(x):\n    return x**2  # camelCase snake_case HTTPServer v1.2.3-rc\n\n\n",
    "<s></s><|endoftext|><|im_start|>user<|im_end|>[CLS][SEP][INST]<unk>",
    "a" * 40 + "0" * 40 + " " * 40 + "\n" * 5,
)
CHUNK = 1 << 22  # numbers converted at a time
UNUSED = ("pooler.",)  # parts that no task of Tequio reads
EXACT = {"BF16", "F8_E4M3", "F8_E5M2"}  # what bfloat16 holds without rounding


def is_current(digest: str | None) -> bool:
    """Return whether a recorded digest is of the present scheme; None counts as such."""
    return digest is None or digest.startswith(SCHEME)


def of_files(digest: str | None) -> bool:
    """Return whether a recorded digest is of the oldest scheme, which had no prefix."""
    return not is_current(digest) and not str(digest).startswith(TENSORS)


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
    return TENSORS + sha.hexdigest()


def digest_base(parameters: str, tokenizer: str) -> str:
    """Return the digest of a base from those of its parameters and its tokenizer."""
    return SCHEME + digest_json([parameters, tokenizer])


def digest_tokenizer(tokenizer: Any, kind: Kind) -> str:
    """Return a digest of what a tokenizer makes of texts: the same for files that say the same in
    another way.

    It covers the vocabulary, the special tokens, the ids of `SAMPLES` and of each token's own text,
    in small and capital letters, and for a causal task the chat template. tokenizer: as its files
    have it.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda row: (row[1], row[0]))
    special = {name: getattr(tokenizer, f"{name}_id", None) for name in SPECIAL}
    template = tokenizer.chat_template if kind == "causal" else None
    sha = hashlib.sha256(canonical_json([vocabulary, special, template]))
    for whole in (True, False):
        _add_ids(sha, tokenizer, SAMPLES, whole)
    own = [_text(token) for token, _ in vocabulary]
    texts = own + [text.swapcase() for text in own]
    lines = ["\n".join(texts[first : first + LINES]) for first in range(0, len(texts), LINES)]
    for first in range(0, len(lines), BATCH):
        _add_ids(sha, tokenizer, lines[first : first + BATCH], False)
    return sha.hexdigest()


def _add_ids(sha: Any, tokenizer: Any, texts: Sequence[str], special: bool) -> None:
    found = tokenizer(
        list(texts), add_special_tokens=special, padding=False, truncation=False, verbose=False
    )
    for ids in found["input_ids"]:
        sha.update(np.array([len(ids), *ids], "<i8").tobytes())


def _text(token: str) -> str:
    """Return about what a token stands for: the signs of the usual tokenizers for a space
    become one.
    """
    return token.removeprefix("##").replace("\u0120", " ").replace("\u2581", " ")


def _digest_values(tensor: Tensor) -> str:
    sha, flat = hashlib.sha256(), tensor.reshape(-1)
    for first in range(0, len(flat), CHUNK):
        sha.update(flat[first : first + CHUNK].to(torch.float32).cpu().numpy().tobytes())
    return sha.hexdigest()


def exact_dtype(wanted: torch.dtype, stored: set[str]) -> torch.dtype:
    """Return the precision in which files with `stored` types load without rounding;

    `wanted` if it is one.
    """
    if wanted == torch.float32 or stored <= EXACT:
        return wanted
    return torch.float16 if stored == {"F16"} else torch.float32


def stored_dtype(stored: set[str], config: Any) -> torch.dtype:
    """Return the precision of a base's files; where they mix several, the one that its
    configuration states.
    """
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    found = {known[name] for name in stored if name in known}
    if len(found) == 1:
        return found.pop()
    named: torch.dtype | None = getattr(config, "dtype", None)
    return named if named is not None and named in known.values() else torch.float32


def digest_before(files: BaseFiles, model: Any, recorded: str) -> str:
    """Return the digest as versions before computed it that had no prefix.

    For a hub id it depended on the precision in which the base was loaded: both are tried, and the
    one that equals `recorded` is returned.
    """
    paths = sorted(files.folder.glob("*.safetensors")) if files.source != "hub" else []
    if paths:
        sha = hashlib.sha256()
        for path in paths:
            sha.update(digest_file(path).encode())
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
