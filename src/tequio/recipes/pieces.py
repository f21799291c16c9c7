"""The pieces of the algorithm as federation.toml names them, and whether they go together."""

from __future__ import annotations

from dataclasses import dataclass

from tequio.algorithms.catalogue import reduce_by_name, server_by_name, start_by_name, weights_by_name
from tequio.algorithms.chain import check_chain, check_codec
from tequio.coordinator.plan import Coding
from tequio.core.protocols import Aggregator, ServerOptimizer, Start, Weighting
from tequio.recipes.config import AlgorithmSection


@dataclass(frozen=True)
class Pieces:
    """One of each kind."""

    reduce: Aggregator
    weights: Weighting
    start: Start
    server: ServerOptimizer
    upload: Coding
    download: Coding
    feedback: float | None


def pieces_of(chosen: AlgorithmSection) -> Pieces:
    """Build them. Raises ConfigError for an unknown name or setting, and where they do not go together."""
    pieces = Pieces(
        reduce_by_name(chosen.reduce, **chosen.reduce_settings),
        weights_by_name(chosen.weights, **chosen.weights_settings),
        start_by_name(chosen.start, **chosen.start_settings),
        server_by_name(chosen.server, **chosen.server_settings),
        Coding(chosen.upload, chosen.upload_settings),
        Coding(chosen.download, chosen.download_settings),
        1.0 if chosen.feedback is None and chosen.upload == "topk" else chosen.feedback,
    )
    check_chain(pieces.reduce, pieces.start)
    check_codec("upload", pieces.upload.codec(), pieces.reduce, pieces.feedback)
    check_codec("download", pieces.download.codec(), pieces.reduce)
    return pieces
