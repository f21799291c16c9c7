"""The tables of federation.toml: what all agreed to, one class a table."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tequio.config.fields import (
    MOST_PULLED,
    MOST_TRIED,
    Count,
    File,
    Finite,
    Name,
    Positive,
    Rate,
    Section,
    Share,
    Words,
    printable,
    short_enough,
)

MAIN = "main"  # what [base] is called on the roster


def _modules(value: Any) -> Any:
    """Read "attention" and "all" as lists of one."""
    return [value] if value in ("attention", "all") else value


Modules = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_modules)]


class BaseSection(Section):
    """[base]"""

    model: Annotated[str, Field(min_length=1), AfterValidator(printable)]
    licence: Words = "not stated"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"


class FurtherBase(BaseSection):
    """[[bases]]. Another base for participants that name it; `modules` where they are called otherwise there."""

    name: Name
    modules: Modules | None = None


class TaskSection(Section):
    """[task]. `labels`: label -> description (its embedding starts the head), or a list of labels (the head starts at zero).

    A table of labels has no order of its own (TOML, and the ledger's canonical JSON), so the head has them sorted.
    """

    kind: Literal["classification", "causal"]
    labels: dict[str, str] | list[str] = Field(default_factory=list)
    max_tokens: Annotated[int, Field(ge=4)] = 128

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_in_order(cls, labels: Any) -> Any:
        if not isinstance(labels, dict | list):
            raise ValueError("expected a table (label = description) or a list of labels")
        if not all(isinstance(x, str) for x in (labels.values() if isinstance(labels, dict) else labels)):
            raise ValueError("every label and description must be text, in quotes")
        return dict(sorted(labels.items())) if isinstance(labels, dict) else labels

    @model_validator(mode="after")
    def _labels_fit(self) -> TaskSection:
        names = self.label_names()
        if self.kind == "classification" and len(set(names)) < 2:
            raise ValueError("labels: classification needs at least two different labels")
        if len({n.strip() for n in names}) < len(names):
            raise ValueError("labels: one stands there twice (spaces around a label do not count)")
        if any(not n.strip() for n in names):
            raise ValueError("labels: one is empty")
        for name in names:
            try:
                short_enough(name)
            except ValueError as error:
                raise ValueError(f"labels: of one, {error}") from None
        if self.kind == "causal" and names:
            raise ValueError("labels: a causal task has none; remove them")
        return self

    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the head: as listed, or sorted where they are a table."""
        return tuple(self.labels)


class AdapterSection(Section):
    """[adapter]. `ranks` is the ladder from which each participant gets the largest its hardware finishes in time.

    kind: lora trains factors; full trains the whole weights of the named modules, and there are no ranks. modules: names of
    linear layers, or "attention" or "all" for those of the base's family.
    """

    kind: Literal["lora", "full"] = "lora"
    modules: Modules
    ranks: Annotated[list[Count], Field(min_length=1)] = Field(default=[2, 4, 8, 16])
    scale: Positive = 2.0


class TrainSection(Section):
    """[train]. Local training and the rounds."""

    rounds: Count = 10
    local_epochs: Positive = 1.0
    max_steps: Count = 200
    min_steps: Count = 2
    batch_size: Count = 8
    learning_rate: Rate = 3e-3
    final_rate: Share = 0.1
    round_seconds: Positive | None = None
    patience: Count = 3
    cohort: Count | None = None
    pace: Literal["rounds", "buffered"] = "rounds"
    buffer: Count | None = None
    quorum: Count | None = None
    lockstep: Count = 1

    @model_validator(mode="after")
    def _steps_fit(self) -> TrainSection:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps = {self.min_steps} is more than max_steps = {self.max_steps}")
        if self.pace == "buffered" and self.round_seconds is None:
            raise ValueError('pace = "buffered" needs round_seconds, the length of a window')
        if self.pace == "rounds" and self.buffer is not None:
            raise ValueError(f'buffer = {self.buffer} has a meaning with pace = "buffered" only: leave it out')
        return self


class AlgorithmSection(Section):
    """[algorithm]. Pieces by name, each with its settings."""

    reduce: str = "stack"
    weights: str = "norm_equalised"
    server: str = "sgd"
    start: str = "fresh"
    reduce_settings: dict[str, Finite] = Field(default_factory=dict)
    weights_settings: dict[str, Finite] = Field(default_factory=dict)
    server_settings: dict[str, Finite] = Field(default_factory=dict)
    start_settings: dict[str, Finite] = Field(default_factory=dict)
    upload: str = "plain"
    upload_settings: dict[str, Finite] = Field(default_factory=dict)
    feedback: Share | None = None
    download: str = "plain"
    download_settings: dict[str, Finite] = Field(default_factory=dict)
    broadcast_rank: Count | None = None


class LocalSection(Section):
    """[local]. What participants minimise besides their own loss, and how a step is made.

    terms: name -> strength. data: public text for them; unset, the centre's training data.
    """

    terms: dict[str, Finite] = Field(default_factory=dict)
    method: str = "plain"
    method_settings: dict[str, Finite] = Field(default_factory=dict)
    data: File | None = None


class TopologySection(Section):
    """[topology]. Who exchanges with whom: all with the coordinator (a star), or peers with their neighbours."""

    kind: Literal["star", "ring", "complete", "graph"] = "star"
    edges: list[Annotated[list[Name], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    pace: Annotated[float, Field(gt=0, le=1)] = 1.0


class CentreSection(Section):
    """[centre]. The central resource: its public data, and how much the participants count against it.

    first: rounds of `[train] rounds` that the centre trains alone, before the participants begin.
    """

    data: File
    licence: Words = "not stated"
    federated_share: Share = 0.85
    first: Annotated[int, Field(ge=0)] = 0
    max_train: Count | None = None
    tokens_per_second: Positive | None = None
    steps: Count | None = None


class GateSection(Section):
    """[gate]. Public slices (name -> file) on which the general model may not get worse by more than `margin` (relative)."""

    slices: dict[Name, File] = Field(default_factory=dict)
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    max_examples: Count = 100
    interpolate: Annotated[int, Field(ge=0, le=101)] = 0

    @field_validator("interpolate")
    @classmethod
    def _two_ends(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expected 0 (off) or 2 and more points: base and shared model are two of them")
        return value


class ScreenSection(Section):
    """[screen]. What is done with updates that stand out: bounded, noted ("record") or left out ("refuse")."""

    norm_bound: Positive | None = None
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    cosine_to: Literal["others", "centre"] = "others"
    cosine_action: Literal["record", "refuse"] = "record"
    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    loss_action: Literal["record", "refuse"] = "record"


class PersonalSection(Section):
    """[personal]. How personal and local-only models are made."""

    local_rates: Annotated[list[Rate], Field(min_length=1, max_length=MOST_TRIED)] = Field(default=[1e-3, 3e-3])
    pooled_rates: list[Rate] | None = None
    private_rates: Annotated[list[Rate], Field(min_length=1, max_length=MOST_TRIED)] = Field(default=[5e-4])
    private_rank: Count = 4
    private_epochs: Positive = 3.0
    checks: Count = 4
    alphas: Annotated[list[Share], Field(max_length=MOST_TRIED)] = Field(default=[0.5, 1.0])
    mixes: Annotated[list[Share], Field(max_length=MOST_TRIED)] = Field(default=[0.5])
    ditto: Annotated[list[Positive], Field(max_length=MOST_PULLED)] = Field(default=[])


class DistilSection(Section):
    """[distil]. Models teach each other on the centre's public texts (FedDF): those of the groups, or the participants' own."""

    teachers: Literal["groups", "participants"] = "groups"
    ensemble: str = "feddf"
    votes: Literal["participants", "bases"] = "participants"
    every: Count = 1
    steps: Count = 20
    items: Count = 128
    rank: Count | None = None
    learning_rate: Rate = 1e-3
    temperature: Positive = 1.0


class RosterEntry(Section):
    """[[participants]]. `file` is needed where the participant runs on this machine."""

    name: Name
    file: File | None = None
    base: Name = MAIN
