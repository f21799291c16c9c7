"""The pieces by name, as federation.toml chooses them.

Third parties add theirs through the entry points `tequio.<kind>`.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.compress.eden import Eden
from tequio.algorithms.compress.half import Half
from tequio.algorithms.compress.plain import Plain as PlainCodec
from tequio.algorithms.compress.quantise import Quantise
from tequio.algorithms.compress.topk import TopK
from tequio.algorithms.distil.feddf import FedDF
from tequio.algorithms.distil.mixture import Mixture
from tequio.algorithms.local.fedprox import FedProx
from tequio.algorithms.local.fomaml import FOMAML
from tequio.algorithms.local.kl import KL
from tequio.algorithms.local.plain import Plain
from tequio.algorithms.local.replay import Replay
from tequio.algorithms.local.transfer import Transfer
from tequio.algorithms.reduce.centred_clipping import CentredClipping
from tequio.algorithms.reduce.fedit import FedIT
from tequio.algorithms.reduce.ffa import FFA
from tequio.algorithms.reduce.geometric_median import GeometricMedian
from tequio.algorithms.reduce.rolora import RoLoRA
from tequio.algorithms.reduce.stack import Stack
from tequio.algorithms.reduce.trimmed_mean import TrimmedMean
from tequio.algorithms.server.adam import Adam
from tequio.algorithms.server.nesterov import Nesterov
from tequio.algorithms.server.reptile import Reptile
from tequio.algorithms.server.sgd import Sgd
from tequio.algorithms.server.yogi import Yogi
from tequio.algorithms.start.fedex import FedEx
from tequio.algorithms.start.flexlora import FlexLoRA
from tequio.algorithms.start.fresh import Fresh
from tequio.algorithms.weights.examples import Examples
from tequio.algorithms.weights.fednova import FedNova
from tequio.algorithms.weights.norm_equalised import NormEqualised
from tequio.algorithms.weights.q_ffl import QFFL
from tequio.algorithms.weights.term import Term
from tequio.algorithms.weights.uniform import Uniform
from tequio.core.errors import ConfigError
from tequio.core.protocols import (
    Aggregator,
    Ensemble,
    LocalMethod,
    LocalTerm,
    ServerOptimizer,
    Start,
    Weighting,
)
from tequio.core.texts.words import refusal

Piece = TypeVar("Piece")

REDUCE: Mapping[str, Callable[..., Aggregator]] = {
    "stack": Stack,
    "fedit": FedIT,
    "ffa": FFA,
    "rolora": RoLoRA,
    "trimmed_mean": TrimmedMean,
    "centred_clipping": CentredClipping,
    "geometric_median": GeometricMedian,
}
START: Mapping[str, Callable[..., Start]] = {
    "fresh": Fresh,
    "fedex": FedEx,
    "flexlora": FlexLoRA,
}
WEIGHTS: Mapping[str, Callable[..., Weighting]] = {
    "examples": Examples,
    "uniform": Uniform,
    "fednova": FedNova,
    "norm_equalised": NormEqualised,
    "q_ffl": QFFL,
    "term": Term,
}
SERVER: Mapping[str, Callable[..., ServerOptimizer]] = {
    "sgd": Sgd,
    "nesterov": Nesterov,
    "adam": Adam,
    "yogi": Yogi,
    "reptile": Reptile,
}
LOCAL: Mapping[str, Callable[..., LocalTerm]] = {
    "fedprox": FedProx,
    "kl": KL,
    "replay": Replay,
    "transfer": Transfer,
}
OWN_TERMS: dict[str, LocalTerm] = {}
"""Terms that are objects of this process, by name: see `known_terms`."""
METHOD: Mapping[str, Callable[..., LocalMethod]] = {
    "plain": Plain,
    "fomaml": FOMAML,
}

ENSEMBLE: Mapping[str, Callable[..., Ensemble]] = {
    "feddf": FedDF,
    "mixture": Mixture,
}


def reduce_by_name(name: str, **settings: Any) -> Aggregator:
    """The aggregator called `name`. Raises ConfigError with the nearest known name."""
    return _build("reduce", REDUCE, name, settings)


def start_by_name(name: str, **settings: Any) -> Start:
    """The start called `name`. Raises ConfigError with the nearest known name."""
    return _build("start", START, name, settings)


def weights_by_name(name: str, **settings: Any) -> Weighting:
    """The weighting called `name`. Raises ConfigError with the nearest known name."""
    return _build("weights", WEIGHTS, name, settings)


def server_by_name(name: str, **settings: Any) -> ServerOptimizer:
    """The server optimiser called `name`. Raises ConfigError with the nearest known name."""
    return _build("server", SERVER, name, settings)


@contextmanager
def known_terms(terms: Sequence[LocalTerm]) -> Iterator[None]:
    """Know these objects by their names while inside, in this process alone.

    Raises ConfigError where another run of this process has a term of such a name.
    """
    named = {term.name: term for term in terms}
    if busy := sorted(named.keys() & OWN_TERMS.keys()):
        raise refusal(ConfigError, "loss-name-taken", name=busy[0])
    OWN_TERMS.update(named)
    try:
        yield
    finally:
        for name in named:
            del OWN_TERMS[name]


def terms_by_name(strengths: Mapping[str, float]) -> tuple[LocalTerm, ...]:
    """The local terms of these names and strengths, sorted by name; one of strength 0 is left out.

    Raises ConfigError with the nearest known name, and for a strength out of range.
    """
    built: list[LocalTerm] = [
        OWN_TERMS.get(name) or _build("local", LOCAL, name, {"strength": x}, "[local] terms")
        for name, x in sorted(strengths.items())
    ]
    return tuple(term for term in built if term.strength != 0.0)


def method_by_name(name: str, **settings: Any) -> LocalMethod:
    """The local method called `name`. Raises ConfigError with the nearest known name."""
    return _build("method", METHOD, name, settings, "[local] method")


def ensemble_by_name(name: str) -> Ensemble:
    """The ensemble called `name`. Raises ConfigError with the nearest known name."""
    return _build("ensemble", ENSEMBLE, name, {}, "[distil] ensemble")


def codec_by_name(name: str, **settings: Any) -> Codec:
    """The codec called `name`; whole numbers may come as floats.

    Raises ConfigError with the nearest known name.
    """
    whole = {
        key: int(value) if float(value).is_integer() else value for key, value in settings.items()
    }
    return _build("compress", COMPRESS, name, whole, "[algorithm] upload or download")


def _build(
    kind: str,
    known: Mapping[str, Callable[..., Piece]],
    name: str,
    settings: Mapping[str, Any],
    where: str = "",
) -> Piece:
    where = where or f"[algorithm] {kind}"
    factory = known.get(name)
    if factory is None:
        found = entry_points(group=f"tequio.{kind}", name=name)
        factory = next(iter(found)).load() if found else None
    if factory is None:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        near = f"start = {name}" if kind != "start" and name in START else near
        raise refusal(
            ConfigError, "piece-unknown", key=where, value=name, known=[*known], nearest=near
        )
    taken = inspect.signature(factory).parameters
    if unknown := sorted(settings.keys() - taken.keys()):
        numbers = [
            n for n, p in taken.items() if p.default is None or type(p.default) in (int, float)
        ]
        raise refusal(
            ConfigError,
            "settings-unknown",
            key=where,
            value=name,
            unknown=unknown,
            known=numbers or None,
        )
    try:
        return factory(**settings)
    except TypeError as error:
        raise refusal(
            ConfigError, "settings-refused", key=where, value=name, error=str(error)
        ) from None


COMPRESS: Mapping[str, Callable[..., Codec]] = {
    "plain": PlainCodec,
    "half": Half,
    "quantise": Quantise,
    "eden": Eden,
    "topk": TopK,
}
