"""The two configuration files, strictly read: `federation.toml` (what all agreed to) and `participant.toml` (never leaves).

Unknown keys are refused with the nearest known one. Relative paths start at the file's own folder.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from tequio.core.errors import ConfigError
from tequio.core.seeds import derive
from tequio.planning.schedule import DAYS, Day, window_of
from tequio.recipes.accounting import BudgetSection, EnergySection, EquitySection, MoneySection
from tequio.recipes.section import STRICT, Count, File, Finite, Name, Positive, Rate, Share

BY_NEED = ("q_ffl", "term")  # weightings that go by the last validation loss of each participant
MAIN = "main"  # what [base] is called on the roster
EXPECTED = {
    "model_type": "expected a table",
    "dict_type": "expected a table",
    "list_type": "expected a list",
    "path_type": "expected a path, as text",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": "expected a name: at most 64 of a-z A-Z 0-9 _ . -, a letter or digit first",
}


class Section(BaseModel):
    """A table of a file: unknown keys are errors, values are not coerced."""

    model_config = STRICT


class BaseSection(Section):
    """[base]"""

    model: Annotated[str, Field(min_length=1)]
    licence: str = "not stated"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"


class FurtherBase(BaseSection):
    """[[bases]]. Another base for participants that name it; `modules` where they are called otherwise there."""

    name: Name
    modules: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None


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
        if self.kind == "causal" and names:
            raise ValueError("labels: a causal task has none; remove them")
        return self

    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the head: as listed, or sorted where they are a table."""
        return tuple(self.labels)


class AdapterSection(Section):
    """[adapter]. `ranks` is the ladder from which each participant gets the largest its hardware finishes in time.

    kind: lora trains factors; full trains the whole weights of the named modules, and there are no ranks.
    """

    kind: Literal["lora", "full"] = "lora"
    modules: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    ranks: Annotated[list[Count], Field(min_length=1)] = [2, 4, 8, 16]
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
    licence: str = "not stated"
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

    local_rates: Annotated[list[Rate], Field(min_length=1)] = [1e-3, 3e-3]
    pooled_rates: list[Rate] | None = None
    private_rates: Annotated[list[Rate], Field(min_length=1)] = [5e-4]
    private_rank: Count = 4
    private_epochs: Positive = 3.0
    checks: Count = 4
    alphas: list[Share] = [0.5, 1.0]
    mixes: list[Share] = [0.5]
    ditto: list[Positive] = []


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


