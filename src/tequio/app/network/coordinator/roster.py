"""The participants of a run across a network: each sends its profile, gets its part once, and is
recorded.

A run begins with a quorum of the roster. A participant that comes later joins at the next round.
One that leaves costs the others nothing, and one that comes back has its old part.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tequio.app.assembly.allocation import allocate_all
from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.manifest import comparable, participant_row
from tequio.app.assembly.profile import ParticipantProfile
from tequio.app.network.hub.folder import count_invitations, left, node_numbers
from tequio.config import Federation
from tequio.coordinator.evaluation import failure_reason
from tequio.coordinator.round import ShortRound
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import canonical_json
from tequio.core.durations import duration
from tequio.core.errors import ConfigError, MessageError, NetworkError, RunError
from tequio.core.events import EventHandler
from tequio.core.reason import Reason
from tequio.core.replies import read_description
from tequio.core.texts.words import ENGLISH, refusal
from tequio.core.types import DescribeRequest, Failure
from tequio.ledger.record import Ledger
from tequio.planning.allocation import Assignment
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.trust.secure_sum.agreement import LEAST_MEMBERS

LOOK = 0.2  # seconds between two looks at which participants are connected
ANSWER = 60.0  # seconds within which a participant that has just connected must send its profile
PAUSE, TRIES = (
    2.0,
    10,
)  # seconds more before each further try of a round, and tries before the run ends


def participant_names(config: Federation) -> dict[int, str]:
    """Return the names of the whole roster by index, from 1."""
    return {i: entry.name for i, entry in enumerate(config.participants, 1)}


def connected(folder: Path, config: Federation, net: FlowerRuntime) -> dict[int, str]:
    """Return the participants that are connected, by index, and since when.

    The keys that count are read again from the folder.
    """
    numbers = node_numbers(folder)
    net.nodes = {
        i: numbers[name] for i, name in participant_names(config).items() if name in numbers
    }
    return net.connections()


@dataclass
class Roster:
    """Hold the participants of a run: their parts, their connections, and why some are barred.

    folder: the coordinator's folder. contexts: by base. wait: seconds to wait for a quorum.
    rows, commitments: by index.
    """

    folder: Path
    config: Federation
    contexts: Mapping[str, ModelContext]
    net: FlowerRuntime
    wait: float
    say: EventHandler
    members: dict[int, Member] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    commitments: dict[int, str] = field(default_factory=dict)
    ledger: Ledger | None = None
    asked: dict[int, str] = field(
        default_factory=dict
    )  # index -> the connection in which it was asked
    barred: dict[int, Reason] = field(default_factory=dict)  # index -> why it cannot take part
    # Barred participants whose replies cannot be used: the quorum does not count them.
    unreadable: set[int] = field(default_factory=set)
    # Index -> how often it was invited again, as recorded.
    invited: dict[int, int] = field(default_factory=dict)
    made: int = 0  # rounds
    tries: tuple[int, int] = (0, 0)  # round, and how often it was short

    @property
    def quorum(self) -> int:
        """Return how many participants must be connected to begin.

        It is the number in federation.toml, or else all participants that did not leave and whose
        replies can be used.
        """
        without = left(self.folder).keys() | {self.names[i] for i in self.unreadable}
        without |= {self.names[i] for i in self.barred if i in self.members}
        least = LEAST_MEMBERS if self.config.privacy.mode == "masked" else 1
        return max(least, self.config.train.quorum or len(self.config.participants) - len(without))

    @property
    def names(self) -> dict[int, str]:
        """Return the names of the whole roster by index, from 1."""
        return participant_names(self.config)

    def base_of(self, index: int) -> str:
        """Return the base that a participant trains."""
        return self.config.participants[index - 1].base

    def here(self) -> dict[int, str]:
        """Return the participants that are connected, by index, and since when."""
        return connected(self.folder, self.config, self.net)

    def wait_for_quorum(self) -> None:
        """Wait for a quorum of participants that can take part and are free.

        Raises NetworkError naming the missing ones.
        """
        end, announced = time.monotonic() + self.wait, ""
        while True:
            self.net.settle()
            there = [
                i
                for i, since in self.here().items()
                if i not in self.net.pending and self._may(i, since)
            ]
            if len(there) >= self.quorum:
                self.net.expect(())
                return
            gone = left(self.folder)
            absent = [name for i, name in self.names.items() if i not in there and name not in gone]
            missing = ", ".join(absent)
            self.net.expect(absent)
            if missing != announced:
                self.say(
                    f"{len(there)} of {self.quorum} are there. Waiting for {missing}.",
                    "waiting",
                    stage="waiting",
                    missing=missing,
                )
                announced = missing
            if time.monotonic() > end:
                barred = [
                    {"name": self.names[i], "reason": why.as_record()}
                    for i, why in self.barred.items()
                ]
                facts = {
                    "names": absent,
                    "there": len(there),
                    "quorum": self.quorum,
                    "seconds": self.wait,
                }
                facts |= {"barred": barred} if barred else {}
                raise refusal(NetworkError, "quorum-barred" if barred else "quorum-absent", **facts)
            time.sleep(LOOK)

    def start(self) -> dict[int, ParticipantProfile]:
        """Return the profiles of the participants that are connected; their parts are not allotted
        yet.

        Raises NetworkError if they are too few.
        """
        facts: dict[int, dict[str, Any]] = {}
        while len(facts) < self.quorum:
            self.wait_for_quorum()
            facts |= self._describe(
                {i: since for i, since in self.here().items() if self.asked.get(i) != since}
            )
            if len(self.names) - len(self.barred) < self.quorum:
                name, why = self.names[min(self.barred)], self.barred[min(self.barred)]
                raise refusal(NetworkError, "cannot-take-part", name=name, why=why.as_record())
        self.commitments = {i: str(facts[i]["commitment"]) for i in sorted(facts)}
        self.invited = self._invited()
        return {i: ParticipantProfile.of(self.names[i], facts[i]["told"]) for i in sorted(facts)}

    def restore(self, header: Mapping[str, Any], ledger: Ledger) -> None:
        """Wait for a quorum, unless all rounds are done; participants keep the parts that they had.

        One that came back with other data is left out. Raises RunError if those that remain are too
        few.
        """
        indices = {name: i for i, name in self.names.items()}
        self.invited = {indices[name]: n for name, n in header.get("invitations", {}).items()}
        for row in header["participants"]:
            self.register(indices[row["name"]], row, header["commitment"][row["name"]])
        for entry in ledger.entries("joined"):
            row = entry.body["participant"]
            self.register(indices[row["name"]], row, entry.body["commitment"])
            self.invited[indices[row["name"]]] = entry.body.get("invitation", 0)
        last = ledger.last("round")
        self.made = 0 if last is None else int(last.body["round"])
        if ledger.last("shared") is None:
            self.wait_for_quorum()
        known = {i: since for i, since in self.here().items() if i in self.members}
        self.ledger = ledger
        self._verify(self._describe(known), None)
        changed = self.barred_members()
        if changed and len(self.members) - len(changed) < (self.config.train.quorum or 1):
            raise refusal(
                RunError,
                "members-barred",
                barred=[{"name": name, "reason": why.as_record()} for name, why in changed.items()],
            )

    def admit_newcomers(self, run_spec: RunSpec, round_: int, base: str) -> RunSpec:
        """Return the plan of one base with the participants that came since the last round.

        Each of them is recorded.
        """
        self.made = round_ - 1
        self._leaves()
        gone = left(self.folder)
        here = {i: since for i, since in self.here().items() if self.base_of(i) == base}
        new = {i: since for i, since in here.items() if self.asked.get(i) != since}
        if not new and not any(member.name in gone for member in run_spec.members):
            return run_spec
        facts = self._describe(new)
        self._verify({i: said for i, said in facts.items() if i in self.members}, round_)
        for i, said in facts.items():
            if i not in self.members and i not in self.barred:
                self._join(i, said, run_spec, round_)
        return self.current_spec(run_spec, base)

    def current_spec(self, run_spec: RunSpec, base: str) -> RunSpec:
        """Return the plan of one base with all its present participants.

        Participants that left or cannot take part are not in it.
        """
        gone = left(self.folder).keys() | {self.names[i] for i in self.barred}
        members = (
            self.members[i] for i in sorted(self.members) if i > 0 and self.base_of(i) == base
        )
        return replace(
            run_spec, members=tuple(member for member in members if member.name not in gone)
        )

    def on_short_round(self, short: ShortRound) -> None:
        """Log why the round was short, and wait for a quorum.

        Raises `short` where the same round has failed too often: waiting does not mend it.
        """
        round_ = int(short.body["round"])
        self.tries = (round_, self.tries[1] + 1 if self.tries[0] == round_ else 1)
        if self.tries[1] >= TRIES:
            raise short
        words = f"{short.what} The coordinator tries it again. {short.why}"
        self.say(words, "round-short", "warning", round=round_)
        time.sleep(PAUSE * self.tries[1])
        self.wait_for_quorum()

    def barred_members(self) -> dict[str, Reason]:
        """Return, by name, why some participants of the run cannot take part any more."""
        return {self.names[i]: why for i, why in sorted(self.barred.items()) if i in self.members}

    def traffic(self) -> dict[str, Any]:
        """Return what the network carried and which participants are barred, for the record.

        Late replies are logged, too.
        """
        body = self.net.carried()
        if barred := self.barred_members():
            body["barred"] = [
                {"name": name, "reason": why.as_record()} for name, why in barred.items()
            ]
        for late in body.get("late", []):
            at = f"{duration(late['late_seconds'])} after its deadline"
            words = (
                f"{late['name']}: its reply to round {late['sent']} does not count ({at}): "
                f"{ENGLISH.reason(late['reason'])}"
            )
            self.say(
                words,
                "reply-late",
                "warning",
                participant=late["name"],
                sent=late["sent"],
                reason=late["reason"]["code"],
            )
        return body

    def _may(self, index: int, since: str) -> bool:
        """Return whether a participant is not barred, or has connected again since it was."""
        return index not in self.barred or self.asked.get(index) != since

    def _describe(self, connected: Mapping[int, str]) -> dict[int, dict[str, Any]]:
        """Ask each of these for its profile, and return the profiles that can be used, by index.

        A participant that does not answer or cannot take part is logged and left out.
        """
        found: dict[int, dict[str, Any]] = {}
        for reply in self.net.exchange(
            [DescribeRequest(self.made, i, self.names[i]) for i in sorted(connected)], ANSWER
        ):
            i = reply.index
            if isinstance(reply, Failure) and reply.error == NetworkError.__name__:
                self.say(
                    f"{reply.name} did not send its profile: "
                    f"{ENGLISH.reason(failure_reason(reply))}"
                )
                continue
            self.asked[i] = connected[i]
            self.barred.pop(i, None)
            self.unreadable.discard(i)
            if isinstance(reply, Failure):  # not asked again before it connects again
                self.unreadable.add(i)
                self._bar(
                    i, Reason("unreadable-profile", {"why": failure_reason(reply).as_record()})
                )
                continue
            try:
                facts = read_description(reply)
                ParticipantProfile.of(reply.name, facts["told"])
            except (MessageError, KeyError, TypeError, ValueError, ConfigError) as error:
                self.unreadable.add(i)
                where = error.what if isinstance(error, MessageError) else type(error).__name__
                self._bar(i, Reason("foreign-profile", {"why": where}))
                continue
            if facts["spec"] != self.contexts[self.base_of(i)].adapted.spec:
                self._bar(i, Reason("other-base"))
                continue
            found[i] = facts
        return dict(sorted(found.items()))

    def _bar(self, index: int, why: Reason, fix: str = "") -> None:
        self.barred[index], name = why, self.names[index]
        self.say(
            f"{name} cannot take part: {ENGLISH.reason(why)}.{fix}",
            "barred",
            "warning",
            participant=name,
            reason=why.code,
        )

    def _verify(self, facts: Mapping[int, Mapping[str, Any]], round_: int | None) -> None:
        """Bar each participant whose data are not those that it had before.

        A participant that lost its folder lost its salt too, so its data cannot be compared with
        those before. It is admitted only if it was invited again since its last record. It then has
        its old part, and the record has its new profile.
        """
        invited = self._invited()
        for i, said in facts.items():
            own = ParticipantProfile.of(self.names[i], said["told"])
            now = {"data": dict(own.data), "batches": dict(own.batches)}
            same = canonical_json(comparable(now)) == canonical_json(
                comparable({k: self.rows[i][k] for k in now})
            )
            if invited.get(i, 0) > self.invited.get(i, 0):
                fresh = {**self.rows[i], **now}
                try:
                    fresh |= self._within(i, own)
                except ConfigError as error:
                    self._bar(i, error.as_reason())
                    continue
                self._record(i, fresh, str(said["commitment"]), round_)
                self.say(f"{self.names[i]} is back: it joined again with a new invitation.")
            elif not same or said["commitment"] != self.commitments[i]:
                again = f"tequio coordinator invite {self.folder} {self.names[i]}"
                fix = f" To let it take part, invite it again: {again}"
                self._bar(i, Reason("other-data"), fix)

    def _within(self, index: int, profile: ParticipantProfile) -> dict[str, Any]:
        """Return what changes of an old part where data or machine allow less now.

        A participant refuses what exceeds its own bounds.
        """
        base, row = self.base_of(index), self.rows[index]
        given = allocate_all(self.contexts[base], {index: profile})[profile.name]
        part = replace(
            given, rank=min(given.rank, int(row["rank"])), steps=min(given.steps, int(row["steps"]))
        )
        if (part.rank, part.steps) == (int(row["rank"]), int(row["steps"])):
            return {}
        return self.row(base, profile, part)

    def _join(self, index: int, facts: Mapping[str, Any], run_spec: RunSpec, round_: int) -> None:
        """Allot a part to a participant that came late, and record it."""
        base, top = self.base_of(index), run_spec.top_rank()
        context = self.contexts[base]
        if run_spec.aggregator.layout == "factors":  # which were made for those who began
            adapter = self.config.adapter.model_copy(
                update={"ranks": [rank for rank in self.config.adapter.ranks if rank <= top]}
            )
            context = replace(
                context, config=context.config.model_copy(update={"adapter": adapter})
            )
        profile = ParticipantProfile.of(self.names[index], facts["told"])
        try:
            given = allocate_all(context, {index: profile})[profile.name]
        except ConfigError as error:
            self._bar(index, error.as_reason())
            return
        self._record(index, self.row(base, profile, given), str(facts["commitment"]), round_)
        self.say(
            f"{profile.name} joins in round {round_}: {ENGLISH.reason(given.reason)}",
            "joins-late",
            participant=profile.name,
            round=round_,
        )

    def row(self, base: str, profile: ParticipantProfile, given: Assignment) -> dict[str, Any]:
        """Return the row of a participant that trains this base, or of its centre."""
        return participant_row(
            profile, given, self.contexts[base].adapted.full, base if self.config.bases else None
        )

    def _record(
        self, index: int, row: Mapping[str, Any], commitment: str, round_: int | None
    ) -> None:
        """Record that a participant joins, or comes back with another salt.

        round_: the round from which it takes part; None when the coordinator was started again.
        """
        if self.ledger is not None:
            self.ledger.append(
                "joined",
                {
                    "round": round_,
                    "participant": dict(row),
                    "commitment": commitment,
                    "invitation": self._invited().get(index, 0),
                },
            )
            self.invited[index] = self._invited().get(index, 0)
        self.register(index, row, commitment)

    def _leaves(self) -> None:
        """Record the participants that left since the last record."""
        if self.ledger is None:
            return
        known = {(e.body["name"], e.body["invitation"]) for e in self.ledger.entries("left")}
        for name, invitation in left(self.folder).items():
            if (name, invitation) not in known:
                self.ledger.append(
                    "left", {"round": self.made, "name": name, "invitation": invitation}
                )

    def _invited(self) -> dict[int, int]:
        """Return, by index, how often each enrolled participant was invited again."""
        times = count_invitations(self.folder)
        return {i: times[name] for i, name in self.names.items() if name in times}

    def register(self, index: int, row: Mapping[str, Any], commitment: str) -> None:
        """Who takes part, with this part."""
        self.members[index] = Member(
            str(row["name"]),
            index,
            int(row["rank"]),
            int(row["steps"]),
            sizes={split: int(count) for split, count in row.get("batches", {}).items()},
        )
        self.rows[index], self.commitments[index] = dict(row), commitment
