"""What participants agreed to, and a runtime that compares every request of a real coordinator with
it, as a participant does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tequio.app.assembly.budget import allowances, build_budget_tracker
from tequio.app.assembly.profile import ParticipantProfile, build_node_profile
from tequio.app.assembly.setup import RunSetup
from tequio.app.network.participant.agreement import Agreement, Asked, build_agreement, check_task
from tequio.app.saved_models import sent_with
from tequio.config import MAIN, Federation, HardwareSection, load_participant
from tequio.coordinator.distillation import Group
from tequio.coordinator.federate import Advance, federate, star
from tequio.coordinator.interpolation import points
from tequio.coordinator.limits import StarLimits
from tequio.coordinator.multi_base import States, group_rounds
from tequio.coordinator.round import shared_model
from tequio.core.canonical import canonical_json, digest, digest_update
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    PersonaliseRequest,
    Reply,
    Request,
    TrainRequest,
)
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded


def agreements(setup: RunSetup, whole: Federation, own: bool = True) -> dict[int, Agreement]:
    """By index, what each participant agreed to.

    own: by what it told of itself; else by the file alone, as the further processes of a
        participant do.
    """
    found = {}
    for group in setup.groups:
        for index, node in group.nodes.items():
            if index == 0:
                continue
            entry = whole.participants[index - 1]
            hardware = (
                load_participant(entry.file, entry.name).hardware if own else HardwareSection()
            )
            facts = json.loads(canonical_json(build_node_profile(node, hardware, {}).facts()))
            found[index] = build_agreement(whole, ParticipantProfile.of(node.name, facts), group)
    return found


@dataclass
class Compared:
    """Participants that compare each request, as it came over the network, before they work. asked:
    what came so far, by index.

    takes: windows that a task of this index takes, if not one.
    """

    inner: Embedded
    agreed: Mapping[int, Agreement]
    others: Mapping[int, Agreement] = field(default_factory=dict)
    asked: dict[int, Asked] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    takes: Mapping[int, int] = field(default_factory=dict)
    held: dict[int, tuple[int, Reply | Failure]] = field(default_factory=dict)
    now: int = 0

    def compare(self, request: Request) -> None:
        """Raise AgreementError as the participant would."""
        if request.index == 0:
            return
        data = pack_message(request)
        task = unpack_message(data, "a request", REQUESTS)
        agreed, asked = self.agreed[task.index], self.asked.setdefault(task.index, Asked())
        check_task(task, agreed)
        if self.others:
            check_task(task, self.others[task.index])
        if isinstance(task, EvaluateRequest):
            asked.check_look(task.round, digest(data), agreed)
        if isinstance(task, TrainRequest):
            inner = self.inner.participants[task.index]
            model = digest_update(sent_with(task, inner.adapted.scale))  # type: ignore[attr-defined]
            asked.check_trained(task, model, digest_update(task.gradient) if task.gradient else "")
        self.requests.append(task)  # type: ignore[arg-type]

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Each is compared, then done."""
        for task in tasks:
            self.compare(task)
            yield from self.inner.exchange([task])

    def working(self) -> set[int]:
        """Who has a task of a window and has not answered."""
        return set(self.held)

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        """As the network does where some need several windows."""
        self.now += 1
        for reply in self.exchange(tasks):
            self.held[reply.index] = (self.now + self.takes.get(reply.index, 1) - 1, reply)
        for index, (due, reply) in sorted(self.held.items()):
            if due <= self.now:
                del self.held[index]
                yield reply


def coordinate_all(
    setup: RunSetup,
    whole: Federation,
    runtimes: Mapping[str, Compared],
    ledger: Path,
    advance: Advance | None = None,
) -> None:
    """Everything that a coordinator asks across a network: profiles, rounds, points between base
    and model, personal models.
    """
    for group in setup.groups:
        for index, node in group.nodes.items():
            runtimes[group.name].compare(DescribeRequest(0, index, node.name))
    record = Ledger.open(ledger) if ledger.exists() else Ledger.create(ledger, setup.header)
    with record:
        *_, states = _rounds(setup, whole, runtimes, record, advance)
        personalise_all(setup, whole, runtimes, record, states)


def personalise_all(
    setup: RunSetup,
    whole: Federation,
    runtimes: Mapping[str, Compared],
    record: Ledger,
    states: Mapping[str, Any],
) -> None:
    """After the rounds: the points, then a personal model of each."""
    allowed = allowances(whole, record, one_process=False)
    for group in setup.groups:
        state, spec, runtime = states[group.name], group.run_spec, runtimes[group.name]
        model = shared_model(state.best, spec)
        if whole.gate.interpolate:
            points(model, whole.gate.interpolate, state, spec, runtime)
        for member in spec.members:
            part = (member.index, member.name, model, member.rank, member.steps)
            runtime.compare(
                PersonaliseRequest(state.best_round, *part, allowed.get(member.name, {}))
            )


def _rounds(
    setup: RunSetup,
    whole: Federation,
    runtimes: Mapping[str, Compared],
    record: Ledger,
    advance: Advance | None,
) -> Iterator[States]:
    if setup.others or setup.distillation is not None:
        groups = [Group(g.name, g.run_spec, runtimes[g.name], g.public) for g in setup.groups]
        for states, _ in federate(group_rounds(groups, setup.distillation), record, setup.meter):
            yield states
        return
    tracker = build_budget_tracker(whole, record, one_process=False)
    rounds = star(setup.run_spec, runtimes[MAIN], advance)
    for state, _ in federate(rounds, record, setup.meter, limits=StarLimits(tracker)):
        yield {MAIN: state}


def compared(
    setup: RunSetup, whole: Federation, takes: Mapping[int, int] | None = None
) -> dict[str, Compared]:
    """The participants of each base, with what they agreed to; alone, and as one of several
    processes.
    """
    own, file = agreements(setup, whole), agreements(setup, whole, own=False)
    return {g.name: Compared(Embedded(g.nodes), own, file, takes=takes or {}) for g in setup.groups}


def first_request(requests: Iterable[Request], kind: type, round_: int = 1, index: int = 1) -> Any:
    """The request of this kind, round and participant."""
    found = (r for r in requests if isinstance(r, kind) and (r.round, r.index) == (round_, index))
    return next(found)