class Federation(Section):
    """federation.toml."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    base: BaseSection
    bases: list[FurtherBase] = Field(default_factory=list)
    task: TaskSection
    adapter: AdapterSection
    train: TrainSection = TrainSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    local: LocalSection = LocalSection()
    topology: TopologySection = TopologySection()
    centre: CentreSection | None = None
    gate: GateSection = GateSection()
    screen: ScreenSection = ScreenSection()
    personal: PersonalSection = PersonalSection()
    distil: DistilSection | None = None
    equity: EquitySection = EquitySection()
    energy: EnergySection = EnergySection()
    money: MoneySection | None = None
    budget: BudgetSection = BudgetSection()
    participants: Annotated[list[RosterEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Federation:
        names = [p.name for p in self.participants]
        twice = sorted(n for n, times in Counter(names).items() if times > 1)
        if twice:
            raise ValueError(f"participants: {', '.join(twice)} is on the roster twice")
        if "centre" in names:
            raise ValueError("participants: the name 'centre' is taken by the central resource")
        cohort = self.train.cohort
        if cohort is not None and cohort > len(names):
            why = f"train.cohort = {cohort} is more than the {len(names)} participants"
            raise ValueError(f"{why}: leave it out, and everybody takes part")
        if cohort is not None and self.algorithm.weights in BY_NEED:
            why = f"algorithm.weights = {self.algorithm.weights!r} needs every participant's validation loss"
            raise ValueError(f"{why}, which train.cohort does not measure: use 'norm_equalised', or leave cohort out")
        if (self.train.buffer or 1) > (cohort or len(names)):
            why = f"train.buffer = {self.train.buffer} is more than the {cohort or len(names)} who take part in a round"
            raise ValueError(f"{why}: lower it, or no step is ever made")
        quorum = self.train.quorum
        if quorum is not None and quorum > (cohort or len(names)):
            why = f"train.quorum = {quorum} is more than the {cohort or len(names)} who take part in a round"
            raise ValueError(f"{why}: lower it, or no round is ever made")
        if quorum is not None and (self.bases or self.topology.kind != "star"):
            raise ValueError("train.quorum: one base and a coordinator are needed; leave it out")
        if self.adapter.kind == "full" and self.algorithm.broadcast_rank is not None:
            raise ValueError("algorithm.broadcast_rank: with adapter.kind = 'full' there are no ranks; leave it out")
        first = 0 if self.centre is None else self.centre.first
        if first >= self.train.rounds:
            why = f"centre.first = {first}: of {self.train.rounds} rounds none is left for the participants"
            raise ValueError(f"{why}; raise train.rounds, or lower it")
        if first and self.train.pace == "buffered":
            raise ValueError('centre.first: with train.pace = "buffered" nobody waits for the centre; use "rounds"')
        if self.screen.loss_action != "record" and self.screen.loss is None:
            raise ValueError(
                "screen.loss_action: nothing is measured without screen.loss; give a limit, or leave it out"
            )
        if self.screen.cosine_action != "record" and self.screen.cosine is None:
            raise ValueError("screen.cosine_action: nothing is measured without screen.cosine; give a limit")
        if self.gate.slices and self.centre is None:
            raise ValueError("gate.slices: the centre evaluates the public slices, so [centre] is needed")
        if self.screen.loss is not None and not self.gate.slices:
            raise ValueError("screen.loss: updates are tried on public slices, so gate.slices is needed")
        if self.screen.cosine is not None and self.screen.cosine_to == "centre" and self.centre is None:
            raise ValueError('screen.cosine_to: there is no [centre]; use "others"')
        if self.screen.cosine is not None and self.screen.cosine_to == "others" and len(names) < 3:
            raise ValueError(
                "screen.cosine: of two that disagree nobody can say which is wrong; 3 participants are needed"
            )
        return self

    @model_validator(mode="after")
    def _bases_fit(self) -> Federation:
        known = self.base_names()
        twice = sorted({n for n in known if known.count(n) > 1})
        if twice:
            raise ValueError(f"bases: {twice[0]!r} is there twice ([base] itself is called {MAIN!r})")
        for entry in self.participants:
            if entry.base not in known:
                near = difflib.get_close_matches(entry.base, known, n=1, cutoff=0.0)[0]
                why = f"participants: {entry.name} has base = {entry.base!r}, which no [[bases]] is called"
                raise ValueError(f"{why}; did you mean {near!r}? Known: {', '.join(known)}")
            if entry.name in {f"shared-{name}" for name in known}:
                raise ValueError(f"participants: the name {entry.name!r} is taken by the shared model of that base")
        unused = [name for name in known if name not in {entry.base for entry in self.participants}]
        if unused:
            raise ValueError(f"bases: no participant has base = {unused[0]!r}; give it one, or leave that base out")
        least = min(known, key=[entry.base for entry in self.participants].count)
        members = [entry.base for entry in self.participants].count(least)
        if self.bases and self.train.cohort is not None and self.train.cohort > members:
            raise ValueError(
                f"train.cohort = {self.train.cohort} is of each base, and {least!r} has {members} participants"
            )
        if self.bases and self.screen.cosine is not None and self.screen.cosine_to == "others" and members < 3:
            raise ValueError(f"screen.cosine: 3 participants of each base are needed, and {least!r} has {members}")
        if self.budget.money is not None and self.money is None:
            raise ValueError("budget.money: in which currency? Add [money]; costs in other ones are not counted")
        if self.budget.kg_co2e is not None and self.energy.country is None and self.energy.intensity is None:
            raise ValueError("budget.kg_co2e: the coordinator's carbon is not known; say [energy] country or intensity")
        if self.budget.limits() and (self.topology.kind != "star" or self.bases or self.distil):
            raise ValueError(
                "budget: it is kept by a coordinator of one base; use a star with one base, or leave it out"
            )
        if self.equity.credit and (self.topology.kind != "star" or self.adapter.kind == "full"):
            why = "updates of a round are compared at the coordinator, as adapters"
            raise ValueError(f'equity.credit: {why}; use a star and adapter.kind = "lora", or leave it out')
        if self.topology.kind != "star" and (self.bases or self.distil):
            raise ValueError('topology: peers exchange changes of one base and have no centre that distils; use "star"')
        if self.distil and self.distil.teachers == "participants" and self.train.pace == "buffered":
            raise ValueError('distil: replies of buffered rounds began from different models; use teachers = "groups"')
        if self.distil and self.adapter.kind == "full":
            raise ValueError(
                'distil: what is distilled is an adapter, and whole weights are trained; use kind = "lora"'
            )
        if self.distil and self.centre is None:
            raise ValueError("distil: it needs public texts, so [centre] is needed")
        if self.distil and self.distil.teachers == "groups" and not self.bases:
            raise ValueError('distil: with one base a model would teach itself; set teachers = "participants"')
        return self

    def base_names(self) -> list[str]:
        """The bases as the roster calls them, that of [base] first."""
        return [MAIN, *(base.name for base in self.bases)]

    def base_of(self, participant: str) -> str:
        """Over which base one on the roster trains. Raises ConfigError for who is not on it."""
        for entry in self.participants:
            if entry.name == participant:
                return entry.base
        raise ConfigError(
            f"{participant!r} is not on the roster.", f"There are: {', '.join(p.name for p in self.participants)}."
        )

    def part(self, base: str) -> Federation:
        """The federation of the participants of one base, as if it were the only one; its random streams are its own.

        It is a whole federation: theirs is its main base, and nobody teaches it.
        """
        members = [entry.model_copy(update={"base": MAIN}) for entry in self.participants if entry.base == base]
        if base == MAIN:
            return self.model_copy(update={"participants": members, "bases": [], "distil": None})
        own = next(further for further in self.bases if further.name == base)
        modules = own.modules or self.adapter.modules
        changes: dict[str, Any] = {
            "seed": derive(self.seed, "base", base),
            "base": BaseSection(model=own.model, licence=own.licence, dtype=own.dtype),
            "adapter": self.adapter.model_copy(update={"modules": modules}),
            "participants": members,
            "bases": [],
            "distil": None,
        }
        return self.model_copy(update=changes)


class DataSection(Section):
    """[data]: one file to be split by content, or files for train (and validation, test). Column names where they differ."""

    path: File | None = None
    train: File | None = None
    validation: File | None = None
    test: File | None = None
    text: str = "text"
    label: str = "label"
    prompt: str = "prompt"
    response: str = "response"
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    max_train: Count | None = None
    max_validation: Count | None = None
    max_test: Count | None = None
    licence: str = "not stated"
    consent: str = "not stated"

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either path (to be split) or train (and validation, test)")
        if self.path is not None and (self.validation or self.test):
            raise ValueError("path is split into train, validation and test; name it train to give these files")
        shares = (0.0 if self.validation else self.validation_share) + (0.0 if self.test else self.test_share)
        if shares >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


class HardwareSection(Section):
    """[hardware]: what is declared; what is missing is not a limit. `probe` measures tokens_per_second on this machine."""

    tokens_per_second: Positive | None = None
    probe: bool = False
    uplink_mbit: Positive | None = None
    memory_gib: Positive | None = None
    max_rank: Count | None = None
    tdp_watts: Positive | None = None
    device: str | None = None


class ScheduleSection(Section):
    """[schedule]: when this machine takes part across a network, in its local time. Outside it is disconnected, and counts as away.

    A window over midnight belongs to the day on which it begins. A task that was begun is finished.
    """

    hours: str = "00:00-24:00"
    greenest_hours: Annotated[float, Field(gt=0, le=24)] | None = None
    days: Annotated[list[Day], Field(min_length=1)] = list(DAYS)

    @field_validator("hours")
    @classmethod
    def _a_window(cls, hours: str) -> str:
        window_of(hours)
        return hours

    @field_validator("days")
    @classmethod
    def _each_once(cls, days: list[Any]) -> list[Any]:
        if len(set(days)) < len(days):
            raise ValueError("a day stands there twice")
        return days


class ParticipantFile(Section):
    """participant.toml. `base`: where the base model is on this machine, if it is not to be had by the name in federation.toml."""

    name: Name
    base: File | None = None
    data: DataSection
    hardware: HardwareSection = HardwareSection()
    energy: EnergySection = EnergySection()
    money: MoneySection | None = None
    budget: BudgetSection = BudgetSection()
    schedule: ScheduleSection | None = None

    @model_validator(mode="after")
    def _can_be_counted(self) -> ParticipantFile:
        if self.schedule and self.schedule.greenest_hours is not None and self.energy.intensity is None:
            raise ValueError("schedule.greenest_hours: which they are says a file; give [energy] intensity")
        placed = self.energy.country is not None or self.energy.intensity is not None
        if self.budget.kg_co2e is not None and not placed:
            raise ValueError("budget.kg_co2e: carbon is not known; say [energy] country or intensity")
        if self.budget.money is not None and self.money is None:
            raise ValueError("budget.money: costs are not known; add [money]")
        return self


Model = TypeVar("Model", bound=Section)


def load_federation(path: Path) -> Federation:
    """Read federation.toml; paths in it become absolute. Raises ConfigError naming file and key."""
    return _absolute_federation(_load(path, Federation), path.resolve().parent)


def federation_of_text(text: str, source: str) -> Federation:
    """A federation.toml that came as text, from `source`; its paths are those of the machine that it came from."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} cannot be read as TOML:", f"{error}.") from None
    return validated(raw, Federation, Path(source))


