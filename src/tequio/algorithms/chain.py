"""Which pieces go together. A chain that has no meaning is refused when the run is built, with the reason and the nearest legal one."""

from __future__ import annotations

from tequio.algorithms.compress.codec import Codec
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, Start


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


def check_codec(direction: str, codec: Codec) -> None:
    """Raise ConfigError for a codec that loses what nobody sends later."""
    if codec.name == "topk":
        why = "What it leaves out must be kept and sent later (error feedback), which rounds do not do yet."
        raise ConfigError(f"[algorithm] {direction} = 'topk':", why, 'Use "quantise" or "eden".')
