"""A participant's side of masked rounds across a network: whom it adds up with, and which sums it
helped to open.

Secrets and answers are in the memory of this process alone. A process that restarts has lost them,
and drops out of the sum that it was in. sums.json in the run's folder says for which rounds it gave
its shares, because two sums of one round would tell their difference.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tequio.app.assembly.masked import listed_plan
from tequio.app.network.members import fingerprint, pin_members, read_members
from tequio.app.network.participant.agreement import Agreement
from tequio.app.network.participant.join import KEY, agreed_digest, read_identity
from tequio.app.run_files import json_table
from tequio.config import Federation
from tequio.core.errors import ConfigError, ProtectionError
from tequio.core.events import EventHandler
from tequio.core.protocols import Participant
from tequio.core.texts.words import refusal
from tequio.core.types import EvaluateRequest, GradientRequest, Reply, SumRequest, TrainRequest
from tequio.ledger.folder import RunFolder
from tequio.participant.masked import MaskedNode
from tequio.participant.node import Node
from tequio.trust.keys import PrivateKey, load_key, public_bytes
from tequio.trust.secure_sum.agreement import Purpose
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.plan import SumPlan

SUMS = "sums.json"
PURPOSES: tuple[Purpose, ...] = ("train", "validate")


@dataclass
class SumService:
    """Answer the steps of secure sums.

    Attributes:
        folder: the participant's folder, where members.json is.
        run: the folder of its run.
        whole: the federation.toml that it joined, and its digest (`federation`).
        agreed: what is asked of it.
        scale: what multiplies B·A.
        key: the key that it enrolled with.
    """

    folder: Path
    run: RunFolder
    whole: Federation
    federation: str
    agreed: Agreement
    scale: float
    key: PrivateKey
    plans: dict[str, SumPlan] = field(default_factory=dict)
    opened: dict[Purpose, int] = field(default_factory=dict)
    member: Member = field(init=False)

    def __post_init__(self) -> None:
        """Know which rounds an earlier process of this folder gave shares for."""
        path = self.run.path / SUMS
        raw = json_table(path) if path.exists() else {}
        if raw.keys() - set(PURPOSES) or not all(type(value) is int for value in raw.values()):
            raise refusal(ConfigError, "damaged", path=path)
        self.opened = {purpose: raw[purpose] for purpose in PURPOSES if purpose in raw}
        self.member = Member(self.agreed.index, self.key, begun=self.opened)

    def add_up(self, task: SumRequest, worker: Participant, log: EventHandler) -> Reply:
        """Take one step of a sum; `worker` trains and evaluates.

        Raises ProtectionError where it would show more than a sum.
        """
        if task.step == "announce":
            self.plans[task.purpose] = self._plan(task.payload, log)
        plan = self.plans.get(task.purpose)
        if plan is None:
            raise refusal(ProtectionError, "secure-sum-unknown", round=task.round)
        if task.step == "unmask":
            self._remember(task.purpose, task.round)
        try:
            return MaskedNode(worker, self.member, plan).add_up(task)
        except ProtectionError as error:
            reason = error.as_reason()
            if reason.code != "secure-sum-forged":
                raise
            name = self.whole.participants[int(reason.facts["index"]) - 1].name
            raise refusal(ProtectionError, "members-forged", name=name, round=task.round) from None

    def _plan(self, data: bytes, log: EventHandler) -> SumPlan:
        """Read the list of members, compare it with what is pinned, and pin what is new."""
        listed, name = (
            read_members(data, self.whole),
            self.whole.participants[self.agreed.index - 1].name,
        )
        keys = listed.keys()
        fresh = pin_members(self.folder, keys, {name: public_bytes(self.key).decode()})
        if fresh:
            shown, count = fingerprint(self.federation, keys), len(keys)
            words = (
                f"Masked rounds: {count} members, fingerprint {shown}. Pinned now: "
                f"{', '.join(fresh)}."
            )
            fix = "Compare the fingerprint with the other participants by another channel."
            log(f"{words} {fix}", "members-pinned", members=count, fingerprint=shown)
        parts = {i: (one.key.encode(), one.rank, one.steps) for i, one in listed.members.items()}
        agreed = self.agreed
        return listed_plan(
            listed.run,
            self.federation,
            parts,
            agreed.config,
            agreed.shapes,
            agreed.heads,
            self.scale,
        )

    def _remember(self, purpose: Purpose, round_: int) -> None:
        """Write that shares of this round may be given from here on."""
        if self.opened.get(purpose, -1) < round_:
            self.opened[purpose] = round_
            self.run.write_atomic(SUMS, json.dumps(self.opened).encode())


class Works(Protocol):
    """A participant that trains and evaluates."""

    @property
    def node(self) -> Node:
        """What it has loaded."""

    def share_work(self, task: TrainRequest | EvaluateRequest) -> None:
        """Have its other processes take part."""

    def train(self, task: TrainRequest) -> Reply:
        """Train for one round."""

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Score a model."""


@dataclass(frozen=True)
class SharedWork:
    """Train and evaluate for a secure sum: the whole of a participant, with its other
    processes.
    """

    service: Works

    @property
    def name(self) -> str:
        """Its name."""
        return self.service.node.name

    def train(self, task: TrainRequest) -> Reply:
        """Train, as an open request would have it."""
        self.service.share_work(task)
        return self.service.train(task)

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Evaluate, as an open request would have it."""
        self.service.share_work(task)
        return self.service.evaluate(task)

    def gradient(self, task: GradientRequest) -> Reply:
        """Refuse, as every participant does."""
        return self.service.node.gradient(task)


def open_sums(
    folder: Path, run: RunFolder, whole: Federation, agreed: Agreement, scale: float
) -> SumService | None:
    """Return what answers the steps of sums; None in open rounds."""
    if whole.privacy.mode == "open":
        return None
    identity = read_identity(folder)
    federation = agreed_digest(folder)
    return SumService(
        folder, run, whole, federation, agreed, scale, load_key(folder / identity.get("key", KEY))
    )
