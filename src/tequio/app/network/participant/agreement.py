"""The agreement, enforced: each request is compared with federation.toml before any work is done
for it.

The bounds of a participant follow from the federation.toml that its folder joined, its own profile
and the layout of its base. Nothing in this module computes on tensors except to see whether a first
model is the base.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tequio.app.assembly.algorithm import Algorithm
from tequio.app.assembly.allocation import build_workload, full_steps
from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.profile import ParticipantProfile
from tequio.config import Federation
from tequio.core.bounds import one_line
from tequio.core.errors import AgreementError, ProtectionError
from tequio.core.messages import Message, kind_of
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    PersonaliseRequest,
    SumRequest,
    TrainRequest,
)
from tequio.core.update import Dense, Factored, Update, plain
from tequio.planning.allocation import Workload
from tequio.planning.learning_rate import round_rate

# times that one round may be tried again with other content, after restarts of the coordinator
REPEATS = 10
LONGEST = 80  # characters of an asked value that are shown
WIDEST = 10**15  # a larger number is shown by its power of ten
CLOSE = 1e-9  # relative difference of two numbers that were computed by one formula on two machines


@dataclass(frozen=True)
class Agreement:
    """Hold what one participant agreed to.

    Attributes:
        config: federation.toml, of its base alone.
        index: its place on the whole roster, from 1.
        algorithm: the pieces that were agreed.
        ranks: the ladder within its own `max_rank`.
        work: what a round asks of it, for its own number of training texts: fewest and most local
            steps, for instance.
        spec: digest of base and adapter layout.
        shapes: (m, n) of each adapted module.
        heads: shape of each tensor of the head.
        widest: the largest rank of a shared model sent as factors, except where a matrix has fewer.
        distils: whether models teach each other after a round.
    """

    config: Federation
    index: int
    algorithm: Algorithm
    ranks: tuple[int, ...]
    work: Workload
    spec: str
    shapes: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, ...]]
    widest: int
    distils: bool

    @property
    def first(self) -> int:
        """Rounds that the centre trains alone at the beginning."""
        return 0 if self.config.centre is None else self.config.centre.first

    def looks(self, round_: int) -> int:
        """Return how many models of one round its validation data may score."""
        if round_ > self.config.train.rounds:  # points between base and shared model, one each
            return 1
        return (
            1
            + (len(self.config.participants) if self.config.equity.leave_one_out else 0)
            + int(self.distils)
        )


def build_agreement(
    federation: Federation, profile: ParticipantProfile, context: ModelContext
) -> Agreement:
    """Derive the bounds of one participant.

    Args:
        federation: the whole federation.toml that its folder joined.
        profile: what it told the coordinator of itself; the assignment follows from it.
        context: its base with the agreed layout, and the agreed pieces.
    """
    config, adapted = federation.part(federation.base_of(profile.name)), context.adapted
    index = next(
        i for i, entry in enumerate(federation.participants, 1) if entry.name == profile.name
    )
    work = build_workload(context, profile, full_steps(config, profile.batches["train"]))
    most = profile.hardware.max_rank
    taught = 0 if federation.distil is None else federation.distil.rank or 0
    return Agreement(
        config=config,
        index=index,
        algorithm=context.algorithm,
        ranks=tuple(rank for rank in work.ranks if most is None or rank <= most),
        work=work,
        spec=adapted.spec,
        shapes=dict(adapted.shapes),
        heads={name: tuple(tensor.shape) for name, tensor in adapted.head_start.items()},
        widest=max(2 * max(work.ranks), config.algorithm.broadcast_rank or 0, taught),
        distils=federation.distil is not None,
    )


def check_task(task: Message, agreed: Agreement) -> None:
    """Compare a request with what was agreed.

    Raises AgreementError, which names the first key that departs; in masked rounds ProtectionError
    for an open answer that is asked for.
    """
    masked = agreed.config.privacy.mode == "masked"
    if not isinstance(task, SumRequest):
        if masked and isinstance(task, TrainRequest | EvaluateRequest):
            raise refusal(ProtectionError, "open-request", round=task.round)
        check_work(task, agreed)
        return
    if not masked:
        raise departure(kind_of(task), "a secure sum", "none")
    _equal(f"{kind_of(task)}.index", task.index, agreed.index)
    if task.request is not None:
        check_work(task.request, agreed)


def check_work(task: Message, agreed: Agreement) -> None:
    """Compare a request for work, which came alone or within a secure sum.

    Raises AgreementError as `check_task` does.
    """
    kind = kind_of(task)
    if not isinstance(task, DescribeRequest | TrainRequest | EvaluateRequest | PersonaliseRequest):
        raise departure(kind, "a request of this kind", "none")
    _equal(f"{kind}.index", task.index, agreed.index)
    if isinstance(task, TrainRequest):
        _check_train(task, agreed)
        return
    last = agreed.config.train.rounds + (
        agreed.config.gate.interpolate if isinstance(task, EvaluateRequest) else 0
    )
    _between(f"{kind}.round", task.round, 0, last)
    if isinstance(task, EvaluateRequest):
        _equal("evaluate.hours", len(task.hours), 0)
        _check_model("evaluate.held", task.held, agreed)
        if task.round == 0:
            _check_base("evaluate.held", task.held)
    if isinstance(task, PersonaliseRequest):
        _check_part(kind, task.rank, task.steps, agreed)
        _check_budget(kind, task.budget, agreed)
        _check_model("personalise.held", task.held, agreed)


def departure(key: str, asked: Any, agreed: str) -> AgreementError:
    """Make the error for one key: what was asked, and what was agreed in words."""
    return refusal(
        AgreementError,
        "not-as-agreed",
        key=one_line(key),
        asked=one_line(_shown(asked)),
        agreed=one_line(agreed),
    )


@dataclass
class Asked:
    """Hold the requests of each round so far, so that one round cannot be asked with ever new
    content.

    models: by round, the shared model, rank and steps that were trained with. variants: what else
        differed, by kind and round.
    """

    models: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    variants: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def check_trained(self, task: TrainRequest, model: str, gradient: str) -> None:
        """Raise AgreementError where this round was trained with another shared model, rank or
        number of steps.

        Args:
            task: the request.
            model: digest of the shared model that it starts from.
            gradient: digest of the centre's gradient in it; empty where there is none.
        """
        now = (model, task.rank, task.steps)
        if self.models.get(task.round, now) != now:
            raise departure("train.round", f"round {task.round} again with other content", "once")
        self._note("train", task.round, gradient, REPEATS, "gradient")
        self.models[task.round] = now

    def check_look(self, round_: int, content: str, agreed: Agreement) -> None:
        """Raise AgreementError where validation data would score more models of one round than
        agreed. content: a digest.
        """
        self._note("evaluate", round_, content, REPEATS * agreed.looks(round_), "looks")

    def _note(self, kind: str, round_: int, content: str, most: int, key: str) -> None:
        seen = self.variants.setdefault((kind, round_), set())
        if content not in seen and len(seen) >= most:
            raise departure(f"{kind}.{key}", len(seen) + 1, f"at most {most} in one round")
        seen.add(content)


def _check_train(task: TrainRequest, agreed: Agreement) -> None:
    train, pieces = agreed.config.train, agreed.algorithm
    _between("train.round", task.round, agreed.first + 1, train.rounds)
    _check_part("train", task.rank, task.steps, agreed)
    _near(
        "train.learning_rate",
        task.learning_rate,
        round_rate(task.round, train.rounds, agreed.first, train.learning_rate, train.final_rate),
    )
    _equal("train.seed", task.seed, derive(agreed.config.seed, "train", task.round, agreed.index))
    _equal("train.layout", task.layout, pieces.reduce.layout)
    trained = pieces.reduce.trained(task.round)
    if task.trained != "b" or trained != "a":  # b instead of a while all of b is 0
        _equal("train.trained", task.trained, trained)
    _equal("train.upload", task.upload, pieces.upload.name)
    _same_table("train.upload_settings", task.upload_settings, pieces.upload.settings)
    _equal("train.feedback", task.feedback, pieces.feedback)
    _between(
        "train.memory_round", task.memory_round, 0, 0 if pieces.feedback is None else task.round - 1
    )
    _same_table("train.terms", task.terms, pieces.local.terms_of(agreed.index))
    _equal("train.method", task.method, pieces.local.method_name)
    _same_table("train.method_settings", task.method_settings, pieces.local.method_settings)
    _check_budget("train", task.budget, agreed)
    _equal("train.hours", len(task.hours), 0)
    _check_model("train.held", task.held, agreed)
    if task.gradient is not None and not pieces.local.needs("gradient"):
        raise departure("train.gradient", "a gradient", "none")
    if task.gradient is not None:
        _check_model("train.gradient", task.gradient, agreed)
    _check_start(task, agreed)
    if task.round == 1:
        _check_base("train.held", task.held)
        if task.start is not None:
            _check_base("train.start", task.start)


def _check_part(kind: str, rank: int, steps: int, agreed: Agreement) -> None:
    """Compare rank and steps with what a coordinator can assign to this participant."""
    if rank not in agreed.ranks:
        raise departure(f"{kind}.rank", rank, f"one of {', '.join(map(str, agreed.ranks))}")
    _between(f"{kind}.steps", steps, agreed.work.min_steps, agreed.work.steps)


def _check_budget(kind: str, budget: Mapping[str, float], agreed: Agreement) -> None:
    """Compare a share of the federation's budget with the whole; bytes are bounded at the
    coordinator alone.
    """
    limits = {
        key: limit for key, limit in agreed.config.budget.limits().items() if key != "megabytes"
    }
    for key in sorted(budget.keys() | limits.keys()):
        if key not in limits:
            raise departure(f"{kind}.budget.{key[:LONGEST]}", budget[key], "none")
        if key not in budget:
            raise departure(f"{kind}.budget.{key}", "none", f"a share of {limits[key]:g}")
        _between(f"{kind}.budget.{key}", budget[key], 0.0, limits[key] * (1.0 + CLOSE))


def _check_model(key: str, model: Update, agreed: Agreement) -> None:
    """Compare modules, shapes and ranks of a model with the layout, before it is folded in."""
    if model.spec != agreed.spec:
        raise departure(key, f"layout {model.spec[:12]!r}", repr(agreed.spec[:12]))
    known: dict[str, tuple[int, ...]] = {**agreed.shapes, **agreed.heads}
    for name, entry in model.entries.items():
        if name not in known:
            raise departure(key, f"entry {name[:LONGEST]!r}", "no such module")
        _equal(f"{key} {name}", _size(entry.shape), _size(known[name]))
        if isinstance(entry, Factored):
            if name in agreed.heads:
                raise departure(f"{key} {name}", "factors", "one tensor")
            _between(f"{key} {name} rank", entry.rank, 0, max(agreed.widest, min(known[name])))


def _check_start(task: TrainRequest, agreed: Agreement) -> None:
    """Compare the factors that training continues with the layout and the assigned rank."""
    continues = task.layout == "factors" or agreed.algorithm.start.continues
    if (task.start is not None) != continues:
        words = ("factors to continue", "none")
        raise departure("train.start", words[task.start is None], words[not continues])
    if task.start is None:
        return
    if task.layout == "product":
        _check_model("train.start", task.start, agreed)
        for name, entry in task.start.entries.items():
            if not isinstance(entry, Factored):
                raise departure(f"train.start {name}", "one tensor", "factors")
            _between(f"train.start {name} rank", entry.rank, 0, task.rank)
        return
    if task.start.spec != agreed.spec:
        raise departure("train.start", f"layout {task.start.spec[:12]!r}", repr(agreed.spec[:12]))
    sizes: dict[str, tuple[int, ...]] = dict(agreed.heads)
    for name, (m, n) in agreed.shapes.items():
        a = task.start.entries.get(f"{name}:a")
        rank = a.shape[0] if isinstance(a, Dense) and a.value.ndim == 2 else 0
        _between(f"train.start {name} rank", rank, 1, task.rank)
        sizes |= {f"{name}:a": (rank, n), f"{name}:b": (m, rank)}
        if f"{name}:b" not in task.start.entries:
            raise departure(f"train.start {name}:b", "none", _size((m, rank)))
    for name, entry in task.start.entries.items():
        if name not in sizes or not isinstance(entry, Dense):
            raise departure("train.start", f"entry {name[:LONGEST]!r}", "no such factor")
        _equal(f"train.start {name}", _size(entry.shape), _size(sizes[name]))


def _check_base(key: str, model: Update) -> None:
    """See that a model is the base: every change is 0, whatever the first factors A are."""
    for name, entry in model.entries.items():
        moved = plain(entry) if isinstance(entry, Dense) else entry.b
        if not name.endswith(":a") and bool(moved.any()):
            raise departure(key, "a trained model before the first round", "the base")


def _equal(key: str, asked: Any, agreed: Any) -> None:
    if asked != agreed:
        raise departure(key, asked, _shown(agreed))


def _near(key: str, asked: float, agreed: float) -> None:
    if not math.isclose(asked, agreed, rel_tol=CLOSE):
        raise departure(key, asked, f"{agreed:.6g}")


def _between(key: str, asked: float, least: float, most: float) -> None:
    if not asked >= least:
        raise departure(key, asked, f"at least {_shown(least)}")
    if not asked <= most:
        raise departure(key, asked, f"at most {_shown(most)}")


def _same_table(key: str, asked: Mapping[str, float], agreed: Mapping[str, float]) -> None:
    for name in sorted(asked.keys() | agreed.keys()):
        if asked.get(name) != agreed.get(name):
            raise departure(f"{key}.{name[:LONGEST]}", asked.get(name), _shown(agreed.get(name)))


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(_shown, shape))


def _shown(value: Any) -> str:
    """Return a value as short text for a person, whatever was asked."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > WIDEST:
        return f"about 10^{int(math.log10(abs(value)))}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:LONGEST]
