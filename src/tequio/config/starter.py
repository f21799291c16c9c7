"""The files that `tequio init` writes: a federation of two to start from."""

import os
import re
from pathlib import Path
from typing import Any, Literal

from tequio.config.templates import write_federation

BASES = {
    "classification": "sentence-transformers/all-MiniLM-L6-v2",
    "causal": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
MODULES = {"classification": ["query", "value"], "causal": ["q_proj", "v_proj"]}


def write_starter(
    folder: Path,
    task: Literal["classification", "causal"],
    base: str | None,
    preset: str | None = None,
) -> tuple[Path, list[Path]]:
    """Write federation.toml and two participants; return the first and all files.

    preset: the method of `[algorithm] preset`; None for the usual pieces. Raises ConfigError if a
        file exists already.
    """
    federation: dict[str, Any] = {
        "name": _name_from(folder),
        "seed": 0,
        "base": {**_base(base, task), "dtype": "auto"},
        "task": {"kind": task, "max_tokens": 128 if task == "classification" else 256},
        "adapter": {"modules": MODULES[task], "ranks": [2, 4, 8, 16]},
        "train": {
            "rounds": 8,
            "local_epochs": 1.0,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "patience": 3,
        },
        "algorithm": {
            **(
                {"preset": preset}
                if preset
                else {"reduce": "stack", "weights": "norm_equalised", "server": "sgd"}
            ),
            **{"upload": "quantise", "upload_settings": {"bits": 4}},
            **{"download": "quantise", "download_settings": {"bits": 4}},
        },
        "equity": {"credit": True},
        "personal": {
            "local_rates": [1e-3, 3e-3],
            "private_rates": [1e-3],
            "private_rank": 8,
            "private_epochs": 2.0,
        },
    }
    if task == "classification":
        federation["task"]["labels"] = {
            "negative": "a complaint: something went wrong",
            "positive": "praise: something went well",
        }
    participants = [
        {
            "name": name,
            "data": {
                "path": f"../data/{name}.jsonl",
                "licence": "private",
                "consent": "describe it here",
            },
            "hardware": {"probe": True, "memory_gib": memory},
        }
        for name, memory in (("north", 8), ("south", 4))
    ]
    path = write_federation(folder, federation, participants)
    return path, [path, *(folder / "participants" / f"{p['name']}.toml" for p in participants)]


def _name_from(folder: Path) -> str:
    """The folder's name with what a name may not hold replaced by hyphens."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name)
    return plain.strip("_.-")[:64] or "federation"


def _base(base: str | None, task: Literal["classification", "causal"]) -> dict[str, str]:
    """Model and licence.

    A folder or file is made absolute: it was named from here, not from the new folder.
    """
    if base is None:
        return {"model": BASES[task], "licence": "Apache-2.0"}
    local = os.path.abspath(os.path.expanduser(base))
    return {"model": local if os.path.exists(local) else base, "licence": "not stated"}
