"""The processes of one participant: what each loads, and what all but the first do."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tequio.app.assembly.allocation import personal_settings
from tequio.app.assembly.context import ModelContext, build_model_context, build_node, read_splits
from tequio.app.assembly.profile import PROBE, build_node_profile, probing
from tequio.app.assembly.public_data import build_public_text, public_examples
from tequio.app.network.chosen_files import check_agreed, read_agreed_files
from tequio.app.network.participant.agreement import build_agreement, check_work
from tequio.app.network.participant.join import read_agreed, read_identity
from tequio.app.run_files import begun_header, recorded_bases, recorded_rule
from tequio.config import MAIN, Federation, HardwareSection, ParticipantFile, load_participant
from tequio.core.errors import AgreementError, ConfigError, TrainingError, UpdateError
from tequio.core.messages import REQUESTS, answer, unpack_message
from tequio.core.reason import Reason
from tequio.core.texts.words import refuse_first
from tequio.core.types import EvaluateRequest, PersonaliseRequest, Reply, TrainRequest
from tequio.ledger.folder import RUN
from tequio.participant.choice import CHOICE_RULE
from tequio.participant.node import Node
from tequio.participant.personal import Settings, personalise
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.splits import Splits
from tequio.planning.allocation import Assignment


def own_settings(
    config: Federation, node: Node, task: PersonaliseRequest, rule: str = CHOICE_RULE
) -> Settings:
    """Return how a participant makes the personal model that this task asks for.

    rule: the rule of choice in its own record.
    """
    return personal_settings(
        config,
        len(node.data.train),
        node.name,
        Assignment(task.rank, task.steps, None, Reason("as-asked")),
        rule,
    )


def check_together(config: Federation, file: ParticipantFile, together: ProcessGroup) -> None:
    """Raise ConfigError for work that several processes cannot share."""
    several = together.size > 1
    refuse_first(
        ConfigError,
        {
            "team-budget": several and bool(file.budget.limits() or config.budget.limits()),
            "team-full": several and file.team.shard_base and config.adapter.kind == "full",
            "team-terms": several
            and bool(config.local.terms or config.local.method != "plain" or config.personal.ditto),
        },
        name=file.name,
        processes=together.size,
    )


def loaded(
    folder: Path, file: ParticipantFile, together: ProcessGroup
) -> tuple[Federation, Splits, ModelContext, Node]:
    """Load the agreement for the participant's base, the data, the base, and the participant on
    it.
    """
    whole, header = read_agreed(folder), begun_header(folder / RUN)
    recorded = None if header is None else recorded_bases(header)[MAIN]
    base = whole.base_of(file.name)
    config = whole.part(base)
    check_agreed(
        config, base, read_agreed_files(folder), file.base is not None, recorded is not None
    )
    if file.base is not None:
        config = config.model_copy(
            update={"base": config.base.model_copy(update={"model": str(file.base)})}
        )
    check_together(config, file, together)
    splits = read_splits(config, file)
    context = build_model_context(
        config, {file.name: file}, together if file.team.shard_base else ALONE, recorded
    )
    node = build_node(
        context, file, splits, build_public_text(context, public_examples(config), None)
    )
    return config, splits, context, replace(node, together=together)


@dataclass(frozen=True)
class Follower:
    """One of several processes that train together, except the first: it sends and stores
    nothing.
    """

    folder: Path
    config: Federation
    node: Node

    def train(self, task: TrainRequest) -> Reply:
        """Take part in the steps; what uploads leave out, the first process remembers."""
        return self.node.train(replace(task, feedback=None))

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Take part in scoring."""
        return self.node.evaluate(task)

    def personalise(self, task: PersonaliseRequest) -> Reply:
        """Take part in making the personal model."""
        rule = recorded_rule(
            begun_header(self.folder / RUN) or {}
        )  # the first process began the record
        personalise(self.node, task.held, own_settings(self.config, self.node, task, rule))
        return Reply(task.round, task.index, task.name)


def follow(folder: Path, together: ProcessGroup) -> None:
    """Be one of several processes: take part in each task that the first one hands on, and keep
    nothing.
    """
    config, _, context, node = loaded(
        folder, load_participant(Path(read_identity(folder)["participant"])), together
    )
    # by the file alone: the first process has compared with what it told, and all must go the same
    # way
    agreed = build_agreement(
        read_agreed(folder), build_node_profile(node, HardwareSection(), {}), context
    )
    probe = probing(node)
    while data := together.hand_on():
        if data == PROBE:
            probe()
            continue
        task = unpack_message(data, "a task handed on", REQUESTS)
        with suppress(
            AgreementError, TrainingError, UpdateError
        ):  # the first process meets the same one, and reports it
            check_work(task, agreed)
            answer(Follower(folder, config, node), task)
