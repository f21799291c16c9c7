"""A participant on its own machine: it loads data and model once, answers tasks, and keeps its
personal model.

Only updates, means and counts leave. The data, the paths of their files and the personal model stay
in the participant's folder, which is a run of its own: `tequio verify`, `predict` and `export` work
on it without any network.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from tequio.app.assembly.manifest import begin_record, build_header, encoding_changed
from tequio.app.assembly.masked import check_least_mode
from tequio.app.assembly.profile import ParticipantProfile, build_profile
from tequio.app.assembly.site import read_carbon_forecast
from tequio.app.network.monitoring.health import Health
from tequio.app.network.monitoring.metrics import participant_pages
from tequio.app.network.participant.agreement import Agreement, Asked, build_agreement, check_task
from tequio.app.network.participant.availability import closed, pointing_out
from tequio.app.network.participant.ending import Ending
from tequio.app.network.participant.join import (
    KEY,
    read_agreed,
    read_authority,
    read_identity,
)
from tequio.app.network.participant.processes import loaded, own_settings
from tequio.app.network.participant.sums import SharedWork, SumService, open_sums
from tequio.app.run_files import (
    SHARED_FILE,
    recorded_header,
    recorded_rule,
    salt_file,
    save,
    unbroken,
)
from tequio.app.saved_models import (
    keep_personal,
    keep_received,
    received_before,
    recorded_personal,
    sent_with,
)
from tequio.config import MAIN, Federation, ParticipantFile, load_participant
from tequio.core.bounds import one_line
from tequio.core.canonical import canonical_json, digest, digest_json, digest_update
from tequio.core.errors import (
    AgreementError,
    ConfigError,
    MessageError,
    ProtectionError,
    RunError,
    TrainingError,
    UpdateError,
)
from tequio.core.events import EventHandler, ignore_events
from tequio.core.messages import REQUESTS, Message, answer, kind_of, pack_message, unpack_message
from tequio.core.reason import Reason, split_words
from tequio.core.replies import unread_request
from tequio.core.texts.words import refusal
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    PersonaliseRequest,
    Reply,
    SumRequest,
    TrainRequest,
)
from tequio.ledger.folder import RUN, RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.node import Node
from tequio.participant.personal import personalise
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.residual import Residual
from tequio.runtimes.flower.client import Identity, serve
from tequio.trust.keys import load_key

UNTOLD = Reason("own-budget-private").as_record()  # sent instead of what the own budget cut


UNREADABLE = "It cannot read the request. Both sides need the same version of Tequio."
NOT_MINE = "The request is for another participant. Look at who was invited with which name."


@dataclass(frozen=True)
class ParticipantService:
    """Answer the coordinator's requests with the node, the profile (`facts`), the folder and its
    ledger.

    agreed: the bounds of each request. asked: the requests so far. Both follow from the folder's
    federation.toml. sums: its side of masked rounds; None in open ones. last: digest of the last
    task that was done, and the reply, to send again.
    """

    config: Federation
    file: ParticipantFile
    node: Node
    facts: Mapping[str, Any]
    folder: RunFolder
    ledger: Ledger
    agreed: Agreement
    asked: Asked
    sums: SumService | None = None
    last: dict[str, bytes] = field(default_factory=dict)

    def answer(self, data: bytes, log: EventHandler = ignore_events) -> bytes:
        """Answer one message with one message.

        The answer is a Failure for a request that cannot be read or done, or that departs from the
        agreement. For an unreadable or departing request no work is done.
        """
        if (again := self.last.get(digest(data))) is not None:
            return again
        try:
            task = unpack_message(data, "a task of the coordinator", REQUESTS)
        except MessageError as error:
            return _refuse_unread(UNREADABLE, str(error), log)
        if isinstance(task, Reply | Failure):
            return _refuse_unread(UNREADABLE, "Expected a task, but received a reply.", log)
        if task.name != self.node.name:
            return _refuse_unread(
                NOT_MINE, f"A task for another participant came to {self.node.name!r}.", log
            )
        kind = kind_of(task)
        words = f"secure sum, {task.purpose}: {task.step}" if isinstance(task, SumRequest) else kind
        log(f"round {task.round}: {words}", "task", kind=kind, round=task.round, stage=kind)
        try:
            check_task(task, self.agreed)
            self._share(task, data)
            reply = pack_message(
                self._add_up(task, log) if isinstance(task, SumRequest) else answer(self, task)
            )
            self.last.clear()
            self.last[digest(data)] = reply
            return reply
        except (AgreementError, ProtectionError) as error:
            failure = Failure.of(task, error)
            log(
                f"Refused: {error}",
                "departed",
                "error",
                kind=kind,
                round=task.round,
                error=failure.error,
            )
            return pack_message(failure)
        except (TrainingError, UpdateError) as error:
            failure = Failure.of(task, error)
        except ValueError:  # a number that JSON has no word for
            failure = Failure.of(task, refusal(TrainingError, "result-not-finite"))
        log(
            split_words(failure.message)[0],
            "task-failed",
            "error",
            kind=kind,
            round=task.round,
            error=failure.error,
        )
        return pack_message(failure)

    def _share(self, task: Message, data: bytes) -> None:
        """Hand the task to the other processes, after all checks that only this process can make.

        The others could not be called back.
        """
        if isinstance(task, EvaluateRequest):
            self.asked.check_look(task.round, digest(data), self.agreed)
        if isinstance(task, TrainRequest):
            model = sent_with(task, self.node.adapted.scale)
            named = digest_update(model)
            self.asked.check_trained(
                task, named, digest_update(task.gradient) if task.gradient else ""
            )
            keep_received(self.folder, self.ledger, task, model, named)
            if task.feedback is not None and self.node.together.size > 1:
                self._memory().load(task.memory_round, self.node.adapted.spec, task.name)
        wanted = isinstance(task, TrainRequest | EvaluateRequest)
        if wanted or (
            isinstance(task, PersonaliseRequest)
            and recorded_personal(self.ledger, alone=False) is None
        ):
            self.node.together.hand_on(data)

    def _memory(self) -> Residual:
        entry = self.ledger.last("described")  # the folder has no memory of the rounds before it
        return replace(self.node.memory, since=0 if entry is None else int(entry.body["round"]))

    def _add_up(self, task: SumRequest, log: EventHandler) -> Reply:
        """Take one step of a secure sum."""
        if self.sums is None:
            raise refusal(ProtectionError, "no-secure-sum", name=task.name)
        return self.sums.add_up(task, SharedWork(self), log)

    def share_work(self, task: TrainRequest | EvaluateRequest) -> None:
        """Have the other processes take part in a request that came within a secure sum."""
        self._share(task, pack_message(task))

    def train(self, task: TrainRequest) -> Reply:
        """Train for one round, with what earlier uploads left out."""
        return replace(self.node, memory=self._memory()).train(task)

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Score a model on the participant's validation data."""
        return self.node.evaluate(task)

    def describe(self, task: DescribeRequest) -> Reply:
        """Return the profile of this participant, as `facts`."""
        if self.ledger.last("described") is None:
            self.ledger.append("described", {"round": task.round})
        return Reply(task.round, task.index, task.name, body=canonical_json(self.facts).decode())

    def personalise(self, task: PersonaliseRequest) -> Reply:
        """Make and store the personal model, and report only its means and digests.

        Asked again, it reports the first outcome.
        """
        body = recorded_personal(self.ledger, alone=False)
        if body is None:
            rule = recorded_rule(recorded_header(self.ledger, self.folder))
            made = personalise(
                self.node, task.held, own_settings(self.config, self.node, task, rule), task.budget
            )
            save(self.folder, SHARED_FILE, task.held)
            record = keep_personal(self.folder, made)
            self.ledger.append(
                "shared",
                {
                    "round": task.round,
                    "alpha": 1.0,
                    "points": [],
                    "digest": digest_update(task.held),
                    "rank": task.rank,
                    "steps": task.steps,
                },
            )
            body = self.ledger.append("personal", record).body
        disclosed = dict(body)
        if "general" in disclosed:  # the digest of what only this participant needs stays here
            disclosed["general"] = {
                k: v for k, v in disclosed["general"].items() if k not in ("digest", "file")
            }
        if (
            "cut" in disclosed and self.node.books.limits
        ):  # its own budget is private: that it cut, and no figures
            disclosed |= {"cut": UNTOLD, "fits": {}, "local_cost": {}}
        return Reply(task.round, task.index, task.name, body=canonical_json(disclosed).decode())


