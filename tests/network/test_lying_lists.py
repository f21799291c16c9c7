"""Participants as they serve, and a coordinator that lies about their keys: it is refused, and the
refusal says whose keys they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from open_gateway import asked, opened

from tequio.app.assembly.masked import listed_plan
from tequio.app.network.coordinator.sums import Published, SumFiles
from tequio.app.network.hub.folder import member_keys, read_coordinator_folder
from tequio.app.network.members import (
    Listed,
    MemberList,
    accept_member,
    describe_members,
    pack_members,
)
from tequio.app.network.monitoring.health import Health
from tequio.app.network.participant.join import join_federation, read_identity
from tequio.app.network.participant.serve import (
    ParticipantService,
    open_participant,
    serve_participant,
)
from tequio.config import load_federation, load_participant
from tequio.coordinator.evaluation import Evaluation
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.run_spec import Member
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError
from tequio.core.events import ignore_events
from tequio.core.messages import LIMIT, pack_message
from tequio.core.replies import read_reply
from tequio.core.types import EvaluateRequest, Failure, Reply, Request, SumRequest
from tequio.core.update import zero
from tequio.ledger.folder import RunFolder
from tequio.trust.keys import new_key, public_bytes
from tequio.trust.secure_sum.agreement import Context
from tequio.trust.secure_sum.directory import Keys, announce, pack_boxes, unpack_boxes

RUN = "ab" * 16
MASKED: dict[str, Any] = {
    "participants": 4,
    "algorithm": {"reduce": "ffa", "weights": "uniform"},
    "privacy": {"mode": "masked"},
}
Meddle = Callable[[Request], Request]


@dataclass
class People:
    """Participants, asked in messages as they cross a network;

    `meddle` changes what one is asked.
    """

    hub: Path
    folders: dict[int, Path]
    stack: ExitStack
    services: dict[int, ParticipantService] = field(default_factory=dict)
    stacks: dict[int, ExitStack] = field(default_factory=dict)
    meddle: Meddle = lambda task: task

    def open(self, index: int) -> None:
        """Start the process of a participant again: what was in its memory is lost."""
        if index in self.stacks:
            self.stacks[index].close()
        self.stacks[index] = self.stack.enter_context(ExitStack())
        file = load_participant(Path(read_identity(self.folders[index])["participant"]))
        self.services[index] = self.stacks[index].enter_context(
            open_participant(self.folders[index], file, ignore_events)
        )

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Ask one after the other."""
        for task in map(self.meddle, tasks):
            yield read_reply(self.services[task.index].answer(pack_message(task)), task, LIMIT)

    def listed(self) -> MemberList:
        """Return what an honest coordinator publishes."""
        keys = member_keys(self.hub)
        return MemberList(
            RUN, {i: Listed(f"site{i - 1}", keys[f"site{i - 1}"], 2, 4) for i in self.folders}
        )

    def rounds(self, listed: MemberList, files: SumFiles | None = None) -> SumRounds:
        """Return a coordinator's masked rounds."""
        found = read_coordinator_folder(self.hub)
        one = self.services[min(self.services)]
        parts = {i: (row.key.encode(), row.rank, row.steps) for i, row in listed.members.items()}
        config, agreed, scale = (
            load_federation(Path(found.federation)),
            one.agreed,
            one.node.adapted.scale,
        )
        plan = listed_plan(RUN, found.digest, parts, config, agreed.shapes, agreed.heads, scale)
        return SumRounds(Published(self, pack_members(listed)), plan, files)

    def look(self, files: SumFiles | None = None) -> Evaluation:
        """Have the base scored, as before round 1."""
        held = zero(self.services[1].node.adapted.spec)
        panel = [Member(f"site{i - 1}", i, 2, 4) for i in self.folders]
        return self.rounds(self.listed(), files).look(
            [EvaluateRequest(0, m.index, m.name, held) for m in panel], panel
        )


@pytest.fixture
def people(make_federation: Any, tmp_path: Path) -> Iterator[People]:
    with opened(make_federation, tmp_path, **MASKED) as (hub, files), ExitStack() as stack:
        folders = {
            i: join_federation(asked(hub, files, f"site{i - 1}"), tmp_path / f"site{i - 1}")
            for i in range(1, 5)
        }
        found = People(hub, folders, stack)
        for index in folders:
            found.open(index)
        yield found


def other_list(people: People, index: int, change: Callable[[dict[int, Listed]], None]) -> Meddle:
    """Return what shows one participant another list."""
    members = dict(people.listed().members)
    change(members)
    data = pack_members(MemberList(RUN, members))

    def meddle(task: Request) -> Request:
        lied = isinstance(task, SumRequest) and task.step == "announce" and task.index == index
        return replace(task, payload=data) if isinstance(task, SumRequest) and lied else task

    return meddle


