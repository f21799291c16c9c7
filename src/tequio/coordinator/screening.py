"""Screening: admitted updates are bounded, compared and tried before they are added up; what stands
out raises an alarm.

An alarm is an entry in the record (participant, what, figure, limit), and where its action is
"refuse" the update stays out.
- `norm`: an update longer than f × the expected norm is cut to that length (Sun et al., arXiv
  1911.07963). Expected is the median of the
  round before, over its learning rate and times this round's; in the first round the median of this
  one. Streams from the second round on.
- `cosine` to "centre": against the centre's update of this round, FLTrust's measure (Cao et al.,
  arXiv 2012.13995), here only as an
  alarm: as a weight it silences participants whose domain the public data lack. Streams, for the
      centre is first on the roster.
- `cosine` to "others": against the mean direction of the others, Σ_{j≠i} Δ_j/‖Δ_j‖. All updates are
  kept until the last is in.
- `loss`: base + shared + Δ_i does worse than base + shared on a public slice, by the gate's test.
  All are kept here too.
What cannot be measured raises the alarm. The centre's own update is not screened. What none of this
stops is in docs/how-a-round-works.md.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tequio.algorithms.factors import padded_sum, product
from tequio.coordinator.admission import Admitted, Alarm, Refused
from tequio.coordinator.gate import Slice, judge
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import RunError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.core.types import EvaluateRequest, Failure, State
from tequio.core.update import Dense, Entry, Update

Outcome = Admitted | Refused
FEWEST = 3  # of two that disagree nobody can say which is wrong


def screened(
    outcomes: Iterable[Outcome], state: State, run_spec: RunSpec, runtime: Runtime
) -> Iterator[Outcome]:
    """The same outcomes in the same order, screened.

    Raises RunError if the centre cannot evaluate the shared model.
    """
    if run_spec.screening.norm_bound is not None and not state.norm_per_rate:
        outcomes = list(outcomes)
    each = _each(outcomes, _reference(outcomes, state, run_spec), run_spec)
    if run_spec.screening.streaming:
        yield from each
        return
    remaining = list(each)
    if run_spec.screening.cosine is not None and run_spec.screening.cosine_to == "others":
        remaining = _others(remaining, run_spec.screening.cosine, run_spec.screening.cosine_action)
    if run_spec.screening.loss is not None:
        remaining = _tried(remaining, run_spec.screening.loss, state, run_spec, runtime)
    yield from remaining


def _reference(outcomes: Iterable[Outcome], state: State, run_spec: RunSpec) -> float:
    """The expected norm; where no round tells it, the median of these updates, which are then all
    there.
    """
    if state.norm_per_rate or not isinstance(outcomes, list):
        return run_spec.expected_norm(state)
    norms = [o.row["norm"] for o in outcomes if isinstance(o, Admitted) and o.member.index > 0]
    return statistics.median(norms) if norms else 0.0


def _each(outcomes: Iterable[Outcome], reference: float, run_spec: RunSpec) -> Iterator[Outcome]:
    """What can be said of one update as it comes: its norm, and its cosine with the centre's."""
    rule = run_spec.screening
    centre: Update | None = None
    for outcome in outcomes:
        if isinstance(outcome, Admitted) and outcome.member.index == 0:
            centre = outcome.update
        if isinstance(outcome, Refused) or outcome.member.index == 0:
            yield outcome
            continue
        bounded = outcome if rule.norm_bound is None else bound(outcome, rule.norm_bound, reference)
        if rule.cosine is None or rule.cosine_to == "others":
            yield bounded
            continue
        figure = None if centre is None else cosine(bounded.update, centre)
        low = figure is None or not figure >= rule.cosine
        yield (
            _alarmed(bounded, "cosine", figure, rule.cosine, rule.cosine_action) if low else bounded
        )


def bound(admitted: Admitted, factor: float, reference: float) -> Admitted:
    """The update, not longer than factor × reference; as it is where there is no reference (0)."""
    times = admitted.facts.norm / reference if reference else 0.0
    if times <= factor:
        return admitted
    shrink = factor / times
    facts = replace(admitted.facts, norm=admitted.facts.norm * shrink)
    alarm = Alarm(admitted.member.name, "norm", times, factor, "clip")
    return replace(
        admitted,
        update=admitted.update.scaled(shrink),
        facts=facts,
        alarms=(*admitted.alarms, alarm),
    )


def cosine(x: Update, y: Update) -> float:
    """⟨x, y⟩/(‖x‖‖y‖) by inner products of factors; 0 if one of them is 0."""
    length = x.norm() * y.norm()
    return _inner(x, y) / length if length > 0.0 else 0.0