def _refuse_unread(answered: str, why: str, log: EventHandler) -> bytes:
    """Log why no work is done for a message, and answer in fixed words.

    The answer keeps the coordinator from sending the message again.
    """
    log(f"refused a message: {one_line(why)}", "message-refused", "warning")
    return pack_message(unread_request(answered))


def serve_participant(
    folder: Path, health: Health, together: ProcessGroup = ALONE
) -> dict[str, Any]:
    """Take part until the personal model is made; events go to `health`.

    Raises ConfigError if the folder did not join, RunError if the data changed since.
    together: the processes that train, of which this is the first; the others `follow`.
    """
    identity = read_identity(folder)
    name, own_file = identity["name"], Path(identity["participant"])
    if "left" in identity:
        raise refusal(
            ConfigError, "left-already", name=name, when=identity["left"], folder=str(folder)
        )
    key, authority = load_key(folder / identity.get("key", KEY)), read_authority(folder)
    who = Identity(identity["address"], authority.encode(), key, int(identity["node"]), folder)
    stop = Event()
    pages, file = participant_pages(health), load_participant(own_file, name)
    check_least_mode(read_agreed(folder), name, file)
    with (
        health.answering(pages),
        open_participant(folder, file, health.tell, together) as resident,
        health.written_to(folder),
    ):
        ending = Ending(resident.ledger, stop, health.tell)
        forecast = read_carbon_forecast(resident.file.energy)
        serve(
            who,
            lambda data: resident.answer(data, health.tell),
            stop,
            pointing_out(folder, ending.tell),
            lambda: closed(resident.file.schedule, datetime.now(), forecast),
        )
        together.hand_on()
        done = recorded_personal(resident.ledger, alone=False)
    if done is None:
        raise refusal(RunError, "over-without-model", name=name, folder=str(folder))
    return {"name": name, "run": str(folder / RUN), "chosen": done["chosen"]}


