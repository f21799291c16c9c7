"""Which pieces go together. A chain that has no meaning is refused when the run is built, with the reason and the nearest legal one."""

from __future__ import annotations

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.reduce.trimmed_mean import FEWEST, TrimmedMean
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, Facts, Start, Weighting
from tequio.texts.words import refusal


def check_chain(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError if the start cannot serve the reduce."""
    if start.continues and reduce.layout == "factors":
        raise refusal(ConfigError, "start-of-factors", start=start.name, reduce=reduce.name)
    if start.truncates and not reduce.streaming:
        raise refusal(ConfigError, "start-of-robust", start=start.name, reduce=reduce.name)


def check_bound(bound: float | None, weights: Weighting) -> None:
    """Raise ConfigError if a bound on norms is asked for where the weights give every update the same length anyway."""
    once, twice = (weights.coefficient(Facts(1, 1, norm, 1.0)) * norm for norm in (1.0, 2.0))
    if bound is not None and once == twice:
        raise refusal(ConfigError, "bound-without-effect", bound=bound, weights=weights.name)


def check_votes(reduce: Aggregator, members: int) -> None:
    """Raise ConfigError where a round has too few members for the reduce."""
    if isinstance(reduce, TrimmedMean) and members < FEWEST:
        raise refusal(ConfigError, "too-few-to-trim", reduce=reduce.name, members=members, fewest=FEWEST)


def check_buffered(
    reduce: Aggregator, start: Start, cosine: float | None = None, feedback: float | None = None
) -> None:
    """Raise ConfigError where the change of an older model cannot be added to a newer one, or compared with its changes.

    cosine: the limit of that screening; feedback: the decay of error feedback; None where they are not used.
    """
    if reduce.layout == "factors":
        raise refusal(ConfigError, "buffered-factors", reduce=reduce.name)
    if not reduce.streaming:
        raise refusal(ConfigError, "buffered-robust", reduce=reduce.name)
    if start.continues:
        raise refusal(ConfigError, "buffered-start", start=start.name)
    if feedback is not None:
        raise refusal(ConfigError, "buffered-feedback", feedback=feedback)
    if cosine is not None:
        raise refusal(ConfigError, "buffered-cosine", cosine=cosine)


def check_full(reduce: Aggregator, start: Start) -> None:
    """Raise ConfigError where whole weights cannot be what is trained."""
    if reduce.layout == "factors":
        raise refusal(ConfigError, "full-factors", reduce=reduce.name)
    if not reduce.streaming:
        raise refusal(ConfigError, "full-robust", reduce=reduce.name)
    if start.continues:
        raise refusal(ConfigError, "full-start", start=start.name)


def check_codec(
    direction: str, codec: Codec, reduce: Aggregator, feedback: float | None = None, full: bool = False
) -> None:
    """Raise ConfigError for a codec that needs error feedback, or feedback that is asked for, where it has no meaning.

    direction: upload or download. On the way down the coordinator's pending remainder is the feedback.
    full: whole weights are trained, whose coordinates mean the same in every round.
    """
    wanted = codec.name == "topk" or feedback is not None
    facts = {"direction": direction, "codec": codec.name, "reduce": reduce.name}
    if feedback is not None and codec.name == "plain":
        raise refusal(ConfigError, "feedback-of-plain", direction=direction)
    if wanted and reduce.layout == "product" and not full:
        raise refusal(ConfigError, "feedback-of-product", **facts)
    if direction == "upload" and wanted and not reduce.streaming:
        raise refusal(ConfigError, "feedback-of-robust", **facts)


def check_distil(reduce: Aggregator) -> None:
    """Raise ConfigError if what is distilled cannot be added to what this reduce shares."""
    if reduce.layout == "factors":
        raise refusal(ConfigError, "distil-factors", reduce=reduce.name)
