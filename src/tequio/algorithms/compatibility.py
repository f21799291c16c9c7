"""Which pieces go together.

A chain that has no meaning is refused when the run is built, with the reason and the nearest legal
one.
"""

from collections.abc import Mapping

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.reduce.trimmed_mean import FEWEST, TrimmedMean
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, Facts, Sees, Start, Weighting
from tequio.core.texts.words import refuse_first


def check_chain(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError if the start cannot serve the reduce."""
    found = {
        "start-of-factors": start.continues and reduce.layout == "factors",
        "start-of-robust": start.truncates and not reduce.streaming,
    }
    refuse_first(ConfigError, found, start=start.name, reduce=reduce.name)


def check_bound(bound: float | None, weights: Weighting) -> None:
    """Raise ConfigError if a bound on norms is asked for where the weights give every update the
    same length anyway.
    """
    once, twice = (weights.coefficient(Facts(1, 1, norm, 1.0)) * norm for norm in (1.0, 2.0))
    found = {"bound-without-effect": bound is not None and once == twice}
    refuse_first(ConfigError, found, bound=bound, weights=weights.name)


def check_votes(reduce: Aggregator, members: int) -> None:
    """Raise ConfigError where a round has too few members for the reduce."""
    found = {"too-few-to-trim": isinstance(reduce, TrimmedMean) and members < FEWEST}
    refuse_first(ConfigError, found, reduce=reduce.name, members=members, fewest=FEWEST)


def check_buffered(
    reduce: Aggregator, start: Start, cosine: float | None = None, feedback: float | None = None
) -> None:
    """Raise ConfigError where the change of an older model cannot be added to a newer one, or
    compared with its changes.

    cosine: the limit of that screening; feedback: the decay of error feedback; None where they are
        not used.
    """
    found = {
        "buffered-factors": reduce.layout == "factors",
        "buffered-robust": not reduce.streaming,
        "buffered-start": start.continues,
        "buffered-feedback": feedback is not None,
        "buffered-cosine": cosine is not None,
    }
    refuse_first(
        ConfigError, found, reduce=reduce.name, start=start.name, feedback=feedback, cosine=cosine
    )


def check_full(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError where whole weights cannot be what is trained."""
    found = {
        "full-factors": reduce.layout == "factors",
        "full-robust": not reduce.streaming,
        "full-start": start.continues,
    }
    refuse_first(ConfigError, found, reduce=reduce.name, start=start.name)


def check_codec(
    direction: str,
    codec: Codec,
    reduce: Aggregator,
    feedback: float | None = None,
    full: bool = False,
) -> None:
    """Raise ConfigError for a codec that needs error feedback, or feedback that is asked for, where
    it has no meaning.

    direction: upload or download. On the way down the coordinator's pending remainder is the
        feedback.
    full: whole weights are trained, whose coordinates mean the same in every round.
    """
    wanted = codec.name == "topk" or feedback is not None
    found = {
        "feedback-of-plain": feedback is not None and codec.name == "plain",
        "feedback-of-product": wanted and reduce.layout == "product" and not full,
        "feedback-of-robust": direction == "upload" and wanted and not reduce.streaming,
    }
    refuse_first(ConfigError, found, direction=direction, codec=codec.name, reduce=reduce.name)


def check_sum(
    reduce: Aggregator,
    weights: Weighting,
    start: Start,
    codec: Codec,
    watching: Mapping[str, Sees],
    full: bool = False,
) -> None:
    """Raise ConfigError where only the sum of a round's updates can be seen, and a piece must see
    more.

    watching: what else looks at updates, by its key (a screen, credits), and what it must see.
    """
    chosen = {
        f"reduce = {reduce.name!r}": reduce.sees,
        f"weights = {weights.name!r}": weights.sees,
        **watching,
    }
    key = next((key for key, sees in chosen.items() if sees != "only the sum"), "")
    found = {
        "sum-piece": bool(key),
        "sum-coordinates": full or start.truncates or start.continues,
        "sum-codec": codec.name != "plain",
    }
    refuse_first(ConfigError, found, key=key, upload=codec.name)


def check_distil(reduce: Aggregator) -> None:
    """Raise ConfigError if what is distilled cannot be added to what this reduce shares."""
    refuse_first(ConfigError, {"distil-factors": reduce.layout == "factors"}, reduce=reduce.name)