def test_another_key_for_one_is_refused_until_it_is_accepted(
    people: People, tmp_path: Path
) -> None:
    files = SumFiles(RunFolder(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    seen = people.look(files)
    assert not seen.failed
    assert seen.summed["members"] == 4.0
    pem = public_bytes(new_key()).decode()
    people.meddle = other_list(people, 1, lambda rows: rows.update({3: replace(rows[3], key=pem)}))
    (files.run.path / "sums" / "validate.safetensors").unlink()
    for (
        index
    ) in people.folders:  # the round was opened: another process may take part in none of it either
        people.open(index)
    assert {why.code for why in people.look(files).failed.values()} == {
        "members-changed",
        "secure-sum-over",
    }
    found = people.look(files).failed["site0"]
    assert (found.code, found.facts["names"]) == ("members-changed", ["site2"])
    digest = read_coordinator_folder(people.hub).digest
    before = describe_members(people.folders[1], digest)
    assert before is not None
    assert list(before["offered"]) == ["site2"]
    with pytest.raises(ConfigError):
        accept_member(people.folders[1], "site1")
    accept_member(people.folders[1], "site2")
    after = describe_members(people.folders[1], digest)
    assert after is not None
    assert after["fingerprint"] != before["fingerprint"]
    assert people.look(files).failed["site0"].code == "secure-sum-over", "the new key is taken"


def test_a_lie_in_the_first_round_shows_in_the_fingerprint(people: People) -> None:
    """Trust on first use does not find it; people who compare do, and the sum does not open with
    that participant's part.
    """
    pem = public_bytes(new_key()).decode()
    people.meddle = other_list(people, 1, lambda rows: rows.update({3: replace(rows[3], key=pem)}))
    seen = people.look()
    assert seen.failed["site0"].code == "secure-sum-forged"
    digest = read_coordinator_folder(people.hub).digest
    shown = [describe_members(folder, digest) for folder in people.folders.values()]
    assert len({str(row and row["fingerprint"]) for row in shown}) == 2


def test_a_missing_member_is_refused_by_name(people: People) -> None:
    people.look()
    people.meddle = other_list(people, 2, lambda rows: rows.pop(4))  # type: ignore[arg-type]
    found = people.look().failed["site1"]
    assert (found.code, found.facts["names"]) == ("members-gone", ["site3"])


def test_a_directory_that_others_signed_is_refused_by_name(people: People) -> None:
    """The list is honest, and the keys of the sum in the directory for one are the
    coordinator's own.
    """
    thief, fresh = new_key(), public_bytes(new_key())
    context: list[Context] = []

    def meddle(task: Request) -> Request:
        if not isinstance(task, SumRequest) or task.step != "share" or task.index != 1:
            return task
        context.append(people.rounds(people.listed()).plan.context(task))
        boxes = unpack_boxes(task.payload)
        boxes[3] = announce(context[0], 3, thief, Keys(fresh[:32], fresh[32:64]))
        return replace(task, payload=pack_boxes(boxes))

    people.meddle = meddle
    found = people.look().failed["site0"]
    assert (found.code, found.facts["name"]) == ("members-forged", "site2")


def test_open_requests_are_refused_and_restarts_drop_out(people: People) -> None:
    held = zero(people.services[1].node.adapted.spec)
    reply = next(people.exchange([EvaluateRequest(0, 1, "site0", held)]))
    assert isinstance(reply, Failure)
    assert "in the clear" in reply.message

    def meddle(task: Request) -> Request:
        if isinstance(task, SumRequest) and task.step == "mask" and task.index == 4:
            people.open(4)
        return task

    people.meddle = meddle
    seen = people.look()
    assert {name: why.code for name, why in seen.failed.items()} == {"site3": "secure-sum-unknown"}
    assert seen.summed["members"] == 3.0


def test_opened_sums_are_found_again_and_no_attempt_repeats(people: People, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    files = SumFiles(RunFolder(tmp_path / "run"))
    seen = people.look(files)
    for index in people.folders:
        people.open(index)
    again = people.look(SumFiles(RunFolder(tmp_path / "run")))
    assert (again.summed, again.failed) == (seen.summed, {})
    assert files.find("validate", 0, digest_update(zero("other"))) is None
    assert [
        files.number("validate", 0),
        files.number("validate", 1),
        files.number("validate", 1),
    ] == [2, 1, 2]


def test_joining_says_what_leaves_under_masks(make_federation: Any, tmp_path: Path) -> None:
    with opened(make_federation, tmp_path, **MASKED) as (hub, files):
        leaves = "\n".join(asked(hub, files).leaves)
    assert "under masks" in leaves
    assert "sees each of your updates" not in leaves
    assert "tequio members" in leaves


def test_the_process_of_a_participant_insists_on_its_mode(
    make_federation: Any, tmp_path: Path
) -> None:
    """It joined an open federation, and its file asks for more since."""
    with opened(make_federation, tmp_path) as (hub, files):
        folder = join_federation(asked(hub, files), tmp_path / "site0")
    own = files / "site0.toml"
    own.write_text(own.read_text() + '\n[privacy]\nleast_mode = "masked"\n')
    with pytest.raises(ConfigError) as error:
        serve_participant(folder, Health("participant", ignore_events))
    assert error.value.as_reason().code == "mode-below-least"
