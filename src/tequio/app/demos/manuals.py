"""Demo: causal language modelling on Spanish manual pages; participant = section (1, 5, 7 or 8)."""

import sys
from collections.abc import Iterable
from pathlib import Path

from tequio.app.demos import fetch, roff
from tequio.app.demos.text import Sample, mask_email, normalise, shuffled, unique
from tequio.app.demos.types import DemoData, Plan, Provenance, four_tiers, load, save
from tequio.core.errors import DataError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal

VERSION = 1
PACKAGE = "manpages-es"
PREFIX = "usr/share/man/es/"
RANKS = {"man1": 16, "man7": 8, "man5": 4, "man8": 2}
PUBLIC_SECTIONS = ("man2", "man3", "man4", "man6")
PER_PARTICIPANT, CENTRE_HALF, PER_SLICE = 400, 200, 200
SHORTEST, LOW, HIGH = 200, 600, 1200
HEADING = 40
FASTEST = 300.0  # tokens a second, SmolLM2-135M in bf16 on one CPU core


def prepare(cache: Path, seed: int = 0) -> DemoData:
    """Fetch, strip and write the demo once (key: version, seed and the Python release whose manual
    is used).

    Raises DataError where there is no apt, or where Python came without its own documentation
    topics.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = cache / "demos" / f"manuals-v{VERSION}-py{python}-seed{seed}"
    if target.exists():
        return load(target)
    package = fetch.fetch_debian(PACKAGE, cache)
    pages = fetch.debian_texts(package.path, PREFIX)
    places: dict[str, list[list[str]]] = {name: _section(pages, (name,)) for name in RANKS}
    places["spanish"] = _section(pages, PUBLIC_SECTIONS)
    python_pages = shuffled((Sample(page) for page in python_topics()), seed)
    third = len(python_pages) // 3
    places["english"] = [page.text.split("\n\n") for page in python_pages[:third]]
    places["python"] = [page.text.split("\n\n") for page in python_pages[third:]]
    cut, repeated = cut_places(places)
    unique_samples, removed = unique(
        {place: shuffled(samples, seed) for place, samples in cut.items()}
    )
    tiers = four_tiers(FASTEST)
    plan = Plan(
        participants={name: unique_samples[name][:PER_PARTICIPANT] for name in RANKS},
        tiers={name: tiers[rank] for name, rank in RANKS.items()},
        centre=shuffled(
            [*unique_samples["spanish"][:CENTRE_HALF], *unique_samples["python"][:CENTRE_HALF]],
            seed,
        ),
        slices={"english": unique_samples["english"][:PER_SLICE]},
        labels={},
        provenance=provenance(package, python),
        removed={place: count + repeated[place] for place, count in removed.items()},
    )
    return save(target, plan)


def cut_places(
    places: dict[str, list[list[str]]],
) -> tuple[dict[str, list[Sample]], dict[str, int]]:
    """Pages (lists of paragraphs) by place -> pieces by place, and the count of repeated paragraphs
    dropped.

    A paragraph longer than a heading is kept once over all places: the first one."""
    seen: set[str] = set()
    cut: dict[str, list[Sample]] = {}
    repeated: dict[str, int] = {}
    for place, pages in places.items():
        cut[place], repeated[place] = [], 0
        for page in pages:
            fresh = []
            for paragraph in page:
                key = normalise(paragraph)
                if len(paragraph) > HEADING and key in seen:
                    repeated[place] += 1
                    continue
                seen.add(key)
                fresh.append(mask_email(paragraph))
            cut[place] += [Sample(piece) for piece in pieces(fresh)]
    return cut, repeated


def pieces(paragraphs: Iterable[str]) -> list[str]:
    """Paragraphs joined by newlines into pieces of 600 to 1200 characters.

    A longer paragraph is cut at a
    space; a shorter piece is made where the next paragraph does not fit, and kept from 200
    characters on.
    """
    done: list[str] = []
    open_piece = ""
    for part in _short_parts(paragraphs):
        if open_piece and (len(open_piece) >= LOW or len(open_piece) + 1 + len(part) > HIGH):
            done.append(open_piece)
            open_piece = ""
        open_piece = f"{open_piece}\n{part}" if open_piece else part
    done.append(open_piece)
    return [piece for piece in done if len(piece) >= SHORTEST]


def _short_parts(paragraphs: Iterable[str]) -> Iterable[str]:
    for paragraph in paragraphs:
        rest = paragraph.strip()
        while len(rest) > HIGH:
            end = rest.rfind(" ", LOW, HIGH)
            end = end if end > 0 else HIGH
            yield rest[:end].rstrip()
            rest = rest[end:].lstrip()
        if rest:
            yield rest


def python_topics() -> list[str]:
    """The topics of the standard library's `help()` as plain texts.

    Raises DataError if they are missing.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise refusal(DataError, "demo-needs-manuals") from None
    return [topics[name] for name in sorted(topics)]


def _section(pages: dict[str, str], names: tuple[str, ...]) -> list[list[str]]:
    wanted = tuple(f"{PREFIX}{name}/" for name in names)
    return [roff.paragraphs(pages[path]) for path in sorted(pages) if path.startswith(wanted)]


def provenance(package: fetch.DebianPackage, python: str) -> tuple[Provenance, ...]:
    """Licences of the manual pages and of Python's documentation."""
    return (
        Provenance(
            PACKAGE,
            package.version,
            "GPL-3+ (translations); each page keeps the licence of its original",
            Reason("source-manpages").as_record(),
            package.sha256,
            Reason("used-for-sections").as_record(),
        ),
        Provenance(
            "pydoc_data.topics",
            python,
            "PSF-2.0",
            Reason("source-pydoc").as_record(),
            "",
            Reason("used-for-centre-and-english").as_record(),
        ),
    )
