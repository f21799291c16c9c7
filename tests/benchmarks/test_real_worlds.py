"""The study's real worlds, offline: labels and parsing on lines made up here, splits, and the
written federation.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.study.worlds import (
    clinics,
    excavators,
    hospitals,
    manual_languages,
    schools,
    tabular,
)
from benchmarks.study.worlds.__main__ import main, summary
from benchmarks.study.worlds.catalogue import WORLDS, make_world, write
from benchmarks.study.worlds.types import RealWorld, cut, deal, halves, one_label, set_aside
from builders import refused
from tequio.app.demos.fetch import debian_files
from tequio.app.demos.text import Sample, normalise
from tequio.app.demos.types import Provenance
from tequio.config import load_federation, load_participant
from tequio.core.errors import ConfigError, DataError


def texts(count: int, label: str = "x") -> list[Sample]:
    """Return different texts of one label."""
    return [Sample(f"{label} text {i}", label) for i in range(count)]


def tiny(seed: int) -> RealWorld:
    """Return a world made as the real ones are: two labels, two sites, public texts."""
    pools, removed = one_label({"a": texts(100, "a"), "b": texts(100, "b")})
    public, rest = set_aside(pools, seed, 0.2, (20, 8, 12))
    sites = deal(rest, {"one": {"a": 0.8}, "two": {}}, 70, seed)
    return RealWorld(
        name="tiny",
        seed=seed,
        task="classification",
        base="minilm",
        like="sentiment",
        labels={"a": "the first", "b": "the second"},
        participants={site: cut(rows, seed, 30, 10, 1500) for site, rows in sites.items()},
        ranks={"one": 16, "two": 2},
        centre=public.centre,
        slices={"public": public.gate},
        unseen={"public": public.unseen},
        provenance=(Provenance("p", "1", "MIT", "made up", "", "all"),),
        removed=removed,
    )


def test_no_text_is_in_two_places_and_a_seed_makes_another_world() -> None:
    world = tiny(0)
    keys = Counter(normalise(sample.text) for rows in world.places().values() for sample in rows)
    assert max(keys.values()) == 1
    assert len(keys) == sum(len(rows) for rows in world.places().values()) == 40 + 129
    assert world == tiny(0)
    assert {s.text for s in world.participants["one"].test} != {
        s.text for s in tiny(1).participants["one"].test
    }


def test_a_small_site_gives_no_more_than_its_shares() -> None:
    large, small = cut(texts(500), 0, 60, 50, 300), cut(texts(60), 0, 60, 50, 300)
    assert [len(rows) for rows in large.parts().values()] == [60, 50, 300]
    assert [len(rows) for rows in small.parts().values()] == [27, 12, 21]


def test_a_text_with_two_labels_is_left_out_and_one_of_two_places_stays_in_the_first() -> None:
    both, shared = Sample("a leaking hose", "hydraulics"), Sample("the horn is dead", "electrical")
    places = {
        "small": [both, shared],
        "large": [Sample("A leaking hose!", "engine"), shared, *texts(1)],
    }
    rows, lost = one_label(places)
    assert rows == {"small": [shared], "large": texts(1)}
    assert lost == {"small": 1, "large": 2}


def test_dealing_follows_the_mix_and_shares_out_what_is_scarce() -> None:
    pools = {"a": texts(100, "a"), "b": texts(30, "b")}
    sites = deal(pools, {"one": {"a": 0.5, "b": 0.5}, "two": {"a": 0.75}}, 80, 0)
    counts = {site: Counter(s.label for s in rows) for site, rows in sites.items()}
    assert counts == {"one": {"a": 40, "b": 20}, "two": {"a": 60, "b": 10}}
    assert len({s.text for rows in sites.values() for s in rows}) == 130


def test_public_texts_are_balanced_and_out_of_the_pools() -> None:
    public, rest = set_aside({"a": texts(100, "a"), "b": texts(50, "b")}, 0, 0.2, (10, 1500, 1500))
    assert Counter(s.label for s in public.centre) == {"a": 5, "b": 5}
    assert Counter(s.label for s in public.gate) == {"a": 4, "b": 2}
    assert Counter(s.label for s in public.unseen) == {"a": 6, "b": 3}
    assert {label: len(rows) for label, rows in rest.items()} == {"a": 80, "b": 40}
    first, second = halves(public.unseen, 0)
    assert (len(first), len(second), len({*first, *second})) == (4, 5, 9)


@pytest.mark.parametrize(
    ("location", "label"),
    [
        ("GREASE LUBE SYSTEM", "lubrication"),
        ("Air Conditioning System", "cabin"),
        ("STARTER MOTOR - LEFT", "electrical"),
        ("BUCKET TEETH", "bucket and boom"),
        ("BOOM CYLINDER - LEFT", "hydraulics"),
        ("OIL - ENGINE- RIGHT", "engine"),
        ("TRACK ROLLERS", "undercarriage"),
        ("JOYSTICK - LEFT", None),
        ("Shovel Tracked Hydr X1", None),
        ("MACHINE", None),
    ],
)
def test_functional_locations_are_grouped(location: str, label: str | None) -> None:
    assert excavators.group(location) == label


def test_work_orders_are_read_by_machine() -> None:
    table = (
        "Asset,OriginalShorttext,FuncLocation\nA,Lamp  is out,LIGHTS\nB,whole "
        "thing,MACHINE\nE,hose burst,HYDRAULIC HOSES\n"
    )
    places = excavators.read(table)
    assert {name: rows for name, rows in places.items() if rows} == {
        "excavator-a": [Sample("Lamp is out", "electrical")],
        "excavator-e": [Sample("hose burst", "hydraulics")],
    }


XML = """<ICD10CM><chapter><name>9</name><diag><name>I10</name><desc>High pressure of the blood</desc>
<inclusionTerm><note>Raised pressure (benign) [of old]</note><note>Brief</note></inclusionTerm>
<diag><name>I10.12</name><desc>A title of a longer code</desc></diag>
<diag><name>I10.1</name><desc>Embolism of left leg</desc></diag></diag></chapter>
<chapter><name>3</name><diag><name>D50</name><desc>Lack of iron in blood</desc></diag></chapter></ICD10CM>"""


def test_wordings_are_read_by_chapter() -> None:
    pools = clinics.read(XML)
    found = [s.text for s in pools.pop("heart and vessels")]
    assert found == ["Raised pressure (benign)", "High pressure of the blood"]
    assert not any(pools.values())


CONTROL = (
    "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: nobody "
    "<n@example.org>\nDescription: p\n"
)


def wordnet() -> dict[str, str]:
    """Return a noun file and an adjective file of the format of WordNet: two topics, and three that
    belong to them.
    """
    nouns = [
        "  1 a line of the licence",
        "00000001 09 n 02 physics 0 natural_philosophy 0 000 | the science of matter and of its "
        "motion  ",
        "00000002 09 n 01 falconry 0 000 | hunting with birds of prey  ",
        "00000003 09 n 01 recoil 0 002 @ 00000009 n 0000 ;c 00000001 n 0000 | (physics) the "
        "backward motion of what throws  ",
        "00000004 09 n 01 jess 0 001 ;c 00000002 n 0000 | a short strap on the leg of a hawk  ",
    ]
    adjectives = [
        "00000005 00 s 01 inert 0 001 ;c 00000001 n 0000 | having no power of its own to move; "
        '"inert matter"  '
    ]
    return {"x/data.noun": "\n".join(nouns), "x/data.adj": "\n".join(adjectives)}


def test_definitions_go_by_their_topic_and_do_not_name_it() -> None:
    pools = schools.definitions(wordnet())
    assert {s.text for s in pools.pop("physics")} == {
        "the backward motion of what throws",
        'having no power of its own to move; "inert matter"',
    }
    assert not any(pools.values())


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")
def test_files_of_a_debian_package_are_read_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    for file, text in {
        "DEBIAN/control": CONTROL,
        "usr/a.txt": "einé\n",
        "usr/b.txt": "other",
    }.items():
        (tmp_path / "p" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / file).write_text(text, encoding="utf-8")
    package = tmp_path / "p.deb"
    subprocess.run(
        ["dpkg-deb", "--build", tmp_path / "p", package], check=True, capture_output=True
    )
    assert debian_files(package, ["usr/a.txt"]) == {"usr/a.txt": "einé\n"}
    with refused(DataError, "package-changed", file="usr/c.txt"):
        debian_files(package, ["usr/a.txt", "usr/c.txt"])


def test_each_topic_counts_as_one_subject_and_each_subject_is_one_disjoint_school() -> None:
    topics = [topic for _, listed in schools.SUBJECTS.values() for topic in listed.split()]
    assert len(topics) == len(set(topics))
    own = [label for labels in schools.OWN.values() for label in labels]
    assert sorted(own) == sorted(schools.SUBJECTS)


@pytest.mark.parametrize("mixes", [schools.MIXES, clinics.MIXES, clinics.MIXES_EXTREME])
def test_mixes_are_of_known_labels_and_leave_a_rest(mixes: dict[str, dict[str, float]]) -> None:
    for mix in mixes.values():
        assert set(mix) <= {*schools.SUBJECTS, *clinics.LABELS}
        assert 0.0 < 1.0 - sum(mix.values()) <= 1.0
    assert all(max(mix.values()) >= 0.9 for mix in clinics.MIXES_EXTREME.values())


def test_pages_of_a_language_are_dealt_to_two_by_name_and_other_sections_are_public() -> None:
    page = ".TH X 1\n.SH NOM\ntexte de la page\n.SH TRADUCTION\nle nom de quelqu’un\n"
    pages = {f"man/fr/man{n}/p{i}.gz": page for n in (1, 4, 9) for i in range(20)}
    (first, second), public = manual_languages.deal_pages(pages, "man/fr/", 0)
    assert len(first) + len(second) == len(public) == 20
    assert min(len(first), len(second)) > 0
    assert public[0] == ["NOM", "texte de la page"]


def rows(values: list[float], positive: list[bool]) -> tabular.Rows:
    """Return rows of one number, "" where it is NaN, and one choice that says nothing."""
    table = [{"n": "" if v != v else str(v), "c": "u"} for v in values]
    return tabular.encode(table, positive, ("n",), {"c": ["u"]})


def test_a_table_is_learnt_and_what_is_missing_speaks() -> None:
    """Alone, the second site has only the missing value to go by; its absence means positive."""
    nan = float("nan")
    plain = rows([1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0], [False] * 4 + [True] * 4)
    gaps = rows([nan, nan, 5.0, 5.0], [True, True, False, False])
    scores = tabular.compare(
        {
            name: dict.fromkeys(("train", "validation", "test"), part)
            for name, part in (("p", plain), ("g", gaps))
        }
    )
    assert (scores["p"].local, scores["g"].local, scores["g"].majority) == (1.0, 1.0, 0.5)
    assert scores["p"].pooled >= 0.75
    assert torch.isfinite(tabular.fit(gaps, 1e-2).weights).all()


def test_a_heart_rate_of_zero_is_missing_and_an_age_is_not() -> None:
    assert hospitals.cleaned({"thalch": "0", "oldpeak": "0", "cp": "x"}) == {
        "thalch": "",
        "oldpeak": "0",
        "cp": "x",
    }


def test_a_world_is_written_as_a_federation(tmp_path: Path) -> None:
    world = tiny(3)
    changes: dict[str, dict[str, Any]] = {"train": {"rounds": 2}}
    path = write(world, tmp_path / "w", tmp_path / "model", {"max_test": 5}, changes)
    config = load_federation(path)
    assert (config.name, config.seed, config.train.rounds, config.train.batch_size) == (
        "world-tiny",
        3,
        2,
        8,
    )
    assert list(config.task.label_names()) == ["a", "b"]
    participant = load_participant(tmp_path / "w/participants/two.toml")
    assert (participant.hardware.max_rank, participant.data.max_test) == (2, 5)
    lines = Path(str(participant.data.test)).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [
        s.text for s in world.participants["two"].test
    ]
    assert config.centre is not None
    assert {Path(p) for p in config.gate.slices.values()} == {tmp_path / "w/slices/public.jsonl"}
    assert "unseen" not in path.read_text(encoding="utf-8")
    assert len((tmp_path / "w/unseen/public.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    record = json.loads((tmp_path / "w/sources.json").read_text(encoding="utf-8"))
    assert record["sources"][0]["licence"] == "MIT"
    bare = load_federation(write(world, tmp_path / "bare", tmp_path / "model", with_centre=False))
    assert (bare.centre, bare.gate.slices) == (None, {})


def test_the_summary_shows_sizes_and_licences_and_no_text() -> None:
    shown = summary(tiny(0))
    assert "| one | 16 | 28 | 10 | 25 |" in shown
    assert "- p 1: MIT (all)" in shown
    assert "text 1" not in shown


def test_an_unknown_world_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="There is no world 'mars'"):
        make_world("mars")
    assert main(["mars"]) == 1
    assert "manual-languages" in capsys.readouterr().err
    assert len(WORLDS) == 9
