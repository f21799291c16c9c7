"""Using a run's models: predict, and export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tequio.core.errors import DataError, RunError
from tequio.core.update import Dense, Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.base import load_base
from tequio.participant.bench import HEAD_WEIGHT, Bench
from tequio.participant.data import SUFFIXES, read_texts
from tequio.participant.export import adapter_files, save_merged
from tequio.participant.predict import classify, complete
from tequio.recipes.config import MAIN, Federation
from tequio.recipes.files import HEAD_FILE, SHARED_FILE, config_of, of_base, read_model, recorded_header
from tequio.recipes.kept import last_shared, models_of
from tequio.recipes.paths import cache_folder

SHARED = "shared"


@dataclass(frozen=True)
class Opened:
    """A model of a run, checked against its digest: `config` as for its base alone, `head` as the run started from it."""

    name: str
    base: str
    config: Federation
    model: Update
    head: torch.Tensor | None

    def bench(self, dtype: torch.dtype = torch.float32) -> Bench:
        """Its base on this machine, in float32 unless speed matters more."""
        base = load_base(self.config.base.model, self.config.task.kind, dtype, cache_folder())
        return Bench(base, self.config.adapter.modules, self.config.adapter.scale, self.head, self.full)

    @property
    def full(self) -> bool:
        """Whether whole weights were trained."""
        return self.config.adapter.kind == "full"


def predict_texts(run: Path, who: str, texts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """One row a text: label and probabilities, or the completion. RunError if `who` has no model in this run."""
    opened = open_models(run, who)[0]
    config, bench = opened.config, opened.bench()
    bench.hold(opened.model)
    if config.task.kind == "classification":
        return classify(bench, texts, config.task.label_names(), config.task.max_tokens)
    return complete(bench, texts, max_new_tokens)


def texts_of(file: Path) -> list[str]:
    """The texts of a file: the column `text` of a table, or the lines of a plain file. Raises DataError."""
    texts = read_texts(file)
    if not texts:
        raise DataError(f"{file} has no text.", f"Expected lines, or a column 'text' in one of {', '.join(SUFFIXES)}.")
    return texts


def export_models(
    run: Path, who: str | None, out: Path, merged: bool, emissions: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write one PEFT folder a model into `out` (new or empty folders only), and merged models if asked.

    emissions: for the model card, as `co2_eq_emissions` wants them; None: no card.
    """
    written: list[dict[str, Any]] = []
    benches: dict[str, Bench] = {}
    for opened in open_models(run, who):
        name, model, labels = opened.name, opened.model, opened.config.task.label_names()
        if opened.full and not merged:
            why = "This run trained whole weights, and an adapter of them would be larger than the model."
            raise RunError(f"{run} has no adapters.", why, "Use --merged.")
        bench = benches.get(opened.base) or opened.bench()
        benches = {} if merged else {opened.base: bench}  # merging uses a bench up
        folder = RunFolder(out)
        bench.hold(model)
        written.append({"name": name})
        if not opened.full:
            files = adapter_files(bench, model, opened.config.base.model, labels)
            if emissions is not None:
                files["README.md"] = card_text(opened, emissions).encode()
            for file, data in files.items():
                folder.write_atomic(f"{name}/adapter/{file}", data)
            size = sum(len(data) for data in files.values())
            written[-1] |= {"adapter": str(out / name / "adapter"), "rank": bytes_rank(files), "bytes": size}
        if merged:
            save_merged(bench, model, out / name / "merged", labels)
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


def open_models(run: Path, who: str | None) -> list[Opened]:
    """The model asked for, or all, those of one base together; each checked against its digest in the ledger."""
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
        rows = [e.body for e in ledger.entries("personal")]
        personal = {row["name"]: next(iter(models_of("personal", row).items()), None) for row in rows}
        shared, last = ledger.last("shared"), last_shared(ledger)
    config = config_of(header, folder.ledger_path)
    bases = {entry.name: entry.base for entry in config.participants}
    known = {n: (bases[n], *found) for n, found in personal.items() if found is not None}
    if last is not None:
        known[SHARED] = (MAIN, last[0], str(last[1]["digest"]))
    if shared is not None:
        for base, body in shared.body.get("bases", {}).items():
            known[shared_of(base)] = (base, of_base(base, SHARED_FILE), body["digest"])
    wanted = sorted(known, key=lambda n: config.base_names().index(known[n][0])) if who is None else [who]
    for name in wanted:
        if name not in known:
            these = ", ".join(known) or "none yet: the run has not come that far"
            raise RunError(f"{run} has no model of {name!r}.", f"It has: {these}.", "Name one of these.")
    out = []
    for name in wanted:
        base, path, digest = known[name]
        head_digest = header["head_digest"] if base == MAIN else header["bases"][base]["head_digest"]
        start = read_model(folder, of_base(base, HEAD_FILE), head_digest).entries.get(HEAD_WEIGHT)
        head = start.value if isinstance(start, Dense) else None
        out.append(Opened(name, base, config.part(base), read_model(folder, path, digest), head))
    return out


def shared_of(base: str) -> str:
    """What the shared model of a base is called."""
    return SHARED if base == MAIN else f"{SHARED}-{base}"


def members(run: Path) -> set[str]:
    """Names on the roster, of all bases."""
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
    return {row["name"] for row in header["config"]["participants"]}
