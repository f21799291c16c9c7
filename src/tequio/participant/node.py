"""One participant at work: answers training and evaluation tasks from its own encoded data.

What it returns are updates and means. Only a holder of public slices (the centre) returns
per-example losses, and only of those.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat

from torch import nn

from tequio.algorithms.compress.feedback import step
from tequio.algorithms.registry import codec_by_name
from tequio.core.canonical import packed_update_size
from tequio.core.errors import DataError, TrainingError
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import ENGLISH, refusal
from tequio.core.types import Energy, EvaluateRequest, GradientRequest, Money, Reply, TrainRequest
from tequio.core.update import Entry, Update, zero
from tequio.measure.budget import cost, within
from tequio.measure.energy import Meter
from tequio.participant.accounts import AccountBook
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.encoding import Counts
from tequio.participant.evaluation import evaluate_losses
from tequio.participant.loop import Trained, train
from tequio.participant.low_rank_gradient import public_gradient
from tequio.participant.objective import build_objective
from tequio.participant.personal_budget import closing_passes
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.public_text import Public
from tequio.participant.residual import Residual
from tequio.participant.splits import Splits
from tequio.participant.spool import Spool
from tequio.participant.task_budget import check_look, for_training, upload_bytes
from tequio.participant.text_tasks import Item, Losses, TextTask, batches


@dataclass(frozen=True)
class Encoded:
    """A participant's examples as token ids, by split; and texts cut at max_tokens, and pairs left
    out as too long.
    """

    train: Sequence[Item]
    validation: Sequence[Item]
    test: Sequence[Item]
    counts: Counts = field(default_factory=Counts)


def encode_splits(task: TextTask, splits: Splits, who: str) -> Encoded:
    """Encode the three splits. Raises DataError if a split ends without a single item."""
    out: dict[str, list[Item]] = {}
    counts = Counts()
    for name, examples in (
        ("train", splits.train),
        ("validation", splits.validation),
        ("test", splits.test),
    ):
        out[name], n = task.encode(examples, who)
        counts = counts.plus(n)
        if not out[name]:
            raise refusal(DataError, "split-without-items", who=who, split=name)
    return Encoded(out["train"], out["validation"], out["test"], counts)


@dataclass(frozen=True)
class Node:
    """A participant in this process; all share one adapted model.

    `slices` are public and belong to the centre.

    memory: what uploads left out so far (error feedback). It never leaves the participant. public:
        text for local terms.
    together: the processes that train it. books: its own account book.
    """

    name: str
    adapted: AdaptedModel
    task: TextTask
    data: Encoded
    batch_size: int
    meter: Meter
    slices: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    memory: Residual = field(default_factory=Residual)
    public: Public | None = None
    together: ProcessGroup = ALONE
    books: AccountBook = field(default_factory=AccountBook)

    def train(self, task: TrainRequest) -> Reply:
        """`task.steps` steps over the held model, on fresh factors or on those that the task starts
        with.
        """
        most = upload_bytes(self.adapted, task) if "megabytes" in self.books.limits else 0
        passed = len(self.data.validation) / self.batch_size
        allowed = for_training(task, self.name, self.books, most, self._closing, passed)
        with self.meter.at(task.hours).measure() as reading:
            parameters = self.attach(task)
            stream = batches(self.data.train, self.batch_size, task.seed)
            rates: Iterable[float] = repeat(task.learning_rate, task.steps)
            if allowed and self.together.size == 1:
                rates = within(rates, allowed, lambda: self.cost(reading.energy))
            try:
                objective = build_objective(task, self.adapted, self.public)
                trained = train(
                    self.adapted,
                    self.task,
                    parameters,
                    stream,
                    rates,
                    self.name,
                    None,
                    objective,
                    self.together,
                )
                parts = self._spooled(task) if self.adapted.full else None
                update = self.adapted.extract() if parts is None else None
            finally:
                self.adapted.detach()
            payload = None if update is None else self._coded(update, task)
        return self._reply(task, trained, reading.energy, update, payload, parts)

    def attach(self, task: TrainRequest) -> list[nn.Parameter]:
        """Hold the task's model, and attach the factors with which it begins, or the whole weights;
        returns what is to be trained.
        """
        self.adapted.fold_in(task.held)
        if self.adapted.full:
            return self.adapted.attach_full()
        if task.start is None:
            return self.adapted.attach(task.rank, task.seed)
        if task.layout == "product":
            return self.adapted.attach_product(task.start, task.rank, task.seed)
        return self.adapted.attach_factors(task.start, task.rank, task.trained)

    def reply(self, task: TrainRequest, trained: Trained, energy: Energy, update: Update) -> Reply:
        """The answer to a task that was made elsewhere, with others' (`lockstep`)."""
        return self._reply(task, trained, energy, update, self._coded(update, task), None)

    def _reply(
        self,
        task: TrainRequest,
        trained: Trained,
        energy: Energy,
        update: Update | None,
        payload: bytes | None,
        parts: Spool | None,
    ) -> Reply:
        size = len(payload or b"") if parts is None else parts.nbytes
        if payload is None and update is not None:
            size = packed_update_size(update)
        energy, money = self.entered(
            "train", task.round, energy, size=float(size), steps=trained.steps
        )
        cut = Reason("steps-cut", {"steps": trained.steps, "asked": task.steps})
        return Reply(
            round=task.round,
            index=task.index,
            name=task.name,
            update=update if payload is None else None,
            payload=payload,
            parts=parts,
            examples=len(self.data.train),
            steps=trained.steps,
            tokens=trained.tokens,
            metrics={"loss_first": trained.loss_first, "loss_last": trained.loss_last},
            energy=energy,
            money=money,
            note=cut.after(ENGLISH.reason(cut)) if trained.steps < task.steps else "",
        )

    @property
    def _closing(self) -> float:
        return closing_passes(len(self.data.validation), len(self.data.test))

    def losses(self, items: Sequence[Item]) -> Losses:
        """Losses of what the adapted model holds, looked at by all its processes."""
        return evaluate_losses(self.task, self.adapted, items, self.together)

    def cost(self, energy: Energy) -> dict[str, float | None]:
        """What a piece of work took here, by key of measure.budget."""
        return cost(energy, self.meter.site.money(energy))

    def entered(
        self, work: str, round_: int | None, energy: Energy, size: float = 0.0, steps: int = 0
    ) -> tuple[Energy, Money | None]:
        """A piece of work of all its processes in the own book; what may be told of it."""
        whole = self.together.energy(energy)
        site = self.meter.site
        amount = site.money(whole)
        money = None if amount is None or site.price is None else Money(amount, site.price.currency)
        return self.books.enter(work, round_, whole, money, size, steps)

    def _coded(self, update: Update, task: TrainRequest) -> bytes | None:
        """The update as the task's codec writes it (None: as it is); with feedback, also what
        earlier rounds left out.
        """
        if task.upload == "plain":
            return None
        codec, seed = (
            codec_by_name(task.upload, **task.upload_settings),
            derive(task.seed, "upload"),
        )
        if task.feedback is None:
            return codec.encode(update, seed)
        memory = self.memory.load(task.memory_round, update.spec, self.name)
        sent, memory = step(memory, update, codec, seed, task.feedback)
        self.memory.save(task.round, memory, task.memory_round)
        return sent

    def _spooled(self, task: TrainRequest) -> Spool:
        """What training changed, as one coded message an entry, sorted by name; only one entry is
        in memory at a time.
        """
        codec, spool = codec_by_name(task.upload, **task.upload_settings), Spool()
        memory = zero(self.adapted.spec)
        if task.feedback is not None:
            memory = self.memory.load(task.memory_round, memory.spec, self.name)
        left: dict[str, Entry] = {}
        for number, (name, entry) in enumerate(self.adapted.changes()):
            update, seed = (
                Update({name: entry}, self.adapted.spec),
                derive(task.seed, "upload", number),
            )
            if task.feedback is None:
                spool.append(codec.encode(update, seed))
                continue
            own = {name: memory.entries[name]} if name in memory.entries else {}
            sent, rest = step(Update(own, memory.spec), update, codec, seed, task.feedback)
            spool.append(sent)
            left |= rest.entries
        if task.feedback is not None:
            self.memory.save(task.round, Update(left, memory.spec), task.memory_round)
        return spool

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Means on the own validation data; per-example harm on the public slices, if it has any.

        Raises TrainingError if the mean is not a number, BudgetError where the own budget does not
        pay for it; a look that follows own training was kept back for.
        """
        if self.slices:
            self.adapted.fold_in(task.held)
            slices = {
                name: tuple(self.task.losses(self.adapted, items).harm().tolist())
                for name, items in self.slices.items()
            }
            return Reply(task.round, task.index, task.name, slices=slices)
        check_look(self.name, self.books, self._closing)
        with self.meter.at(task.hours).measure() as reading:
            self.adapted.fold_in(task.held)
            scores = self.losses(self.data.validation).scores()
        if not math.isfinite(scores.loss):
            raise refusal(TrainingError, "loss-not-finite", loss=str(scores.loss))
        metrics = {"loss": scores.loss} | (
            {} if scores.accuracy is None else {"accuracy": scores.accuracy}
        )
        energy, money = self.entered("evaluate", task.round, reading.energy)
        return Reply(
            task.round,
            task.index,
            task.name,
            examples=scores.examples,
            metrics=metrics,
            energy=energy,
            money=money,
        )

    def gradient(self, task: GradientRequest) -> Reply:
        """The gradient of the mean loss of `task.batches` training batches.

        Raises TrainingError unless this is the centre.
        """
        if task.index != 0:
            raise refusal(TrainingError, "gradient-is-private", name=self.name)
        parts = list(islice(batches(self.data.train, self.batch_size, task.seed), task.batches))
        with self.meter.measure() as reading:
            update = public_gradient(
                self.adapted, self.task, parts, task.held, task.rank, task.seed
            )
        seen = len(self.data.train)
        return Reply(
            task.round,
            task.index,
            task.name,
            update,
            examples=seen,
            steps=len(parts),
            energy=reading.energy,
        )