def _inner(x: Update, y: Update) -> float:
    """⟨x, y⟩; where shared factors have unequal ranks, the missing ones count as 0."""
    cut: dict[str, Entry] = {}
    other: dict[str, Entry] = dict(y.entries)
    for name, entry in x.entries.items():
        theirs = y.entries.get(name)
        cut[name] = entry
        if isinstance(entry, Dense) and isinstance(theirs, Dense) and entry.shape != theirs.shape:
            both = tuple(
                slice(0, min(p, q)) for p, q in zip(entry.shape, theirs.shape, strict=True)
            )
            cut[name], other[name] = Dense(entry.value[both]), Dense(theirs.value[both])
    return Update(cut, x.spec).dot(Update(other, y.spec))


def lowest(cosines: Sequence[Sequence[float]], among: Sequence[int]) -> tuple[int, float]:
    """(who, its cosine with the mean direction of the others) for the least such cosine among
    these.

    cosines: of each pair. With unit vectors u: ⟨u_i, Σ_j u_j⟩/‖Σ_j u_j‖ over j ≠ i, from the pairs
        alone.
    """
    found: list[tuple[float, int]] = []
    for i in among:
        rest = [j for j in among if j != i]
        length = math.sqrt(max(0.0, math.fsum(cosines[j][k] for j in rest for k in rest)))
        along = math.fsum(cosines[i][j] for j in rest)
        found.append((along / length if length > 1e-9 else 0.0, i))
    least, who = min(found)
    return who, least


def _others(outcomes: Sequence[Outcome], limit: float, action: str) -> list[Outcome]:
    """The update of least cosine is set aside while it is under the limit, then the rest are
    compared again.

    So that a bad one does not spoil the mean by which good ones are measured. Under three nobody is
    set aside.
    """
    out = list(outcomes)
    places = [k for k, o in enumerate(out) if isinstance(o, Admitted) and o.member.index > 0]
    updates = [o.update for o in out if isinstance(o, Admitted) and o.member.index > 0]
    pairs = [[1.0] * len(updates) for _ in updates]
    for i, left in enumerate(updates):
        for j in range(i):
            pairs[i][j] = pairs[j][i] = cosine(left, updates[j])
    among = list(range(len(updates)))
    while len(among) >= FEWEST:
        who, figure = lowest(pairs, among)
        if figure >= limit:
            break
        among.remove(who)
        out[places[who]] = _alarmed(out[places[who]], "cosine", figure, limit, action)
    return out


def _tried(
    outcomes: Sequence[Outcome], margin: float, state: State, run_spec: RunSpec, runtime: Runtime
) -> list[Outcome]:
    """Each update alone on top of the shared model, on the public slices."""
    before = _harm(state.shared, state, run_spec, runtime)
    if not before:
        raise refusal(RunError, "screening-without-centre", round=state.round + 1)
    out: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, Refused) or outcome.member.index == 0:
            out.append(outcome)
            continue
        after = _harm(padded_sum(state.shared, outcome.update), state, run_spec, runtime)
        failed = [s for s in judge(before, after, margin, run_spec.seed).values() if not s.passes]
        if failed:
            worst = max(failed, key=_excess)
            rise = worst.candidate - worst.base
            figure = rise if math.isfinite(rise) else None
            outcome = _alarmed(outcome, "loss", figure, worst.limit, run_spec.screening.loss_action)
        out.append(outcome)
    return out


def _excess(slice_: Slice) -> float:
    return slice_.candidate - slice_.base - slice_.limit


def _harm(
    shared: Update, state: State, run_spec: RunSpec, runtime: Runtime
) -> Mapping[str, tuple[float, ...]]:
    """The centre's per-example harm on the public slices; nothing where it fails."""
    if run_spec.centre is None:
        return {}
    held = shared if run_spec.aggregator.layout == "product" else product(shared, run_spec.scale)
    task = EvaluateRequest(state.round + 1, run_spec.centre.index, run_spec.centre.name, held)
    for reply in runtime.exchange([task]):
        return {} if isinstance(reply, Failure) else reply.slices
    return {}


def _alarmed(
    outcome: Outcome, kind: str, figure: float | None, limit: float, action: str
) -> Outcome:
    """With the alarm noted, and refused where that is its action."""
    alarms = (*outcome.alarms, Alarm(outcome.member.name, kind, figure, limit, action))
    if action != "refuse":
        return replace(outcome, alarms=alarms)
    facts = {"alarm": kind, "limit": limit} | ({} if figure is None else {"figure": figure})
    reason = Reason("alarm-unmeasured" if figure is None else "alarm", facts)
    return (
        outcome if isinstance(outcome, Refused) else Refused(outcome.member, reason, alarms=alarms)
    )