def load_participant(path: Path | None, expected: str | None = None) -> ParticipantFile:
    """Read a participant.toml whose name must be `expected`, if given. Raises ConfigError naming file and key."""
    if path is None:
        fix = 'Add file = "…/participant.toml" to it, or run across a network: tequio coordinator --help'
        raise ConfigError(f"[[participants]] {expected}: it has no file,", "which a run on this machine needs.", fix)
    loaded = _load(path, ParticipantFile)
    if expected is not None and loaded.name != expected:
        why = f"The roster in federation.toml calls it {expected!r}."
        raise ConfigError(f"{path}: name = {loaded.name!r}.", why, "Make the two names the same.")
    root = path.resolve().parent
    paths = {key: _absolute(getattr(loaded.data, key), root) for key in ("path", "train", "validation", "test")}
    data = loaded.data.model_copy(update=paths)
    return loaded.model_copy(
        update={"data": data, "base": _absolute(loaded.base, root), "energy": _placed(loaded.energy, root)}
    )


def _absolute(path: Path | None, root: Path) -> Path | None:
    return None if path is None else _below(path, root)


def _placed(energy: EnergySection, root: Path) -> EnergySection:
    return energy.model_copy(update={"intensity": _absolute(energy.intensity, root)})


def _below(path: Path, root: Path) -> Path:
    """`path` seen from `root`, with ~ opened (that of an unknown user stays, and is a file that is not there)."""
    return root / os.path.expanduser(path)


