"""federation.toml as a whole: its tables, and what must hold between them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from tequio.config.accounting import (
    BudgetSection,
    EnergySection,
    EquitySection,
    MoneySection,
    ShiftSection,
)
from tequio.config.fields import Name, Section
from tequio.config.methods import (
    AlgorithmSection,
    DistilSection,
    GateSection,
    LocalSection,
    PersonalSection,
    ScreenSection,
    TopologySection,
)
from tequio.config.presets import resolved
from tequio.config.sections import (
    MAIN,
    AdapterSection,
    BaseSection,
    CentreSection,
    FurtherBase,
    RosterEntry,
    TaskSection,
    TrainSection,
)
from tequio.core.errors import ConfigError
from tequio.core.seeds import derive

BY_NEED = ("q_ffl", "term")  # weightings that go by the last validation loss of each participant


class Federation(Section):
    """What all participants agree to. It is public inside the federation: no private path belongs
    here.
    """

    name: Annotated[Name, Field(description="Name of the run, and of its default folder `runs/NAME-SEED`.")]
    seed: Annotated[
        int,
        Field(
            ge=0,
            description="Number from which every random stream is derived. The same seed on the same machine "
            "type gives a bit-for-bit identical result, unless a measured speed changes an "
            "assignment.",
        ),
    ] = 0
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
    shift: ShiftSection | None = None
    participants: Annotated[list[RosterEntry], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _without_preset(cls, raw: Any) -> Any:
        return resolved(raw) if isinstance(raw, Mapping) else raw

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
        if self.shift and (self.topology.kind != "star" or self.bases or self.distil or self.train.pace == "buffered"):
            raise ValueError(
                'shift: rounds are those of a coordinator of one base; use a star, one base and pace = "rounds"'
            )
        if self.shift and self.shift.kg_co2e is not None and self.train.cohort is not None:
            raise ValueError("shift.kg_co2e: it says who sits out a round, and so does train.cohort; use one of them")
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
