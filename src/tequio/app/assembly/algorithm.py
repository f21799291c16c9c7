"""The pieces of the algorithm as federation.toml names them, and whether they go together.

They are built here, once; everything else is handed the built pieces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tequio.algorithms.compatibility import (
    check_buffered,
    check_chain,
    check_codec,
    check_distil,
    check_full,
)
from tequio.algorithms.registry import (
    codec_by_name,
    ensemble_by_name,
    method_by_name,
    reduce_by_name,
    server_by_name,
    start_by_name,
    terms_by_name,
    weights_by_name,
)
from tequio.config import AlgorithmSection, DistilSection, Federation
from tequio.coordinator.distillation import Distillation
from tequio.coordinator.run_spec import Coding, Local
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, ServerOptimizer, Start, Weighting
from tequio.core.texts.words import refusal, refuse_first

NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Algorithm:
    """One piece of each kind. All bases of a federation have the same.

    distillation: None without [distil]; its rank is 0 where it follows from the participants'
        ranks.
    """

    reduce: Aggregator
    weights: Weighting
    start: Start
    server: ServerOptimizer
    upload: Coding
    download: Coding
    feedback: float | None
    local: Local = field(default_factory=Local)
    distillation: Distillation | None = None


def resolve_algorithm(config: Federation) -> Algorithm:
    """Build all pieces of a federation, or of one base's part of it.

    Raises ConfigError for an unknown name or setting, and where pieces do not go together or a term
    lacks what it needs.
    """
    chain = build_chain(config.algorithm, config.adapter.kind == "full")
    local = build_local(config.local.terms, config.local.method, config.local.method_settings)
    _check_local(config, local)
    if config.train.pace == "buffered":
        check_buffered(chain.reduce, chain.start, config.screen.cosine, chain.feedback)
    if config.distil is None:
        return replace(chain, local=local)
    return replace(
        chain,
        local=local,
        distillation=build_distillation(config.distil, chain.reduce, config.seed),
    )


def build_chain(chosen: AlgorithmSection, full: bool = False) -> Algorithm:
    """Build the pieces of [algorithm] alone. full: whole weights are trained.

    Raises ConfigError as `resolve_algorithm` does.
    """
    chain = Algorithm(
        reduce_by_name(chosen.reduce, **chosen.reduce_settings),
        weights_by_name(chosen.weights, **chosen.weights_settings),
        start_by_name(chosen.start, **chosen.start_settings),
        server_by_name(chosen.server, **chosen.server_settings),
        build_coding(chosen.upload, chosen.upload_settings),
        build_coding(chosen.download, chosen.download_settings),
        1.0 if chosen.feedback is None and chosen.upload == "topk" else chosen.feedback,
    )
    check_chain(chain.reduce, chain.start)
    if full:
        check_full(chain.reduce, chain.start)
    check_codec("upload", chain.upload.codec, chain.reduce, chain.feedback, full)
    check_codec("download", chain.download.codec, chain.reduce, full=full)
    return chain


def build_coding(name: str, settings: Mapping[str, float] = NONE) -> Coding:
    """Build a codec. Raises ConfigError for an unknown name or setting."""
    return Coding(codec_by_name(name, **settings), name, dict(settings))


def build_local(
    terms: Mapping[str, float] = NONE, method: str = "plain", settings: Mapping[str, float] = NONE
) -> Local:
    """Build what participants minimise.

    Raises ConfigError for an unknown name, setting or strength.
    """
    return Local(terms_by_name(terms), method_by_name(method, **settings), method, dict(settings))


def _check_local(config: Federation, local: Local) -> None:
    if config.local.data is not None and not local.needs("public"):
        raise refusal(ConfigError, "public-text-unused")
    for term in local.terms:
        public, listed = bool(term.needs & {"public", "base"}), isinstance(config.task.labels, list)
        found = {
            "term-without-text": public and config.centre is None and config.local.data is None,
            "term-without-head": "base" in term.needs and listed and bool(config.task.labels),
            "term-without-centre": "gradient" in term.needs and config.centre is None,
        }
        refuse_first(ConfigError, found, term=term.name)


def build_distillation(chosen: DistilSection, reduce: Aggregator, seed: int) -> Distillation:
    """[distil] as the coordinator wants it.

    Raises ConfigError for an unknown ensemble, and where the reduce does not fit.
    """
    check_distil(reduce)
    return Distillation(
        ensemble=ensemble_by_name(chosen.ensemble),
        every=chosen.every,
        teachers=chosen.teachers,
        votes=chosen.votes,
        temperature=chosen.temperature,
        rank=chosen.rank or 0,
        steps=chosen.steps,
        items=chosen.items,
        rate=chosen.learning_rate,
        seed=seed,
    )
