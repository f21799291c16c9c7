"""Writes configuration.md, commands.md and errors.md from the code, so that they cannot fall behind it: `python docs/generate.py`.

Types, defaults and limits come from the pydantic models, commands from typer, errors from the tree; only what a key means is written here.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from tequio.cli.main import app
from tequio.core import errors
from tequio.recipes.config import Federation, ParticipantFile


def flat(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from flat(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS: Mapping[str, Any] = dict(flat(typer.main.get_command(app)))
DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by `python docs/generate.py` from {source}. Do not edit by hand. -->\n"

# key -> (unit, meaning); the rest of a row comes from the model
FEDERATION: Mapping[str, tuple[str, str]] = {
    "name": ("", "Names the run, and its default folder `runs/NAME-SEED`."),
    "seed": (
        "",
        "Every random stream is derived from it. Same seed, same machine type: same result, to the bit "
        "(unless a probed speed changes an allotment).",
    ),
    "base.model": (
        "",
        "Hugging Face id, a folder with `config.json`, tokenizer and `*.safetensors`, or a `.gguf` file.",
    ),
    "base.licence": ("", "Repeated in ledger and report as declared. Nobody checks it for you."),
    "base.dtype": (
        "",
        "Precision of the frozen base. `auto`: bfloat16 where the GPU or CPU computes in it, else float32. "
        "What is trained is always float32.",
    ),
    "task.kind": ("", "`classification`: text to label. `causal`: language model."),
    "task.labels": (
        "",
        "Classification only, two or more. As a table, label = description: the embedding of the description starts the "
        "head, and labels are sorted. As a list: the head starts at zero, labels in the order given.",
    ),
    "task.max_tokens": (
        "tokens",
        "Longer texts are cut (and counted). Causal documents without a prompt are joined and cut into blocks of this length.",
    ),
    "adapter.modules": (
        "",
        "Linear layers that get an adapter, by the last part of their name (`query`) or in full.",
    ),
    "adapter.ranks": ("", "The ladder. Each participant gets the largest that its hardware finishes in time."),
    "adapter.kind": (
        "",
        "`lora` trains factors of the named layers; `full` trains their whole weights (continued pre-training; with `stack` and `fresh` only), "
        "and `ranks` is not used.",
    ),
    "adapter.scale": ("", "s in s·B·A (LoRA's α/r), the same for every rank."),
    "train.rounds": ("rounds", "At most so many; `patience` may end the run before."),
    "train.local_epochs": (
        "epochs",
        "Passes over its own training data that a participant makes in a round; fractions are fine.",
    ),
    "train.max_steps": ("steps a round", "Upper limit, whatever the epochs say."),
    "train.min_steps": ("steps a round", "Lower limit, even where they do not fit `round_seconds`."),
    "train.batch_size": ("examples", "Texts a step (causal: blocks)."),
    "train.learning_rate": ("", "AdamW's, in the first round."),
    "train.final_rate": ("share", "Learning rate of the last round as a share of the first; linear in between."),
    "train.round_seconds": (
        "seconds",
        "The time a round may take. It sizes ranks and steps before the run; nobody is cut off by it. With "
        '`pace = "buffered"`: the length of a window, which sizes nothing.',
    ),
    "train.patience": (
        "rounds",
        "So many rounds in a row without progress on validation (or rejected by the gate) end the run.",
    ),
    "train.pace": (
        "",
        "`rounds` wait for everybody, and slow participants make fewer steps. `buffered`: windows of `round_seconds`; slow "
        "participants make all their steps, and count where they arrive (FedBuff). With `stack` and `fresh` only.",
    ),
    "train.buffer": (
        "participants",
        "Buffered: a window with fewer replies makes no step, and they wait for the next. Unset: 1.",
    ),
    "train.lockstep": (
        "participants",
        "On one machine, as many participants as stand next to one another on the roster make their steps together, each with its own "
        "factors over one pass through the base: [when it pays](how-a-round-works.md#lock-step). The last bits of a result depend on it. "
        "Without effect across a network, with local terms or methods, whole weights, and texts over 512 tokens.",
    ),
    "train.quorum": (
        "participants",
        "Across a network a run begins when so many are connected; who comes later joins at the next round. Unset: all. A round with "
        "fewer usable replies makes no step: it is recorded, and tried again when so many are there (on one machine it ends the run). "
        "Unset: 1. Buffered: for the beginning only.",
    ),
    "train.cohort": (
        "participants",
        "So many, drawn anew, train in a round, besides the centre; as many, drawn once for the run, evaluate. Unset: everybody. "
        "Not with `q_ffl` and `term`.",
    ),
    "algorithm.reduce": (
        "",
        "How updates are added up: `stack` (exact for unequal ranks), `fedit` (the common baseline), `ffa` (A frozen), "
        "`rolora` (B and A in turn), or against bad updates `centred_clipping`, `geometric_median`, `trimmed_mean`.",
    ),
    "algorithm.weights": (
        "",
        "How much each update counts: `norm_equalised`, `examples`, `uniform`, `fednova`, or more for who is badly "
        "served: `q_ffl`, `term`.",
    ),
    "algorithm.server": (
        "",
        "The step: `sgd` (plain, FedAvg), `nesterov` (DiLoCo, for long runs), `adam`, `yogi`, or `reptile`.",
    ),
    "algorithm.start": (
        "",
        "How a round starts from the shared model: `fresh` factors, or its best ones with the rest frozen (`fedex`) or left out "
        "(`flexlora`). Not with `fedit`, `ffa`, `rolora`, `trimmed_mean`; the robust reduces of products not with `flexlora`.",
    ),
    "algorithm.start_settings": ("", "None of these has any; for pieces of your own."),
    "algorithm.upload": (
        "",
        "How an update is coded for its way up: `plain` (float32), `half`, `quantise` (unbiased, 8, 4 or 2 bits), `eden` "
        "(1, 2 or 4 bits), or `topk` with error feedback (only with `fedit`, `ffa`, `rolora`).",
    ),
    "algorithm.upload_settings": (
        "",
        "`quantise`, `eden`, `topk`: `bits`. `quantise`: `block` 256. `topk`: `density` 0.01, the share that is sent.",
    ),
    "algorithm.feedback": (
        "`topk`: 1.0; others: off",
        "What an upload leaves out is kept by the participant, times this, and sent in a later round. With `fedit`, `ffa`, `rolora`.",
    ),
    "algorithm.download": (
        "",
        "The same for the way down; what the code loses stays pending at the coordinator and is sent in a later round.",
    ),
    "algorithm.download_settings": ("", "As `upload_settings`."),
    "algorithm.reduce_settings": (
        "",
        "Settings of the piece. `centred_clipping`: `iterations` 3, `factor` 1. `geometric_median`: `iterations` 100. "
        "`trimmed_mean`: `trim` 0.2. Others: none.",
    ),
    "algorithm.weights_settings": (
        "",
        "`norm_equalised`: `power` (0.5), 0 is one participant one vote, 1 is by examples. `q_ffl`: `q` 1. `term`: `t` 1.",
    ),
    "algorithm.server_settings": (
        "",
        "`learning_rate` and `momentum`. `sgd`: 1.0 and 0.0; `nesterov`: 0.7 and 0.9. `adam`, `yogi`: `learning_rate` 0.01, "
        "`beta1` 0.9, `beta2` 0.99, `tau` 0.001. `reptile`: `learning_rate` 0.5.",
    ),
    "algorithm.broadcast_rank": (
        "",
        "Rank of what is sent back in a round; the exact remainder waits for the next. Unset: twice the largest rank.",
    ),
    "local.terms": (
        "",
        "What a step minimises besides the own loss, name = strength: `fedprox` (μ, 0.01 to 0.1), `kl` to the base on public text "
        "(β, 0.05 to 0.5), `replay` of public text (share, 0.05 to 0.2), `transfer` of the centre's gradient (weight). 0 is none.",
    ),
    "local.method": (
        "",
        "`plain`, or `fomaml`: train how good the model becomes after a step on somebody's own data. Twice the time a step.",
    ),
    "local.method_settings": ("", "`fomaml`: `inner_rate` 0.1, the length of that step."),
    "local.data": (
        "",
        "Public text for `kl` and `replay`, columns as in `centre.data`. Unset: the centre's training data. A public batch a step is "
        "computed beside the own one.",
    ),
    "topology.kind": (
        "",
        "`star`: all exchange with the coordinator. `ring`, `complete`, `graph`: peers exchange with their neighbours, without centre, "
        "gate and screening, with `stack`, `uniform`, `sgd`, `fresh` and plain codes; `broadcast_rank` is what goes along an edge.",
    ),
    "topology.edges": ("", 'With `graph`: pairs of participants, `[["north", "south"], …]`; both ways.'),
    "topology.pace": (
        "share",
        "γ: how far a peer moves toward its neighbours. Where `broadcast_rank` cuts much, 1 can be worse than no exchange: try 0.5.",
    ),
    "centre.data": ("", "Public data, one file, columns `text`, `label`, `prompt`, `response` as the task needs."),
    "centre.licence": ("", "Of the public data, as declared."),
    "centre.federated_share": ("share", "λ in λ·Δ_participants + (1 − λ)·Δ_centre."),
    "centre.first": (
        "rounds",
        "Of `train.rounds`, those that the centre trains alone before the participants begin; the learning rate then begins anew.",
    ),
    "centre.max_train": ("examples", "At most so many of the centre's training examples."),
    "centre.tokens_per_second": ("tokens/s", "The centre's declared speed. Unset: no limit."),
    "centre.steps": ("steps", "The centre's local steps a round. Unset: as many as the median participant."),
    "gate.slices": (
        "",
        "Public texts by name. One half of each is the gate, the other is kept for the check at the end. Needs `[centre]`.",
    ),
    "gate.margin": (
        "share",
        "How much worse than the base a slice may surely get, relative to the base's error (classification) or loss (causal).",
    ),
    "gate.interpolate": (
        "points",
        "Points tried between base and shared model (WiSE-FT), 11 for instance; the best that the gate passes is "
        "delivered. 0: none.",
    ),
    "gate.max_examples": ("examples", "At most so many of a slice at the gate, twice as many in the final check."),
    "screen.norm_bound": (
        "× median",
        "Longer updates are cut to so many times the median norm, taken from the round before at this round's rate (1: at the median). Unset: off. "
        "Not with weights that give every update one length.",
    ),
    "screen.cosine": (
        "",
        "An update whose cosine with `cosine_to` is under this raises an alarm; 0: it points away. Unset: off.",
    ),
    "screen.cosine_to": (
        "",
        "`others`: the mean direction of the other participants' updates, three or more; all are kept in memory until the "
        "last is in. `centre`: the centre's update; nothing is kept.",
    ),
    "screen.cosine_action": (
        "",
        "`record`: the alarm is in the ledger, the update counts. `refuse`: it stays out as well.",
    ),
    "screen.loss": (
        "share",
        "An update that alone makes a public slice surely worse, by more than this relative to the shared model's error "
        "(classification) or loss (causal), raises an alarm. One evaluation by the centre an update, and all are kept in "
        "memory. Unset: off. Needs `gate.slices`.",
    ),
    "screen.loss_action": ("", "As `cosine_action`. Refusing by loss also silences whose domain the slices lack."),
    "personal.pooled_rates": (
        "",
        "Learning rates that the pooled counterfactual tries. Unset: `local_rates`.",
    ),
    "personal.local_rates": (
        "",
        "Learning rates tried for the local model, which has as many steps as all rounds together.",
    ),
    "personal.private_rates": ("", "Learning rates tried for the private adapter on top of the shared model."),
    "personal.private_rank": ("", "Its rank; never more than the participant's own."),
    "personal.private_epochs": ("epochs", "How long it is trained."),
    "personal.checks": ("times", "How often validation is looked at while fitting; the best moment is kept."),
    "personal.alphas": ("share", "Strengths α of the private adapter among which the participant chooses."),
    "personal.mixes": ("share", "Points between shared and local, as the share of local."),
    "personal.ditto": (
        "",
        "λ of private adapters that are pulled towards the shared model, each another candidate (Ditto), for instance "
        "`[0.1, 1.0]`. Each costs as much as the private adapter.",
    ),
    "bases.name": ("", "What the roster calls this base. `main` is `[base]` itself."),
    "bases.model": ("", "As `base.model`. For `[distil]` with language models: one with the same tokenizer."),
    "bases.licence": ("", "As `base.licence`."),
    "bases.dtype": ("", "As `base.dtype`."),
    "bases.modules": ("", "As `adapter.modules`, where they are called otherwise in this base; else the same."),
    "distil.teachers": (
        "",
        "`groups`: the shared models of all bases teach. `participants`: the participants' own models do, as they are after "
        "local training (also with one base).",
    ),
    "distil.ensemble": ("", "`feddf`: mean of the logits. `mixture`: mean of the probabilities."),
    "distil.votes": ("", "`participants`: every participant counts the same in the teacher; `bases`: every base does."),
    "distil.every": ("rounds", "Distil after every so many rounds."),
    "distil.steps": ("steps", "The centre's, for each base, each time."),
    "distil.items": ("texts", "Of the centre's training data, drawn anew each time (causal: blocks)."),
    "distil.rank": ("", "Of the adapter that is trained. Default: the largest rank of all participants."),
    "distil.learning_rate": (
        "",
        "AdamW's at the first step; it falls to 0 in one distillation, and from round to round as `[train]`'s.",
    ),
    "distil.temperature": ("", "Above 1 the teacher is softened, and less likely classes count more."),
    "equity.credit": (
        "",
        "Say what each contributed to the fall of the validation loss, to first order. All updates of a round are kept in memory until it "
        "ends. With a star and adapters.",
    ),
    "equity.leave_one_out": (
        "",
        "Also by leaving each out in turn: one more evaluation by everybody for each participant in each round.",
    ),
    "budget.kwh": ("kWh", "Of all rounds, as told; PUE inside. What remains is spread over the rounds; steps that do not fit are not made."),
    "budget.kg_co2e": ("kg CO₂e", "The same; everybody must then tell its carbon."),
    "budget.money": ("", "The same, of what is told in the currency of `[money]`; other currencies are not counted."),
    "budget.hours": ("hours", "The same, at work, of all machines together."),
    "budget.megabytes": ("MB", "The same, of updates up and down."),
    "energy.country": ("", "Where the coordinator's electricity comes from. As in `participant.toml`."),
    "energy.intensity": ("", "As in `participant.toml`."),
    "energy.zone": ("", "As in `participant.toml`."),
    "energy.pue": ("", "As in `participant.toml`."),
    "energy.embodied_kg": ("kg CO₂e", "Of the coordinator's machine."),
    "energy.life_years": ("years", "Of the coordinator's machine."),
    "energy.tell": ("", "Of no use here: this file is public."),
    "money.currency": (
        "",
        "ISO 4217. What follows is of the coordinator's machine; it is told like the rest of this file.",
    ),
    "money.per_kwh": ("currency/kWh", "As in `participant.toml`."),
    "money.rent_per_hour": ("currency/h", "As in `participant.toml`."),
    "money.capital": ("currency", "As in `participant.toml`."),
    "money.residual": ("share", "As in `participant.toml`."),
    "money.maintenance_per_hour": ("currency/h", "As in `participant.toml`."),
    "money.utilisation": ("share", "As in `participant.toml`."),
    "money.tell": ("", "Whether the report shows it."),
    "participants.base": ("", "The base that it holds: `main`, or a name of `[[bases]]`."),
    "participants.name": ("", "Unique; must equal `name` in the participant's own file. Not `centre`."),
    "participants.file": ("", "The participant's `participant.toml`, where it runs on this machine."),
}
PARTICIPANT: Mapping[str, tuple[str, str]] = {
    "name": ("", "As the roster in `federation.toml` calls it."),
    "base": (
        "",
        "Folder or `.gguf` file of the base on this machine, across a network; it must be the same base. Unset: `[base] model`.",
    ),
    "data.path": ("", "One file, split by content into train, validation and test. Either this or `train`."),
    "data.train": ("", "Training file. What `validation` and `test` do not give is split off from it."),
    "data.validation": ("", "Validation file, with `train`."),
    "data.test": ("", "Test file, with `train`."),
    "data.text": ("", "Name of the column with the text."),
    "data.label": ("", "Name of the column with the label (classification)."),
    "data.prompt": ("", "Name of the column with the prompt (causal)."),
    "data.response": ("", "Name of the column with the response (causal): only this is learnt."),
    "data.validation_share": ("share", "Of the texts, where there is no validation file."),
    "data.test_share": ("share", "Of the texts, where there is no test file."),
    "data.max_train": ("examples", "At most so many training examples."),
    "data.max_validation": ("examples", "At most so many validation examples."),
    "data.max_test": ("examples", "At most so many test examples."),
    "data.licence": ("", "Written to the ledger as declared."),
    "data.consent": (
        "",
        "On what ground these data may be used, in your words. It leaves the machine: the coordinator gets it and writes it into the run's record (ledger), where everybody who has that reads it. Name no person in it.",
    ),
    "hardware.tokens_per_second": ("tokens/s", "Training speed, where you know it."),
    "hardware.probe": (
        "",
        "Measure that speed on this machine with a few real steps, if it is not declared. Noisy on a busy machine.",
    ),
    "hardware.uplink_mbit": ("Mbit/s", "Upload speed. Unset: sending counts as no time."),
    "hardware.memory_gib": ("GiB", "Memory for training. A run that cannot fit is refused before it starts."),
    "hardware.max_rank": ("", "Largest rank that this participant will train."),
    "hardware.tdp_watts": (
        "W",
        "Rated power of the processor, for the energy model where no sensor can be read. Unset: 6.25 W a core.",
    ),
    "energy.country": (
        "",
        "Where the electricity comes from: ISO code or English name; the annual average of that country counts (`tequio carbon countries`). "
        "Unset, and without `intensity`: carbon is not known.",
    ),
    "energy.intensity": (
        "",
        "A file of intensities by time (canonical CSV, `tequio carbon import`); it wins over `country` at the times that it covers.",
    ),
    "energy.zone": ("", "Which zone of that file, where it has several."),
    "energy.pue": (
        "",
        "Electricity of the building over that of the machine (power usage effectiveness); it multiplies carbon and money.",
    ),
    "energy.embodied_kg": (
        "kg CO₂e",
        "Emitted in making the machine, as its maker states. A share of it counts, by time.",
    ),
    "energy.life_years": (
        "years",
        "How long it is used; for `embodied_kg` and for `money.capital`. The default is an assumption.",
    ),
    "energy.tell": ("", "`false`: carbon stays in your own book; the coordinator hears of joules and seconds only."),
    "money.currency": ("", "ISO 4217, such as `EUR`. Nothing is converted."),
    "money.per_kwh": ("currency/kWh", "The tariff; 0 is a price (your own sun)."),
    "money.rent_per_hour": (
        "currency/h",
        "Of a rented machine, for the hours at work. Electricity is inside unless `per_kwh` is given too.",
    ),
    "money.capital": (
        "currency",
        "What an owned machine cost: (capital · (1 − residual) / life + maintenance) / utilisation counts by the hour.",
    ),
    "money.residual": ("share", "Of the capital, what it is worth at the end of its life."),
    "money.maintenance_per_hour": ("currency/h", "Of an owned machine, by the hour of its life."),
    "money.utilisation": ("share", "Of its life, the time in which it is used."),
    "money.tell": (
        "",
        "`true`: coordinator and report hear what each round cost you. Else it stays in your own book (`tequio accounts --own`).",
    ),
    "hardware.device": ("", "A device of the catalogue of `tequio plan`, where this participant will train on one: `H100 SXM`, `L4`… For plans only."),
    "budget.kwh": ("kWh", "Your own limit on the rounds; what was spent stands in your own book. Steps that do not fit are not made, and then no task is taken."),
    "budget.kg_co2e": ("kg CO₂e", "The same. Needs `[energy]`."),
    "budget.money": ("", "The same, in the currency of `[money]`."),
    "budget.hours": ("hours", "The same, at work."),
    "budget.megabytes": ("MB", "The same, of updates sent; looked at before a round."),
    "schedule.hours": ("", 'Begin and end, `"20:00-07:00"`.'),
    "schedule.greenest_hours": (
        "hours",
        "Of each day, only so many, the greenest by the file in `[energy] intensity` (its latest forecast, else its values), within `hours`. A day "
        "that the file does not cover is not judged. Unset: all.",
    ),
    "schedule.days": ("", "Days of the week on which such a window begins."),
}
# what options without a help text of their own do
HELP: Mapping[str, str] = {
    "--seed": "Seed of the run and of how the data are drawn.",
    "--counterfactuals, --no-counterfactuals": "Also train what federation is compared with.",
    "--max-new-tokens": "Longest completion, in tokens (causal).",
}
# error -> (an example of when, what to do)
WHEN: Mapping[str, tuple[str, str]] = {
    "ConfigError": (
        "Unknown key, value out of range, file missing, `tequio init` into a folder that has such files.",
        "Correct the key that the message names; see [configuration.md](configuration.md).",
    ),
    "DataError": (
        "No such column, unknown label, not UTF-8, too few different texts for a split.",
        "Correct the file and line that the message names.",
    ),
    "BaseModelError": (
        "No such id or folder, no `*.safetensors`, incomplete or damaged weights, unknown module.",
        "Check the name, download the model first where there is no network, or convert it to safetensors.",
    ),
    "ResourceError": (
        "The sum of memory is more than there is; the disk is full; the folder is read-only.",
        "Do what the message proposes (smaller batch, texts or base; free space), then resume.",
    ),
    "UpdateError": (
        "A model file of the run was changed or cut; an adapter of another base or layout.",
        "Restore the file from a copy, or run again.",
    ),
    "TrainingError": (
        "The loss became NaN, or rose to a multiple of what it was.",
        "Lower `train.learning_rate`; look for odd rows. In a round, one participant's is a failure in the record, "
        "and the round goes on without it.",
    ),
    "BudgetError": (
        "A limit of `[budget]` in participant.toml is reached.",
        "Nothing, or raise it there. In a round its status is `withheld`, and the round goes on without that participant.",
    ),
    "RunError": (
        "The folder is no run or holds one already; data or configuration changed before `--resume`; no update could be used.",
        "Name the right folder, put back what changed, or start a new run.",
    ),
    "NetworkError": (
        "The coordinator does not answer, shows another certificate, or refuses the key; a participant is missing.",
        "Read which of these it is; a wrong certificate may be somebody else's machine.",
    ),
    "LedgerError": ("The file is no ledger, or SQLite cannot read it.", "Check the name; restore it from a copy."),
    "LedgerCorrupt": (
        "`tequio run --resume` or `tequio predict` met a changed record. `tequio verify` returns the same code.",
        "Restore the ledger from a copy. Nothing is built on a damaged record.",
    ),
    "RunBusy": ("A second `tequio run --resume` on the same folder.", "Wait for the first, or stop it."),
}


def pages() -> dict[str, str]:
    """File name in docs/ -> what it must hold."""
    return {"configuration.md": configuration(), "commands.md": commands(), "errors.md": error_page()}


def configuration() -> str:
    """Every key of both files."""
    out = [
        NOTE.format(source="recipes/config.py"),
        "# Configuration\n",
        "Two files. Unknown keys are refused, with the nearest known one. Values are not converted: text is in quotes, "
        "whole numbers have no point. Relative paths start at the folder of the file in which they stand. "
        "`tequio init FOLDER` writes both, with comments. **required** means that there is no default; – means unset.\n",
    ]
    for title, model, meaning in (
        ("federation.toml", Federation, FEDERATION),
        ("participant.toml", ParticipantFile, PARTICIPANT),
    ):
        schema = model.model_json_schema()
        rows = list(keys(schema, schema))
        unknown = {key for key, _, _ in rows} ^ set(meaning)
        if unknown:
            raise SystemExit(f"docs/generate.py: {title} and its meanings differ in: {', '.join(sorted(unknown))}")
        out.append(f"## {title}\n")
        section = None
        for key, kind, default in rows:
            table, _, leaf = key.rpartition(".")
            if table != section:
                section = table
                heading = (
                    f"[[{table}]]" if table in ("participants", "bases") else f"[{table}]" if table else "At the top"
                )
                out.append(f"### {heading}\n" + _intro(schema, table))
                out.append("| key | type | default | unit | meaning |\n|---|---|---|---|---|")
            unit, words = meaning[key]
            out.append(f"| `{leaf}` | {kind} | {default} | {unit} | {words} |")
            if key == rows[-1][0] or _table_of(rows, key) != table:
                out.append("")
    return "\n".join(out).rstrip() + "\n"


def _table_of(rows: list[tuple[str, str, str]], key: str) -> str:
    """The table of the key after `key`."""
    names = [row[0] for row in rows]
    return names[names.index(key) + 1].rpartition(".")[0]


def _intro(schema: Mapping[str, Any], table: str) -> str:
    """What the section's docstring says after its name."""
    if not table:
        return ""
    words = " ".join(str(_section(schema, schema["properties"][table]).get("description", "")).split())
    words = re.sub(r"^\[+\w+\]+[.:]?\s*", "", words)
    return f"\n{words[:1].upper()}{words[1:]}\n" if words else ""


