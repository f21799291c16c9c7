"""What one machine has of a federation, whoever it is: the base in memory, the task, the meter; and
a participant's data on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tequio.app.assembly.algorithm import Algorithm, resolve_algorithm
from tequio.app.assembly.memory import check_run_memory, resolve_dtype
from tequio.app.assembly.site import build_site
from tequio.config import Federation, ParticipantFile
from tequio.config.cache import cache_folder
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.measure.energy import Meter, open_meter
from tequio.participant.accounts import AccountBook
from tequio.participant.adapted_model import AdaptedModel, head_at_zero, head_from_descriptions
from tequio.participant.base import Base, load_base
from tequio.participant.data import Columns, Options
from tequio.participant.node import Node, encode_splits
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.public_text import Public
from tequio.participant.splits import DataFiles, SplitRule, Splits, load_splits
from tequio.participant.text_tasks import Causal, Classification, TextTask


@dataclass(frozen=True)
class ModelContext:
    """One base loaded, with its task, the federation's pieces and the machine's meter."""

    config: Federation
    algorithm: Algorithm
    adapted: AdaptedModel
    task: TextTask
    meter: Meter


def build_model_context(
    config: Federation,
    files: Mapping[str, ParticipantFile],
    among: ProcessGroup = ALONE,
    recorded: str | None = None,
    algorithm: Algorithm | None = None,
) -> ModelContext:
    """Load the base for these participants, once it is known that it fits. among: the processes
    that keep it in shards.

    recorded: the digest that the record of a run has of this base, where the run began before (see
        `load_base`).
    algorithm: the federation's pieces, where they are built already.

    Raises ResourceError where memory is too small, BaseModelError for the base, ConfigError for
    texts longer than it reads.
    """
    full = config.adapter.kind == "full"
    dtype = resolve_dtype(config)
    algorithm = algorithm or resolve_algorithm(config)
    check_run_memory(config, algorithm, files, among.size)
    base = load_base(config.base.model, config.task.kind, dtype, cache_folder(), among, recorded)
    if config.task.max_tokens > base.max_positions:
        facts = {"tokens": config.task.max_tokens, "most": base.max_positions}
        raise refusal(ConfigError, "max-tokens-too-large", **facts)
    adapted = AdaptedModel(
        base, config.adapter.modules, config.adapter.scale, _head(config, base), full
    )
    return ModelContext(config, algorithm, adapted, build_task(config, base), open_meter())


def at_coordinator(context: ModelContext) -> ModelContext:
    """The same where the coordinator stands: federation.toml says where."""
    site = build_site(context.config.energy, context.config.money)
    return replace(context, meter=replace(context.meter, site=site))


def build_node(
    context: ModelContext,
    file: ParticipantFile,
    splits: Splits,
    public: Public | None,
    hosted: bool = False,
) -> Node:
    """A participant on this machine, its data encoded. hosted: in the coordinator's process, which
    counts its energy too.
    """
    data = encode_splits(context.task, splits, file.name)
    size, meter = context.config.train.batch_size, _meter(file, context.meter, hosted)
    money, ours = file.money, context.config.money
    tell = money is not None and money.tell
    counted = tell and money is not None and ours is not None and money.currency == ours.currency
    books = AccountBook(
        tell_carbon=file.energy.tell, tell_money=tell, limits=file.budget.limits(), counted=counted
    )
    return Node(
        file.name, context.adapted, context.task, data, size, meter, public=public, books=books
    )


def _head(config: Federation, base: Base) -> torch.Tensor | None:
    if config.task.kind == "causal":
        return None
    labels = config.task.labels
    if isinstance(labels, dict):
        return head_from_descriptions(base, labels)
    return head_at_zero(base, len(labels))


def build_task(config: Federation, base: Base) -> TextTask:
    """The task with its tokenizer."""
    if config.task.kind == "causal":
        return Causal(base.tokenizer, config.task.max_tokens)
    return Classification(base.tokenizer, config.task.label_names(), config.task.max_tokens)


def _meter(file: ParticipantFile, shared: Meter, hosted: bool) -> Meter:
    """The machine's meter, or one of the declared power where the participant states it; at the
    participant's place.
    """
    meter = shared if file.hardware.tdp_watts is None else open_meter(file.hardware.tdp_watts)
    host = shared.watts if hosted and meter is not shared else None
    return replace(meter, site=build_site(file.energy, file.money), host=host)


def _columns(file: ParticipantFile) -> Columns:
    d = file.data
    return Columns(d.text, d.label, d.prompt, d.response, d.input, d.messages)


def read_splits(config: Federation, file: ParticipantFile) -> Splits:
    """A participant's data, split."""
    d = file.data
    rule = SplitRule(d.validation_share, d.test_share, d.max_train, d.max_validation, d.max_test)
    files = DataFiles(d.path, d.train, d.validation, d.test)
    options = Options(d.delimiter, d.encoding, d.header)
    kind, labels = config.task.kind, config.task.label_names()
    return load_splits(files, _columns(file), rule, kind, labels, file.name, options=options)
