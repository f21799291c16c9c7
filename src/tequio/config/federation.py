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
from tequio.config.fields import Name, Section, Unfit, refuse
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
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal

BY_NEED = ("q_ffl", "term")  # weightings that go by the last validation loss of each participant


class Federation(Section):
    """What all participants agree to. It is public inside the federation: no private path belongs
    here.
    """

    name: Annotated[
        Name, Field(description="Name of the run, and of its default folder `runs/NAME-SEED`.")
    ]
    seed: Annotated[
        int,
        Field(
            ge=0,
            description="Number from which every random stream is derived. The same seed on the "
            "same machine type gives a bit-for-bit identical result, unless a measured speed "
            "changes an assignment.",
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
        names, train, weights = (
            [p.name for p in self.participants],
            self.train,
            self.algorithm.weights,
        )
        twice = ", ".join(sorted(n for n, times in Counter(names).items() if times > 1))
        cohort, quorum, buffer = train.cohort, train.quorum or 0, train.buffer or 1
        most = cohort or len(names)
        first = 0 if self.centre is None else self.centre.first
        refuse(
            (twice, Reason("name-twice", {"name": twice})),
            ("centre" in names, Reason("name-of-centre")),
            (
                cohort is not None and cohort > len(names),
                Reason("cohort-too-large", {"count": cohort, "most": len(names)}),
            ),
            (
                cohort is not None and weights in BY_NEED,
                Reason("cohort-by-need", {"weights": weights}),
            ),
            (
                buffer > most,
                Reason("buffer-too-large", {"count": buffer, "most": most}),
            ),
            (
                quorum > most,
                Reason("quorum-too-large", {"count": quorum, "most": most}),
            ),
            (
                quorum and (self.bases or self.topology.kind != "star"),
                Reason("quorum-of-several"),
            ),
            (
                self.adapter.kind == "full" and self.algorithm.broadcast_rank is not None,
                Reason("broadcast-of-full"),
            ),
            (
                first >= train.rounds,
                Reason("centre-takes-all", {"count": first, "rounds": train.rounds}),
            ),
            (
                first and train.pace == "buffered",
                Reason("centre-first-buffered"),
            ),
        )
        return self

    @model_validator(mode="after")
    def _screening_fits(self) -> Federation:
        screen = self.screen
        refuse(
            (
                screen.loss_action != "record" and screen.loss is None,
                Reason("loss-action-alone"),
            ),
            (
                screen.cosine_action != "record" and screen.cosine is None,
                Reason("cosine-action-alone"),
            ),
            (
                self.gate.slices and self.centre is None,
                Reason("slices-without-centre"),
            ),
            (
                screen.loss is not None and not self.gate.slices,
                Reason("loss-without-slices"),
            ),
            (
                screen.cosine is not None and screen.cosine_to == "centre" and self.centre is None,
                Reason("cosine-without-centre"),
            ),
            (
                screen.cosine is not None
                and screen.cosine_to == "others"
                and len(self.participants) < 3,
                Reason("cosine-of-two"),
            ),
        )
        return self

    @model_validator(mode="after")
    def _bases_fit(self) -> Federation:
        known, held = self.base_names(), [entry.base for entry in self.participants]
        twice = next((name for name in sorted(known) if known.count(name) > 1), None)
        refuse((twice, Reason("base-twice", {"name": twice, "main_base": MAIN})))
        for entry in self.participants:
            if entry.base not in known:
                near = difflib.get_close_matches(entry.base, known, n=1, cutoff=0.0)[0]
                facts = {"name": entry.name, "base": entry.base, "nearest": near, "names": known}
                raise Unfit(Reason("base-unknown", facts))
        shared = next(
            (e.name for e in self.participants if e.name in {f"shared-{name}" for name in known}),
            None,
        )
        unused = next((name for name in known if name not in held), None)
        least = min(known, key=held.count)
        members = held.count(least)
        cohort = self.train.cohort or 0
        refuse(
            (shared, Reason("name-of-shared", {"name": shared})),
            (unused, Reason("base-unused", {"base": unused})),
            (
                self.bases and cohort > members,
                Reason("cohort-of-base", {"count": cohort, "base": least, "members": members}),
            ),
            (
                self.bases
                and self.screen.cosine is not None
                and self.screen.cosine_to == "others"
                and members < 3,
                Reason("cosine-of-base", {"base": least, "members": members}),
            ),
        )
        return self

    @model_validator(mode="after")
    def _coordinator_fits(self) -> Federation:
        peers, distil, budget, shift = (
            self.topology.kind != "star",
            self.distil,
            self.budget,
            self.shift,
        )
        timed = shift is not None and shift.kg_co2e is not None
        refuse(
            (
                budget.money is not None and self.money is None,
                Reason("budget-without-currency"),
            ),
            (
                budget.kg_co2e is not None
                and self.energy.country is None
                and self.energy.intensity is None,
                Reason("budget-without-place"),
            ),
            (
                budget.limits() and (peers or self.bases or distil),
                Reason("budget-of-several"),
            ),
            (
                shift and (peers or self.bases or distil or self.train.pace == "buffered"),
                Reason("shift-of-several"),
            ),
            (
                timed and self.train.cohort is not None,
                Reason("shift-with-cohort"),
            ),
            (
                self.equity.credit and (peers or self.adapter.kind == "full"),
                Reason("credit-unseen"),
            ),
            (
                peers and (self.bases or distil),
                Reason("peers-of-several"),
            ),
            (
                distil and distil.teachers == "participants" and self.train.pace == "buffered",
                Reason("distil-buffered"),
            ),
            (
                distil and self.adapter.kind == "full",
                Reason("distil-of-full"),
            ),
            (distil and self.centre is None, Reason("distil-without-centre")),
            (
                distil and distil.teachers == "groups" and not self.bases,
                Reason("distil-of-one"),
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
        raise refusal(
            ConfigError,
            "not-on-roster",
            name=participant,
            names=[p.name for p in self.participants],
        )

    def part(self, base: str) -> Federation:
        """The federation of the participants of one base, as if it were the only one; its random
        streams are its own.

        It is a whole federation: theirs is its main base, and nobody teaches it.
        """
        members = [
            entry.model_copy(update={"base": MAIN})
            for entry in self.participants
            if entry.base == base
        ]
        if base == MAIN:
            return self.model_copy(update={"participants": members, "bases": [], "distil": None})
        own = next(further for further in self.bases if further.name == base)
        changes: dict[str, Any] = {
            "seed": derive(self.seed, "base", base),
            "base": BaseSection(model=own.model, licence=own.licence, dtype=own.dtype),
            "adapter": self.adapter.model_copy(
                update={"modules": own.modules or self.adapter.modules}
            ),
            "participants": members,
            "bases": [],
            "distil": None,
        }
        return self.model_copy(update=changes)