@contextmanager
def open_participant(
    folder: Path, file: ParticipantFile, log: Callable[[str], None], together: ProcessGroup = ALONE
) -> Iterator[ParticipantService]:
    """Load everything once for the life of the process, and lock the run's folder meanwhile."""
    log("reading data and base model")
    config, splits, context, node = loaded(folder, file, together)
    whole = read_agreed(folder)
    for note in context.adapted.base.notes:
        log(note)
    run = folder / RUN
    begun = (run / "ledger.sqlite").exists()
    place = RunFolder.open(run) if begun else RunFolder.create(run, private=True)
    own = f"participants/{file.name}"
    node = replace(node, memory=Residual(place, own), books=node.books.opened(place, own))
    with place.lock():
        if begun:
            with unbroken(place) as ledger:
                recorded = recorded_header(ledger, place)
                facts = dict(recorded["facts"])
                if differences := encoding_changed(config.task.kind, recorded):
                    raise refusal(RunError, "run-changed", path=folder, differences=differences[0])
                salt = (run / salt_file(file.name)).read_text()
                if (
                    digest_json([salt, splits.digest()]) != facts["commitment"]
                    or facts["spec"] != context.adapted.spec
                ):
                    raise refusal(RunError, "changed-since-joined", folder=str(folder))
                agreed = build_agreement(
                    whole, ParticipantProfile.of(file.name, facts["told"]), context
                )
                sums = open_sums(folder, place, whole, agreed, context.adapted.scale)
                asked = Asked(received_before(ledger))
                yield ParticipantService(
                    config, file, node, facts, place, ledger, agreed, asked, sums
                )
            return
        salt = secrets.token_hex(16)
        place.write_atomic(salt_file(file.name), salt.encode(), private=True)
        said = build_profile(node, file, splits)
        facts = {
            "spec": context.adapted.spec,
            "told": said.facts(),
            "commitment": digest_json([salt, splits.digest()]),
        }
        row = {
            "name": file.name,
            "hardware": said.facts()["hardware"],
            "data": said.data,
            "batches": said.batches,
        }
        header = build_header(config, context.adapted, [row]) | {
            "simulation": False,
            "provenance": [],
            "facts": facts,
        }
        with begin_record(place, header, {MAIN: context.adapted}) as ledger:
            agreed = build_agreement(whole, said, context)
            sums = open_sums(folder, place, whole, agreed, context.adapted.scale)
            yield ParticipantService(
                config, file, node, facts, place, ledger, agreed, Asked(), sums
            )
