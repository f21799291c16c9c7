"""The rounds of a federation across a network, for each of its bases, from the first record to the
last.

With several bases the groups take turns within a round: one is asked after the other, in one
record, as on one machine.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import Algorithm
from tequio.app.assembly.allocation import allocate_all
from tequio.app.assembly.budget import allowances, build_budget_tracker
from tequio.app.assembly.checks import join_groups
from tequio.app.assembly.context import ModelContext, at_coordinator, build_model_context
from tequio.app.assembly.manifest import begin_record, check_same_run, run_header
from tequio.app.assembly.profile import build_centre_profile
from tequio.app.assembly.public_data import CENTRE, Centre, PublicData, build_centre
from tequio.app.assembly.run_spec import build_run_spec
from tequio.app.assembly.setup import RunSetup
from tequio.app.network.coordinator.personal_models import PersonalPhase
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.coordinator.sums import NetworkSums, SumFiles
from tequio.app.run_files import base_file, begun_header, recorded_bases, recorded_header, unbroken
from tequio.app.stages import Outcome, Watch, end, general, mover, shared_models, tell_plan
from tequio.config import MAIN, Federation
from tequio.coordinator.buffered_network import Windows
from tequio.coordinator.distillation import Group
from tequio.coordinator.federate import Advance, federate, star
from tequio.coordinator.limits import StarLimits
from tequio.coordinator.multi_base import States, group_rounds
from tequio.coordinator.round import run_round
from tequio.coordinator.run_spec import Member
from tequio.core.durations import duration
from tequio.core.errors import NetworkError, RunError
from tequio.core.events import EventHandler
from tequio.core.protocols import Runtime
from tequio.core.texts.words import ENGLISH, refusal
from tequio.core.types import Failure, PersonaliseRequest, Reply, Request
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.residual import Residual
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.workers import Workers


@dataclass(frozen=True)
class Seat:
    """What the coordinator has for one base: what is loaded of it, for the federation of those who
    train over it, and the centre.
    """

    name: str
    context: ModelContext
    centre: Centre

    @property
    def here(self) -> Embedded:
        """The participants of this process: the centre, if there is one."""
        return Embedded({} if self.centre.node is None else {0: self.centre.node})


@dataclass(frozen=True)
class Turn:
    """The network, with the centre of one base at this end.

    Groups take turns, so one network serves all.
    """

    net: FlowerRuntime
    here: Embedded

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """As the network does."""
        self.net.here = self.here
        yield from self.net.exchange(tasks)


def build_seats(
    config: Federation, algorithm: Algorithm, public: PublicData, run: Path
) -> tuple[Seat, ...]:
    """One a base, that of [base] first; each centre with its error-feedback memory in the run's
    folder.
    """
    header, seats = begun_header(run), []
    known = {} if header is None else recorded_bases(header)
    for name in config.base_names():
        context = at_coordinator(
            build_model_context(
                config.part(name), {}, recorded=known.get(name), algorithm=algorithm
            )
        )
        centre = build_centre(context, public)
        if centre.node is not None:
            centre = replace(
                centre,
                node=replace(
                    centre.node,
                    memory=Residual(RunFolder(run), base_file(name, f"participants/{CENTRE}")),
                ),
            )
        seats.append(Seat(name, context, centre))
    return tuple(seats)


def conduct(
    path: Path,
    roster: Roster,
    seats: Sequence[Seat],
    public: PublicData,
    personal_phase: PersonalPhase,
    watch: Watch,
) -> Outcome:
    """Begin the run, or resume it, and bring it to its end."""
    with _ledger(path, roster, seats, public) as (folder, ledger):
        roster.ledger, header = ledger, recorded_header(ledger, folder)
        setup = _whole(roster, seats, header)
        turns: dict[str, Turn | NetworkSums] = {
            seat.name: Turn(roster.net, seat.here) for seat in seats
        }
        if setup.config.privacy.mode == "masked":
            turns = {
                MAIN: NetworkSums(
                    Turn(roster.net, seats[0].here), roster, setup.run_spec, SumFiles(folder)
                )
            }
        states: States | None = None
        tell_plan(watch, {"rounds": float(setup.run_spec.rounds)})
        for states, body in _made(setup, turns, ledger, roster):
            round_, rounds = states[MAIN].round, setup.run_spec.rounds
            watch("rounds", f"round {round_} of {rounds}", round_, rounds)
            if losses := states[MAIN].losses:
                mover(watch, "rounds")(0.0, sum(losses.values()) / len(losses))
            _say_round(round_, rounds, body, roster.say)
        if states is None:
            raise refusal(RunError, "no-round-made")
        roster.say("All rounds are done.", "rounds-over", stage="personal models")
        main, *others = [
            replace(group, run_spec=roster.current_spec(group.run_spec, group.name))
            for group in setup.groups
        ]
        setup = replace(main, others=tuple(others))
        best = {name: state.best_round for name, state in states.items()}

        def personal(shared: Mapping[str, Update]) -> None:
            allowed = allowances(setup.config, ledger, one_process=False)
            personal_phase.ask(
                ledger,
                [
                    PersonaliseRequest(
                        best[g.name],
                        m.index,
                        m.name,
                        shared[g.name],
                        m.rank,
                        m.steps,
                        allowed.get(m.name, {}),
                    )
                    for g in setup.groups
                    for m in g.run_spec.members
                ],
                roster.barred_members(),
            )

        return finish(folder, ledger, states, setup, turns, personal, watch, roster.traffic)


def _made(
    setup: RunSetup, turns: Mapping[str, Turn | NetworkSums], ledger: Ledger, roster: Roster
) -> Iterator[tuple[States, dict[str, Any] | None]]:
    """Yield the states by base, and the record, after each committed round."""
    if setup.others or setup.distillation is not None:
        groups = [Group(g.name, g.run_spec, turns[g.name], g.public) for g in setup.groups]
        yield from federate(group_rounds(groups, setup.distillation), ledger, setup.meter, roster)
        return
    turn = turns[MAIN]
    runtime: Runtime = roster.net
    advance: Advance | None = (
        Windows(roster.net) if setup.run_spec.window_seconds is not None else None
    )
    if isinstance(turn, NetworkSums):
        runtime, advance = turn, partial(run_round, gather=turn.gather)
    else:
        roster.net.here = turn.here
    tracker = build_budget_tracker(setup.config, ledger, one_process=False)
    rounds = star(setup.run_spec, runtime, advance, MAIN)
    for state, body in federate(rounds, ledger, setup.meter, roster, StarLimits(tracker)):
        yield {MAIN: state}, body


def _whole(roster: Roster, seats: Sequence[Seat], header: Mapping[str, Any]) -> RunSetup:
    """Join the groups of all bases.

    Raises ConfigError or ResourceError if they must teach one another and cannot.
    """
    return join_groups(roster.config, [_group_setup(seat, roster, header) for seat in seats])


def _group_setup(seat: Seat, roster: Roster, header: Mapping[str, Any]) -> RunSetup:
    """Return one group, with the parts that its members have in the record."""
    row = header["centre"] if seat.name == MAIN else header["bases"][seat.name]["centre"]
    members = {
        i: roster.members[i] for i in sorted(roster.members) if roster.base_of(i) == seat.name
    }
    began = [each for each in header["participants"] if each.get("base", MAIN) == seat.name]
    if row is not None:
        members[0] = Member(CENTRE, 0, int(row["rank"]), int(row["steps"]))
        began.append(row)
    return RunSetup(
        **vars(seat.context),
        run_spec=build_run_spec(seat.context, members, max(int(each["rank"]) for each in began)),
        nodes={} if seat.centre.node is None else {0: seat.centre.node},
        report_slices=seat.centre.held_out,
        name=seat.name,
    )


def _say_round(round_: int, rounds: int, body: Mapping[str, Any] | None, say: EventHandler) -> None:
    """Log one event per round, and one for each participant whose update does not count."""
    if body is None:
        say(f"At round {round_} of {rounds}.", "begun", stage="rounds", round=round_, rounds=rounds)
        return
    verdict, loss, seconds = body["accepted"], body["mean_validation_loss"], body["seconds"]
    words = (
        f"Round {round_} of {rounds}: "
        f"{'accepted' if verdict else 'rejected: ' + ENGLISH.reason(body['reason'])}, validation "
        f"loss {'–' if loss is None else f'{loss:.4f}'}, {duration(seconds)}."
    )
    say(words, "round", round=round_, rounds=rounds, accepted=verdict, loss=loss, seconds=seconds)
    for row in body["admissions"]:
        if row["status"] != "admitted":
            words = (
                f"Round {round_}: {row['name']} {row['status']}: {ENGLISH.reason(row['reason'])}"
            )
            say(
                words,
                "update-not-counted",
                "warning",
                round=round_,
                participant=row["name"],
                status=row["status"],
                reason=row["reason"]["code"],
            )


@contextmanager
def _ledger(
    path: Path, roster: Roster, seats: Sequence[Seat], public: PublicData
) -> Iterator[tuple[RunFolder, Ledger]]:
    """Open the run's folder and ledger, new or resumed.

    Raises RunError if what it began with has changed.
    """
    if (path / "ledger.sqlite").exists():
        folder = RunFolder.open(path)
        with folder.lock(), unbroken(folder) as ledger:
            recorded = recorded_header(ledger, folder)
            # without the participants: they send their profiles later, and may not be connected yet
            check_same_run(path, _header(roster.config, seats, public, {}), recorded)
            roster.restore(recorded, ledger)
            yield folder, ledger
        return
    header = _begin(roster, seats, public)
    folder = RunFolder.create(path, private=True)
    bases = {seat.name: seat.context.adapted for seat in seats}
    with folder.lock(), begin_record(folder, header, bases) as ledger:
        yield folder, ledger


def _header(
    config: Federation,
    seats: Sequence[Seat],
    public: PublicData,
    rows: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[str, Any]:
    """How the run begins. rows: by base."""
    return run_header(
        config,
        [(seat.name, seat.context, rows.get(seat.name, ())) for seat in seats],
        seats[0].centre,
        public,
    )


def _begin(roster: Roster, seats: Sequence[Seat], public: PublicData) -> dict[str, Any]:
    """Wait for a quorum, and allot everybody's part: the header of the record."""
    profiles, rows = roster.start(), dict[str, Sequence[dict[str, Any]]]()
    for seat in seats:
        own = {i: said for i, said in profiles.items() if roster.base_of(i) == seat.name}
        if not own:
            raise refusal(NetworkError, "base-without-participants", base=seat.name)
        if seat.centre.node is not None and public.splits is not None:
            own[0] = build_centre_profile(seat.context.config, seat.centre.node, public.splits)
        given = allocate_all(seat.context, own)
        parts = {i: roster.row(seat.name, own[i], given[own[i].name]) for i in sorted(own)}
        for i in sorted(own.keys() - {0}):
            roster.register(i, parts[i], roster.commitments[i])
        rows[seat.name] = list(parts.values())
    header = _header(roster.config, seats, public, rows) | {
        "simulation": False,
        "provenance": [],
        "counterfactuals": False,
        "commitment": {roster.names[i]: said for i, said in roster.commitments.items()},
        "invitations": {roster.names[i]: roster.invited.get(i, 0) for i in roster.commitments},
    }
    _whole(roster, seats, header)  # before anything is written
    return header


def finish(
    folder: RunFolder,
    ledger: Ledger,
    states: States,
    setup: RunSetup,
    runtimes: Mapping[str, Runtime],
    personal: Callable[[Mapping[str, Update]], None],
    watch: Watch,
    carried: Callable[[], dict[str, Any]],
) -> Outcome:
    """The end of a run whose participants are elsewhere:

    `personal` has them make their models of the shared ones, and records it.

    runtimes: by base. carried: what went over the network since the record before.
    """
    shared = shared_models(folder, ledger, states, (setup,), watch, runtimes)
    watch("personal", "at the participants", 0, 1)
    personal(shared)
    if ledger.last("general") is None:
        watch("general", "public slices", 0, 1)
        with Workers(1) as workers:
            ledger.append("general", general((setup,), shared, workers))
    return end(folder, ledger, states, setup, carried())
