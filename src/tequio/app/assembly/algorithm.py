"""The pieces of the algorithm as federation.toml names them, and whether they go together."""

from __future__ import annotations

from dataclasses import dataclass

from tequio.algorithms.compatibility import check_chain, check_codec, check_distil, check_full
from tequio.algorithms.registry import (
    ensemble_by_name,
    reduce_by_name,
    server_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.config import AlgorithmSection, DistilSection, Federation
from tequio.coordinator.distillation import Distillation
from tequio.coordinator.run_spec import Coding, Local
from tequio.core.errors import ConfigError
from tequio.core.protocols import Aggregator, ServerOptimizer, Start, Weighting
from tequio.core.texts.words import refusal, refuse_first


@dataclass(frozen=True)
class Algorithm:
    """One of each kind."""

    reduce: Aggregator
    weights: Weighting
    start: Start
    server: ServerOptimizer
    upload: Coding
    download: Coding
    feedback: float | None


def resolve_algorithm(chosen: AlgorithmSection, full: bool = False) -> Algorithm:
    """Build them. Raises ConfigError for an unknown name or setting, and where they do not go together.

    full: whole weights are trained.
    """
    algorithm = Algorithm(
        reduce_by_name(chosen.reduce, **chosen.reduce_settings),
        weights_by_name(chosen.weights, **chosen.weights_settings),
        start_by_name(chosen.start, **chosen.start_settings),
        server_by_name(chosen.server, **chosen.server_settings),
        Coding(chosen.upload, chosen.upload_settings),
        Coding(chosen.download, chosen.download_settings),
        1.0 if chosen.feedback is None and chosen.upload == "topk" else chosen.feedback,
    )
    check_chain(algorithm.reduce, algorithm.start)
    if full:
        check_full(algorithm.reduce, algorithm.start)
    check_codec("upload", algorithm.upload.codec(), algorithm.reduce, algorithm.feedback, full)
    check_codec("download", algorithm.download.codec(), algorithm.reduce, full=full)
    return algorithm


def build_local(config: Federation) -> Local:
    """What participants minimise. Raises ConfigError for an unknown name or setting, and where a term lacks what it needs."""
    local = Local(config.local.terms, config.local.method, config.local.method_settings)
    if config.local.data is not None and not local.needs("public"):
        raise refusal(ConfigError, "public-text-unused")
    for term in local.built()[0]:
        public, listed = bool(term.needs & {"public", "base"}), isinstance(config.task.labels, list)
        found = {
            "term-without-text": public and config.centre is None and config.local.data is None,
            "term-without-head": "base" in term.needs and listed and bool(config.task.labels),
            "term-without-centre": "gradient" in term.needs and config.centre is None,
        }
        refuse_first(ConfigError, found, term=term.name)
    return local


def build_distillation(chosen: DistilSection, reduce: Aggregator, top_rank: int, seed: int) -> Distillation:
    """[distil] as the coordinator wants it. Raises ConfigError for an unknown ensemble, and where the reduce does not fit."""
    check_distil(reduce)
    return Distillation(
        ensemble=ensemble_by_name(chosen.ensemble),
        every=chosen.every,
        teachers=chosen.teachers,
        votes=chosen.votes,
        temperature=chosen.temperature,
        rank=chosen.rank or top_rank,
        steps=chosen.steps,
        items=chosen.items,
        rate=chosen.learning_rate,
        seed=seed,
    )
