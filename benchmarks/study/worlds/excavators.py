"""World: work orders of five excavators of a mine, text -> group of the functional location."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from benchmarks.study.worlds.packages import NESTOR, wheel_text
from benchmarks.study.worlds.types import RealWorld, cut, halves, one_label, ordered
from tequio.app.demos.text import Sample
from tequio.app.demos.types import Provenance

NAME = "excavators"
CSV = "nestor/datasets/excavators-cleaned.csv"
TRAIN, VALIDATION, TEST = 60, 50, 1500
PUBLIC = 200  # texts of the slices, from the centre's half of excavator D
RANKS = {"excavator-a": 2, "excavator-b": 8, "excavator-c": 4, "excavator-d": 16, "excavator-e": 4}
CENTRE_OF = "excavator-d"
LABELS = {
    "lubrication": "grease and lubrication: grease lines, grease pump, automatic lube system",
    "cabin": "the operator's cabin: air conditioning, windows, seat, doors",
    "electrical": "electrical: lights, batteries, wiring, starter, alternator, sensors",
    "bucket and boom": "bucket, teeth, stick and boom: cracks, wear, pins",
    "hydraulics": "hydraulics: hoses, cylinders, pumps, oil leaks",
    "engine": "the engine: oil, coolant, fuel, exhaust, turbo, radiator",
    "undercarriage": "undercarriage: tracks, rollers, idlers, final drive",
}


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world. DataError when the package is missing."""
    places = read(wheel_text(NESTOR, CSV, cache))
    by_size = sorted(places, key=lambda name: (len(places[name]), name))
    rows, removed = one_label({name: places[name] for name in by_size})
    own, public = halves(rows[CENTRE_OF], seed)
    shown = ordered(public, seed, "slices")
    gate, unseen = halves(shown[:PUBLIC], seed)
    parts = {name: own if name == CENTRE_OF else tuple(rows[name]) for name in RANKS}
    return RealWorld(
        name=NAME,
        seed=seed,
        task="classification",
        base="minilm",
        like="sentiment",
        labels=LABELS,
        participants={
            name: cut(part, seed, TRAIN, VALIDATION, TEST) for name, part in parts.items()
        },
        ranks=RANKS,
        centre=tuple(shown[PUBLIC:]),
        slices={"work-orders": gate},
        unseen={"work-orders": unseen},
        provenance=provenance(),
        removed=removed,
    )


def read(table: str) -> dict[str, list[Sample]]:
    """Return the labelled work orders of each excavator.

    One whose location says nothing is left out.
    """
    places: dict[str, list[Sample]] = {name: [] for name in RANKS}
    for row in csv.DictReader(io.StringIO(table, newline="")):
        label = group(row["FuncLocation"])
        if label is not None:
            text = " ".join(row["OriginalShorttext"].split())
            places[f"excavator-{row['Asset'].lower()}"].append(Sample(text, label))
    return places


def group(location: str) -> str | None:
    """Return the group of a functional location;

    None for the machine as a whole, and for what fits no group.
    """
    place = location.upper()

    def any_of(*words: str) -> bool:
        return any(word in place for word in words)

    if any_of("JOYSTICK", "SHOVEL TRACKED"):
        return None
    if any_of("GREASE", "LUBE"):
        return "lubrication"
    if any_of("AIR COND", "CABIN"):
        return "cabin"
    if any_of("ELECTRIC", "LIGHT", "BATTER", "STARTER", "ALTERNATOR", "STARTING"):
        return "electrical"
    if any_of("BUCKET", "GET", "TOOTH", "TEETH", "STICK", "BOOM") and "CYL" not in place:
        return "bucket and boom"
    if any_of("HYDR", "CYL"):
        return "hydraulics"
    if any_of("ENGINE", "RADIATOR", "EXHAUST", "FUEL", "TURBO", "COOL"):
        return "engine"
    if any_of("TRACK", "FINAL", "UNDERCARR", "IDLER", "CRAWL", "SPROCKET", "TRAVEL"):
        return "undercarriage"
    return None


def provenance() -> tuple[Provenance, ...]:
    """Return the licence of the work orders."""
    return (
        Provenance(
            NESTOR.name,
            NESTOR.version,
            "NIST software terms (package): not subject to copyright in the United States, "
            "royalty-free elsewhere; the package states none of its own for the table",
            "Maintenance work orders of five excavators, 2001 to 2012: Hodkiewicz and Ho, Journal "
            "of Quality in Maintenance Engineering 22 (2), 2016. The label groups the functional "
            "location. A text that several machines have stays with the one with the fewest "
            "orders; a text with two labels is left out.",
            NESTOR.sha256,
            "participants (one excavator each), and centre and slices (half of excavator D)",
        ),
    )
