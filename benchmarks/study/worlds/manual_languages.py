"""World: manual pages in Spanish, French and German; two participants a language, who have other
pages.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from benchmarks.study.worlds.manual_sections import (
    TEST,
    TRAIN,
    VALIDATION,
    Pages,
    python_pages,
    python_release,
)
from benchmarks.study.worlds.types import RealWorld, cut, halves
from tequio.app.demos import fetch, manuals, roff
from tequio.app.demos.text import shuffled, unique
from tequio.app.demos.types import Provenance

NAME = "manual-languages"
LANGUAGES = {"es": "spanish", "fr": "french", "de": "german"}
SECTIONS = ("man1", "man5", "man7", "man8")
PUBLIC_SECTIONS = ("man2", "man3", "man4", "man6")
CENTRE_PYTHON, CENTRE_LANGUAGE = 200, 70
PER_PARTICIPANT = 600
RANKS = {
    "spanish-1": 16,
    "spanish-2": 4,
    "french-1": 8,
    "french-2": 2,
    "german-1": 4,
    "german-2": 8,
}


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world. DataError where there is no apt, or no documentation of Python."""
    places: dict[str, Pages] = {}
    packages: dict[str, fetch.DebianPackage] = {}
    for code, language in LANGUAGES.items():
        name = f"manpages-{code}"
        packages[name] = fetch.fetch_debian(name, cache, "world of manuals in three languages")
        prefix = f"usr/share/man/{code}/"
        own, public = deal_pages(fetch.debian_texts(packages[name].path, prefix), prefix, seed)
        places |= {f"{language}-{i}": pages for i, pages in enumerate(own, start=1)}
        places[f"public {language}"] = public
    places["english"], places["python"] = python_pages(seed)
    texts, repeated = manuals.cut_places(places)
    rows, removed = unique({place: shuffled(samples, seed) for place, samples in texts.items()})
    centre = rows["python"][:CENTRE_PYTHON]
    for language in LANGUAGES.values():
        centre += rows[f"public {language}"][:CENTRE_LANGUAGE]
    gate, unseen = halves(rows["english"], seed)
    return RealWorld(
        name=NAME,
        seed=seed,
        task="causal",
        base="smollm2",
        like="manuals",
        labels=None,
        participants={
            name: cut(rows[name][:PER_PARTICIPANT], seed, TRAIN, VALIDATION, TEST) for name in RANKS
        },
        ranks=RANKS,
        centre=tuple(shuffled(centre, seed)),
        slices={"english": gate},
        unseen={"english": unseen},
        provenance=provenance(packages),
        removed={place: count + repeated[place] for place, count in removed.items()},
    )


def deal_pages(texts: dict[str, str], prefix: str, seed: int) -> tuple[tuple[Pages, Pages], Pages]:
    """Return the pages of two participants (sections 1, 5, 7 and 8), and those of the centre (the
    others).

    A page goes by the hash of seed and name, so its translations go to participants of one number.
    """
    own: tuple[Pages, Pages] = ([], [])
    public: Pages = []
    for path in sorted(texts):
        name = path.removeprefix(prefix)
        side = hashlib.sha256(f"{seed}\n{name}".encode()).digest()[0] % 2
        if name.startswith(SECTIONS):
            own[side].append(roff.paragraphs(texts[path]))
        elif name.startswith(PUBLIC_SECTIONS):
            public.append(roff.paragraphs(texts[path]))
    return own, public


def provenance(packages: dict[str, fetch.DebianPackage]) -> tuple[Provenance, ...]:
    """Return the licences of the manual pages and of Python's documentation."""
    pages = tuple(
        Provenance(
            name,
            package.version,
            "GPL-3+ (translations); each page keeps the licence of its original",
            "manpages-l10n, as packaged by Debian. The version follows the machine's release. "
            "Translators' footer cut off, tables left out, e-mail addresses masked.",
            package.sha256,
            "two participants (sections 1, 5, 7, 8) and a part of the centre (sections 2, 3, 4, 6)",
        )
        for name, package in packages.items()
    )
    python = next(iter(packages.values()))
    return (*pages, manuals.provenance(python, python_release())[1])