def _absolute_federation(loaded: Federation, root: Path) -> Federation:
    """With absolute paths. `base.model` is one if there is such a folder or file; otherwise it is an id of the hub."""
    roster = [e.model_copy(update={"file": _absolute(e.file, root)}) for e in loaded.participants]
    slices = {name: _below(p, root) for name, p in loaded.gate.slices.items()}
    changes: dict[str, Any] = {
        "participants": roster,
        "gate": loaded.gate.model_copy(update={"slices": slices}),
    }
    changes["energy"] = _placed(loaded.energy, root)
    changes["base"] = _local(loaded.base, root)
    changes["bases"] = [_local(further, root) for further in loaded.bases]
    if loaded.local.data is not None:
        changes["local"] = loaded.local.model_copy(update={"data": _below(loaded.local.data, root)})
    if loaded.centre is not None:
        changes["centre"] = loaded.centre.model_copy(update={"data": _below(loaded.centre.data, root)})
    return loaded.model_copy(update=changes)


AnyBase = TypeVar("AnyBase", bound=BaseSection)


def _local(base: AnyBase, root: Path) -> AnyBase:
    """The base with an absolute path, if there is such a folder or file (no error for what can be no path)."""
    local = _below(Path(base.model), root)
    return base.model_copy(update={"model": str(local)}) if os.path.exists(local) else base


def _load(path: Path, model: type[Model]) -> Model:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.", "", "Write one with: tequio init FOLDER") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder.", f"Expected a {model.__doc__}", "Give the file inside it.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not UTF-8 (line {line}).", "", "Save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML:", f"{error}.") from None
    return validated(raw, model, path)


def validated(raw: Mapping[str, Any], model: type[Model], path: Path) -> Model:
    """`raw` as a section. Raises ConfigError naming `path`, from which it comes or where it goes, and each faulty key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}:", "; ".join(_explain(e, model) for e in error.errors())) from None


def _explain(error: Any, model: type[Section]) -> str:
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {where!r}, did you mean {near[0]!r}? Known here: {', '.join(known)}."
    if error["type"] == "missing":
        return f"the key {where!r} is missing."
    message = EXPECTED.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    got = error.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"{where + ': ' if where else ''}{message}{shown}."


def _keys_at(model: type[Section], loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the table at `loc`, following nested sections and lists of sections."""
    current: type[BaseModel] = model
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        for candidate in (annotation, *_arguments(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                current = candidate
                break
    return list(current.model_fields)


def _arguments(annotation: Any) -> tuple[Any, ...]:
    found: list[Any] = []
    for argument in getattr(annotation, "__args__", ()):
        found += [argument, *_arguments(argument)]
    return tuple(found)
