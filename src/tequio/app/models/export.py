"""Export the models of a finished run: PEFT adapters, merged models, model cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.app.models.open import Opened, open_models
from tequio.core.errors import RunError
from tequio.ledger.folder import RunFolder
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.export import adapter_files, save_merged


def export_models(
    run: Path, who: str | None, out: Path, merged: bool, emissions: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write one PEFT folder a model into `out` (new or empty folders only), and merged models if asked.

    emissions: for the model card, as `co2_eq_emissions` wants them; None: no card.
    """
    written: list[dict[str, Any]] = []
    active_models: dict[str, AdaptedModel] = {}
    for opened in open_models(run, who):
        name, model, labels = opened.name, opened.model, opened.config.task.label_names()
        if opened.full and not merged:
            why = "This run trained whole weights, and an adapter of them would be larger than the model."
            raise RunError(f"{run} has no adapters.", why, "Use --merged.")
        adapted = active_models.get(opened.base) or opened.adapted()
        active_models = {} if merged else {opened.base: adapted}  # merging uses an adapted model up
        folder = RunFolder(out)
        adapted.fold_in(model)
        written.append({"name": name})
        if not opened.full:
            files = adapter_files(adapted, model, opened.config.base.model, labels)
            if emissions is not None:
                files["README.md"] = card_text(opened, emissions).encode()
            for file, data in files.items():
                folder.write_atomic(f"{name}/adapter/{file}", data)
            size = sum(len(data) for data in files.values())
            written[-1] |= {"adapter": str(out / name / "adapter"), "rank": bytes_rank(files), "bytes": size}
        if merged:
            save_merged(adapted, model, out / name / "merged", labels)
            written[-1]["merged"] = str(out / name / "merged")
    return written


def card_text(opened: Opened, found: Mapping[str, Any]) -> str:
    """A short model card: Hugging Face's fields at the head, carbon in grams where it is known, and how it was made.

    found: the field `co2_eq_emissions`; `emissions` None where it is not known.
    """
    base = opened.config.base
    head = [f"base_model: {json.dumps(base.model)}", "library_name: peft", "tags: [lora, federated-learning, tequio]"]
    if found["emissions"] is not None:
        head.append("co2_eq_emissions:")
        head += [f"  {key}: {json.dumps(value)}" for key, value in found.items()]
    carbon = "not known: not everybody says where its electricity comes from"
    if found["emissions"] is not None:
        carbon = f"about {found['emissions']:.3g} g CO2e ({found['source']})"
    return "\n".join(
        [
            *("---", *head, "---", "", f"# {opened.config.name}: {opened.name}", ""),
            f"An adapter for `{base.model}` (licence as stated: {base.licence}), fine-tuned by a federation of "
            f"{len(opened.config.participants)} with Tequio. Licences of the data: see the run's report.",
            "",
            f"Carbon: {carbon}.",
            "",
        ]
    )


def bytes_rank(files: Mapping[str, bytes]) -> int:
    """The rank that an adapter's configuration states."""
    return int(json.loads(files["adapter_config.json"])["r"])