def keys(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, type, default) of every key, those of the top first."""
    tables = {name: _section(schema, value) for name, value in part["properties"].items()}
    for name, value in part["properties"].items():
        if not tables[name]:
            shown = "**required**" if name in part.get("required", []) else _default(value.get("default"), value)
            yield f"{prefix}{name}", _type(value), shown
    for name, table in tables.items():
        if table:
            yield from keys(schema, table, f"{prefix}{name}.")


def _section(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table that a property refers to, or nothing."""
    for option in (value, value.get("items", {}), *value.get("anyOf", [])):
        if "$ref" in option:
            found: Mapping[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return found
    return {}


def _default(value: Any, schema: Mapping[str, Any]) -> str:
    holds = [option.get("type") in ("object", "array") for option in schema.get("anyOf", [schema])]
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value is not None else "empty" if all(holds) else "–"


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f'`"{value}"`' for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of: {_type(schema['items'])}"
    if kind == "object":
        held = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties", {})]
        return f"table, name = {_type(held[0])}"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(schema)
    if kind == "boolean":
        return "true or false"
    return "path" if schema.get("format") == "path" else "name" if "pattern" in schema else "text"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ",".join(f" {sign} {schema[key]:g}" for key, sign in words.items() if key in schema)


def commands() -> str:
    """Every command with its arguments and options."""
    out = [
        NOTE.format(source="cli/main.py"),
        "# Commands\n",
        "`-h` or `--help` after any command shows the same in the terminal. With `--json` a command prints one JSON value, "
        "and an error as `error`, `what`, `why` and `fix`. Exit codes: [errors.md](errors.md).\n",
    ]
    for name, command in COMMANDS.items():
        function = inspect.unwrap(command.callback)
        rows = list(_parameters(name, function))
        places = " ".join(shown for shown, kind, *_ in rows if kind == "argument")
        out.append(f"## {name}\n\n{inspect.getdoc(function)}\n")
        out.append(f"```\n{' '.join(f'tequio {name} {places} [options]'.split())}\n```\n")
        out.append("| argument or option | type | default | meaning |\n|---|---|---|---|")
        out += [f"| `{shown}` | {words} | {default} | {help_} |" for shown, _, words, default, help_ in rows]
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def _parameters(command: str, function: Any) -> Iterator[tuple[str, str, str, str, str]]:
    """(as written, argument or option, type, default, meaning) of each parameter."""
    hints = typing.get_type_hints(function, include_extras=True)
    parsed = {parameter.name: parameter for parameter in COMMANDS[command].params}
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = hints[name].__origin__, hints[name].__metadata__[0]
        empty = parameter.default is inspect.Parameter.empty
        default = (
            "**required**" if empty else "–" if parameter.default is None else f"`{json.dumps(parameter.default)}`"
        )
        if isinstance(info, ArgumentInfo):
            shown = name.upper() if empty else f"[{name.upper()}]"
            yield shown, "argument", _python_type(kind), default, info.help or ""
        elif isinstance(info, OptionInfo):
            written = ", ".join([*parsed[name].opts, *parsed[name].secondary_opts])
            yield written, "option", _python_type(kind), default, info.help or HELP[written]


def _python_type(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    words = {"bool": "flag", "int": "whole number", "float": "number", "Path": "path", "str": "text"}
    return words[(options[0] if options else kind).__name__]


def error_page() -> str:
    """The tree, and every error with its exit code."""
    tree = (inspect.getdoc(errors) or "").split("\n\n")[1]
    out = [
        NOTE.format(source="core/errors.py"),
        "# Errors and exit codes\n",
        "Each message says what is wrong (naming the file, key or participant), why, and what to do. No message quotes a "
        "participant's text, or the label of a sample.\n",
        f"```\n{tree}\n```\n",
        "| exit code | error | what it means | for example | what to do |\n|---|---|---|---|---|",
        "| 0 | – | The command did what was asked. | | |",
        "| 1 | – | Anything else: an error of ours. | A traceback is shown. | Please report it. |",
        "| 2 | – | The command line is wrong (the same code as ConfigError). | An unknown option. | Add `--help`. |",
    ]
    for name, error in error_classes().items():
        example, fix = WHEN[name]
        words = " ".join((inspect.getdoc(error) or "").split())
        out.append(f"| {error.exit_code} | {name} | {words} | {example} | {fix} |")
    resume = "Nothing that was finished is lost. The command says how to go on: `tequio run --resume RUN`, or the same command again."
    out.append(f"| 130 | – | Stopped by Ctrl-C or SIGTERM. | | {resume} |")
    return "\n".join(out) + "\n"


def error_classes() -> dict[str, type[errors.TequioError]]:
    """Every error below TequioError, in the order of the tree."""
    found = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.TequioError)}
    found.pop("TequioError")
    return found


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")
        print(f"docs/{file}")
