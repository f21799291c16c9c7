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
from tequio.config.fields import Name, Section, refuse
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
from tequio.config.privacy import PrivacySection
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
    privacy: PrivacySection = PrivacySection()
    participants: Annotated[list[RosterEntry], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _without_preset(cls, raw: Any) -> Any:
        return resolved(raw) if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _rounds_fit(self) -> Federation:
        names, train, weights = [p.name for p in self.participants], self.train, self.algorithm.weights
        twice = ", ".join(sorted(n for n, times in Counter(names).items() if times > 1))
        cohort, quorum, buffer = train.cohort, train.quorum or 0, train.buffer or 1
        most = cohort or len(names)
        first = 0 if self.centre is None else self.centre.first
        refuse(
            (twice, f"participants: {twice} is on the roster twice"),
            ("centre" in names, "participants: the name 'centre' is taken by the central resource"),
            (
                cohort is not None and cohort > len(names),
                f"train.cohort = {cohort} is more than the {len(names)} participants: leave it out, and everybody "
                "takes part",
            ),
            (
                cohort is not None and weights in BY_NEED,
                f"algorithm.weights = {weights!r} needs every participant's validation loss, which train.cohort does "
                "not measure: use 'norm_equalised', or leave cohort out",
            ),
            (
                buffer > most,
                f"train.buffer = {buffer} is more than the {most} who take part in a round: lower it, or no step is "
                "ever made",
            ),
            (
                quorum > most,
                f"train.quorum = {quorum} is more than the {most} who take part in a round: lower it, or no round is "
                "ever made",
            ),
            (
                quorum and (self.bases or self.topology.kind != "star"),
                "train.quorum: one base and a coordinator are needed; leave it out",
            ),
            (
                self.adapter.kind == "full" and self.algorithm.broadcast_rank is not None,
                "algorithm.broadcast_rank: with adapter.kind = 'full' there are no ranks; leave it out",
            ),
            (
                first >= train.rounds,
                f"centre.first = {first}: of {train.rounds} rounds none is left for the participants; raise "
                "train.rounds, or lower it",
            ),
            (
                first and train.pace == "buffered",
                'centre.first: with train.pace = "buffered" nobody waits for the centre; use "rounds"',
            ),
        )
        return self

    @model_validator(mode="after")
    def _screening_fits(self) -> Federation:
        screen = self.screen
        refuse(
            (
                screen.loss_action != "record" and screen.loss is None,
                "screen.loss_action: nothing is measured without screen.loss; give a limit, or leave it out",
            ),
            (
                screen.cosine_action != "record" and screen.cosine is None,
                "screen.cosine_action: nothing is measured without screen.cosine; give a limit",
            ),
            (
                self.gate.slices and self.centre is None,
                "gate.slices: the centre evaluates the public slices, so [centre] is needed",
            ),
            (
                screen.loss is not None and not self.gate.slices,
                "screen.loss: updates are tried on public slices, so gate.slices is needed",
            ),
            (
                screen.cosine is not None and screen.cosine_to == "centre" and self.centre is None,
                'screen.cosine_to: there is no [centre]; use "others"',
            ),
            (
                screen.cosine is not None and screen.cosine_to == "others" and len(self.participants) < 3,
                "screen.cosine: of two that disagree nobody can say which is wrong; 3 participants are needed",
            ),
        )
        return self

    @model_validator(mode="after")
    def _bases_fit(self) -> Federation:
        known, held = self.base_names(), [entry.base for entry in self.participants]
        twice = next((name for name in sorted(known) if known.count(name) > 1), None)
        refuse((twice, f"bases: {twice!r} is there twice ([base] itself is called {MAIN!r})"))
        for entry in self.participants:
            if entry.base not in known:
                near = difflib.get_close_matches(entry.base, known, n=1, cutoff=0.0)[0]
                why = f"participants: {entry.name} has base = {entry.base!r}, which no [[bases]] is called"
                raise ValueError(f"{why}; did you mean {near!r}? Known: {', '.join(known)}")
        shared = next((e.name for e in self.participants if e.name in {f"shared-{name}" for name in known}), None)
        unused = next((name for name in known if name not in held), None)
        least = min(known, key=held.count)
        members = held.count(least)
        cohort = self.train.cohort or 0
        refuse(
            (shared, f"participants: the name {shared!r} is taken by the shared model of that base"),
            (unused, f"bases: no participant has base = {unused!r}; give it one, or leave that base out"),
            (
                self.bases and cohort > members,
                f"train.cohort = {cohort} is of each base, and {least!r} has {members} participants",
            ),
            (
                self.bases and self.screen.cosine is not None and self.screen.cosine_to == "others" and members < 3,
                f"screen.cosine: 3 participants of each base are needed, and {least!r} has {members}",
            ),
        )
        return self

    @model_validator(mode="after")
    def _coordinator_fits(self) -> Federation:
        peers, distil, budget, shift = self.topology.kind != "star", self.distil, self.budget, self.shift
        timed = shift is not None and shift.kg_co2e is not None
        refuse(
            (
                budget.money is not None and self.money is None,
                "budget.money: in which currency? Add [money]; costs in other ones are not counted",
            ),
            (
                budget.kg_co2e is not None and self.energy.country is None and self.energy.intensity is None,
                "budget.kg_co2e: the coordinator's carbon is not known; say [energy] country or intensity",
            ),
            (
                budget.limits() and (peers or self.bases or distil),
                "budget: it is kept by a coordinator of one base; use a star with one base, or leave it out",
            ),
            (
                shift and (peers or self.bases or distil or self.train.pace == "buffered"),
                'shift: rounds are those of a coordinator of one base; use a star, one base and pace = "rounds"',
            ),
            (
                timed and self.train.cohort is not None,
                "shift.kg_co2e: it says who sits out a round, and so does train.cohort; use one of them",
            ),
            (
                self.equity.credit and (peers or self.adapter.kind == "full"),
                "equity.credit: updates of a round are compared at the coordinator, as adapters; use a star and "
                'adapter.kind = "lora", or leave it out',
            ),
            (
                peers and (self.bases or distil),
                'topology: peers exchange changes of one base and have no centre that distils; use "star"',
            ),
            (
                distil and distil.teachers == "participants" and self.train.pace == "buffered",
                'distil: replies of buffered rounds began from different models; use teachers = "groups"',
            ),
            (
                distil and self.adapter.kind == "full",
                'distil: what is distilled is an adapter, and whole weights are trained; use kind = "lora"',
            ),
            (distil and self.centre is None, "distil: it needs public texts, so [centre] is needed"),
            (
                distil and distil.teachers == "groups" and not self.bases,
                'distil: with one base a model would teach itself; set teachers = "participants"',
            ),
        )
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
