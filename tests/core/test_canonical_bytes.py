"""Our writer of safetensors gives the library's bytes, and what the library refuses: tensors that
share memory.
"""

from __future__ import annotations

import torch
from safetensors.torch import load, save

from tequio.core.canonical import META_KEY, canonical_json, pack_tensors, unpack_tensors


def test_the_bytes_are_those_of_the_library() -> None:
    torch.manual_seed(0)
    flat = {
        "b#a": torch.randn(3, 5),
        "a": torch.randn(7),
        "z": torch.randn(2, 3).to(torch.float16),
        "codes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 4),
        "one": torch.tensor(2.5),
    }
    meta = {"spec": "é", "n": [1, 2.5]}
    assert pack_tensors(flat, meta) == save(
        flat, metadata={META_KEY: canonical_json(meta).decode()}
    )


def test_views_and_aliases_are_written_as_what_they_show() -> None:
    whole = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    flat = {"x": whole[:, 1:3], "y": whole.T, "same": whole, "again": whole}
    data = pack_tensors(flat, {"k": 1})
    found, meta = unpack_tensors(data, "test")
    assert meta == {"k": 1}
    assert all(torch.equal(found[name], tensor) for name, tensor in flat.items())
    assert set(load(data)) == set(flat)
