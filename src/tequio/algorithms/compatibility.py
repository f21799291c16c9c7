"""Which pieces go together. A chain that has no meaning is refused when the run is built, with the reason and the nearest legal one."""

from __future__ import annotations

from collections.abc import Mapping

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.reduce.trimmed_mean import FEWEST, TrimmedMean
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, Facts, Sees, Start, Weighting


def check_chain(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError if the start cannot serve the reduce."""
    what = f"[algorithm] start = {start.name!r} does not go with reduce = {reduce.name!r}."
    if start.continues and reduce.layout == "factors":
        why = "That reduce goes on with shared factors; a start takes its factors from a product, which only"
        why += " a reduce of products has."
        raise ConfigError(
            what, why, f'Use start = "fresh" with {reduce.name!r}, or reduce = "stack" with {start.name!r}.'
        )
    if start.truncates and not reduce.streaming:
        why = (
            "A robust reduce compares changes of one and the same model; with this start every rank begins at another."
        )
        raise ConfigError(
            what, why, f'Use start = "fedex" with {reduce.name!r}, or reduce = "stack" with {start.name!r}.'
        )


def check_bound(bound: float | None, weights: Weighting) -> None:
    """Raise ConfigError if a bound on norms is asked for where the weights give every update the same length anyway."""
    once, twice = (weights.coefficient(Facts(1, 1, norm, 1.0)) * norm for norm in (1.0, 2.0))
    if bound is not None and once == twice:
        what = f"[screen] norm_bound = {bound:g} does nothing with weights = {weights.name!r}."
        why = "With these weights each update counts at the same length, however long it came."
        raise ConfigError(what, why, 'Leave norm_bound out, or use weights = "examples".')


def check_votes(reduce: Aggregator, members: int) -> None:
    """Raise ConfigError where a round has too few members for the reduce."""
    if isinstance(reduce, TrimmedMean) and members < FEWEST:
        why = f"Of {members} updates none can be told to be the odd one: it needs {FEWEST} participants a round."
        raise ConfigError(f"[algorithm] reduce = {reduce.name!r}.", why, 'Use reduce = "fedit".')


def check_buffered(
    reduce: Aggregator, start: Start, cosine: float | None = None, feedback: float | None = None
) -> None:
    """Raise ConfigError where the change of an older model cannot be added to a newer one, or compared with its changes.

    cosine: the limit of that screening; feedback: the decay of error feedback; None where they are not used.
    """
    what, fix = (
        '[train] pace = "buffered" does not go with',
        'use reduce = "stack" and start = "fresh", or pace = "rounds".',
    )
    late = "A late update is a change of an older model"
    if reduce.layout == "factors":
        why = f"{late}: products of any age can be added up, factors that have moved on since cannot;"
        raise ConfigError(f"{what} reduce = {reduce.name!r}.", why, fix)
    if not reduce.streaming:
        raise ConfigError(
            f"{what} reduce = {reduce.name!r}.", f"{late}, and a robust reduce compares those of one;", fix
        )
    if start.continues:
        why = f"{late}: what it took out of that model's factors is not in the newer one's;"
        raise ConfigError(f"{what} start = {start.name!r}.", why, fix)
    if feedback is not None:
        why = "While an update is on its way, nobody knows whether what it left out will count."
        raise ConfigError(f"{what} feedback = {feedback:g}.", why, 'Use upload = "quantise" without feedback.')
    if cosine is not None:
        why = f"{late}, and this alarm compares changes of one."
        raise ConfigError(f"{what} [screen] cosine = {cosine:g}.", why, "Use norm_bound or loss instead.")


def check_full(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError where whole weights cannot be what is trained."""
    what = '[adapter] kind = "full" does not go with'
    if reduce.layout == "factors":
        raise ConfigError(
            f"{what} reduce = {reduce.name!r}.", "Whole weights have no factors.", 'Use reduce = "stack".'
        )
    if not reduce.streaming:
        why = "It keeps every update until the last is in, and each is as large as the trained weights."
        raise ConfigError(f"{what} reduce = {reduce.name!r}.", why, 'Use reduce = "stack".')
    if start.continues:
        why = "It goes on with factors, and whole weights have none."
        raise ConfigError(f"{what} start = {start.name!r}.", why, 'Use start = "fresh".')


def check_codec(
    direction: str, codec: Codec, reduce: Aggregator, feedback: float | None = None, full: bool = False
) -> None:
    """Raise ConfigError for a codec that needs error feedback, or feedback that is asked for, where it has no meaning.

    direction: upload or download. On the way down the coordinator's pending remainder is the feedback.
    full: whole weights are trained, whose coordinates mean the same in every round.
    """
    wanted = codec.name == "topk" or feedback is not None
    key = f"[algorithm] {direction} = {codec.name!r}"
    key += " with feedback" if feedback is not None and codec.name != "topk" else ""
    what = f"{key} does not go with reduce = {reduce.name!r}."
    if feedback is not None and codec.name == "plain":
        why = "Nothing is left out, so there is nothing to send later."
        raise ConfigError(f"{key}: {why}", "", 'Leave out feedback, or use upload = "topk".')
    if wanted and reduce.layout == "product" and not full:
        why = "What it leaves out is sent later (error feedback), but factors are drawn afresh each round,"
        why += " so what the last one left out means nothing now."
        raise ConfigError(
            what, why, f'Use reduce = "rolora" with it, or {direction} = "quantise" with {reduce.name!r}.'
        )
    if direction == "upload" and wanted and not reduce.streaming:
        why = "It counts as sent what the reduce may throw away coordinate by coordinate."
        raise ConfigError(what, why, f'Use reduce = "rolora" with it, or upload = "quantise" with {reduce.name!r}.')


def check_sum(
    reduce: Aggregator, weights: Weighting, start: Start, codec: Codec, watching: Mapping[str, Sees], full: bool = False
) -> None:
    """Raise ConfigError where only the sum of a round's updates can be seen, and a piece must see more.

    watching: what else looks at updates, by its key (a screen, credits), and what it must see.
    """
    fix = 'Use reduce = "rolora" or "ffa" with weights = "uniform" and upload = "plain", without [screen] and credits.'
    what = "Only the sum of a round's updates can be seen, and"
    chosen = {f"reduce = {reduce.name!r}": reduce.sees, f"weights = {weights.name!r}": weights.sees, **watching}
    for key, sees in chosen.items():
        if sees != "only the sum":
            raise ConfigError(f"{what} {key} must see {sees}.", "", fix)
    if full or start.truncates or start.continues:
        raise ConfigError(f"{what} updates of whole weights or products have no common coordinates.", "", fix)
    if codec.name != "plain":
        raise ConfigError(f"{what} upload = {codec.name!r} codes each one in its own way.", "", fix)


def check_distil(reduce: Aggregator) -> None:
    """Raise ConfigError if what is distilled cannot be added to what this reduce shares."""
    if reduce.layout == "factors":
        why = f"What is distilled is a change of the product; reduce = {reduce.name!r} shares two factors."
        raise ConfigError("[distil] does not go with this reduce.", why, 'Use reduce = "stack".')
