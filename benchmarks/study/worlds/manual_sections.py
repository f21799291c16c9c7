"""World: four sections of the Spanish manual pages, as the demo `manuals`, with every test text
there is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.study.worlds.types import RealWorld, cut, halves
from tequio.app.demos import fetch, manuals, roff
from tequio.app.demos.text import Sample, shuffled, unique

NAME = "manual-sections"
TRAIN, VALIDATION, TEST = 40, 8, 1500
Pages = list[list[str]]  # paragraphs, by page


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world. DataError where there is no apt, or no documentation of Python."""
    package = fetch.fetch_debian(manuals.PACKAGE, cache)
    pages = fetch.debian_texts(package.path, manuals.PREFIX)
    places = {name: section(pages, manuals.PREFIX, (name,)) for name in manuals.RANKS}
    places["spanish"] = section(pages, manuals.PREFIX, manuals.PUBLIC_SECTIONS)
    places["english"], places["python"] = python_pages(seed)
    texts, repeated = manuals.cut_places(places)
    rows, removed = unique({place: shuffled(samples, seed) for place, samples in texts.items()})
    gate, unseen = halves(rows["english"], seed)
    half = manuals.CENTRE_HALF
    return RealWorld(
        name=NAME,
        seed=seed,
        task="causal",
        base="smollm2",
        like="manuals",
        labels=None,
        participants={
            name: cut(rows[name], seed, TRAIN, VALIDATION, TEST) for name in manuals.RANKS
        },
        ranks=manuals.RANKS,
        centre=tuple(shuffled([*rows["spanish"][:half], *rows["python"][:half]], seed)),
        slices={"english": gate},
        unseen={"english": unseen},
        provenance=manuals.provenance(package, python_release()),
        removed={place: count + repeated[place] for place, count in removed.items()},
    )


def section(pages: dict[str, str], prefix: str, names: Iterable[str]) -> Pages:
    """Return the pages of these sections (`man1`, ...) below a prefix, as paragraphs."""
    wanted = tuple(f"{prefix}{name}/" for name in names)
    return [roff.paragraphs(pages[path]) for path in sorted(pages) if path.startswith(wanted)]


def python_pages(seed: int) -> tuple[Pages, Pages]:
    """Return the topics of Python's manual as pages: a third for the slices, and the centre's rest,
    by seed.
    """
    pages = [
        page.text.split("\n\n") for page in shuffled(map(Sample, manuals.python_topics()), seed)
    ]
    third = len(pages) // 3
    return pages[:third], pages[third:]


def python_release() -> str:
    """Return the release of Python whose manual is used."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
