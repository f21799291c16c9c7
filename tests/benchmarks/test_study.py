"""The study's own arithmetic, its jobs, and one question as an offline toy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.study.__main__ import QUESTIONS, main
from benchmarks.study.answers import Answer, Table, Target, markdown
from benchmarks.study.arms import Outcome, Setting, benefits, closed, search
from benchmarks.study.jobs import Job, plain, read, run_jobs
from benchmarks.study.picture import Curve, picture
from benchmarks.study.scenes import Scene, federation
from benchmarks.study.world import DOMAINS, ranks_of
from tequio.core.errors import RunError


def bowl(best: float) -> Any:
    """A validation loss that is least at `best`, by factors."""
    return lambda rate: (abs(math.log2(rate / best)), f"at {rate:g}")


def test_a_search_ends_inside_its_grid() -> None:
    found = search((1.0, 2.0, 4.0), bowl(2.0))
    assert (found.rate, found.value, found.at_edge, sorted(found.tried)) == (
        2.0,
        "at 2",
        False,
        [1.0, 2.0, 4.0],
    )


def test_a_search_goes_on_beyond_its_end_until_the_best_lies_inside() -> None:
    """Best at 16, grid to 4: 8, 16 and 32 are tried, and 32 is worse.

    At 64 three more are not enough.
    """
    found = search((1.0, 2.0, 4.0), bowl(16.0))
    assert (found.rate, found.at_edge, max(found.tried)) == (16.0, False, 32.0)
    found = search((1.0, 2.0, 4.0), bowl(64.0))
    assert (found.rate, found.at_edge, len(found.tried)) == (32.0, True, 6)


def test_a_search_goes_down_when_all_diverge_and_gives_up_with_an_error() -> None:
    found = search((1.0, 2.0), lambda rate: None if rate > 0.5 else (rate, rate))
    assert found.rate <= 0.5
    with pytest.raises(RunError, match="No learning rate"):
        search((1.0,), lambda rate: None, extensions=2)


def outcome(*losses: float) -> Outcome:
    return Outcome("x", 0, 1e-2, 1.0, dict(zip("abcd", losses, strict=False)))


def test_the_share_of_a_gap_and_benefits_on_numbers() -> None:
    """From mean 3 to mean 1, an arm at mean 1.5 has closed 1.5 of 2.

    (2 − 1)/2 = .5 and (4 − 5)/4 = −.25.
    """
    assert closed(outcome(2.0, 4.0), outcome(1.0, 1.0), outcome(1.0, 2.0)) == 0.75
    assert math.isnan(closed(outcome(1.0), outcome(1.0), outcome(0.5)))
    assert benefits(outcome(2.0, 4.0), outcome(1.0, 5.0)) == {"a": 0.5, "b": -0.25}


def test_every_domain_has_every_rank_once_over_four_seeds() -> None:
    table = [ranks_of(seed) for seed in range(4)]
    assert table[0] == (2, 2, 4, 4, 8, 8, 16, 16)
    assert all(sorted(column) == [2, 4, 8, 16] for column in zip(*table, strict=True))


@dataclass(frozen=True)
class Asked:
    number: int
    extra: float = 0.0


def double(asked: Asked) -> dict[str, Any]:
    return {"twice": (2 * asked.number, math.inf)}


def test_results_are_retained_by_what_was_asked(tmp_path: Path) -> None:
    """A field left as by default does not change the key; infinity is None in JSON."""
    job = Job(double, {"asked": Asked(3)})
    (pair,) = run_jobs([job, job], tmp_path, 1)
    assert pair[1].value == {"twice": [6, None]}
    assert not pair[1].stored
    again = read(Job(double, {"asked": Asked(3, 0.0)}), tmp_path)
    assert again is not None
    assert (again.stored, again.value) == (True, {"twice": [6, None]})
    assert read(Job(double, {"asked": Asked(3, 1.0)}), tmp_path) is None


def test_equal_arms_of_two_questions_are_one_job() -> None:
    scene = Scene()
    first, second = (
        federation(scene, "ours"),
        federation(Scene(domains=DOMAINS), "ours", weights="norm_equalised"),
    )
    assert first.key() == second.key()
    assert first.key() != federation(Scene(setting=Setting(rounds=20)), "ours").key()
    assert plain(scene)["seeds"] == [0, 1, 2]


def test_a_page_says_what_was_missed() -> None:
    answer = Answer(
        [Table(["a", "b"], [["1", "2"]])],
        [Target("more", "less", False), Target("any", "some", True)],
    )
    page = markdown("q", "why?", answer, 90.0, quick=True)
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in page
    assert "- **missed**: more: less\n- met: any: some" in page
    assert "figures mean nothing" in page


def test_a_picture_stands_alone_and_places_points_by_powers_of_ten() -> None:
    """From 1 kB to 100 kB over the 444 units from 56 to 500: 10 kB lies in the middle, at 278."""
    svg = picture("t", "bytes", [Curve("<a>", ((1e3, 3.0), (1e4, 2.0), (1e5, 1.0)))])
    root = ElementTree.fromstring(svg)
    line = root.find("{http://www.w3.org/2000/svg}polyline")
    assert line is not None
    assert [float(point.split(",")[0]) for point in line.attrib["points"].split()] == [
        56.0,
        278.0,
        500.0,
    ]
    assert "&lt;a&gt;: 1.000" in svg


@pytest.mark.timeout(300)
def test_a_question_runs_as_a_toy_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEQUIO_CACHE", str(tmp_path / "cache"))
    command = [QUESTIONS[0], "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr()
    body = json.loads((tmp_path / "quick" / f"{QUESTIONS[0]}.json").read_text(encoding="utf-8"))
    assert body["quick"]
    assert body["results"].keys() >= {"base", "local", "central"}
    assert f"# {QUESTIONS[0]}: " in first.out
    assert main(command) == 0
    second = capsys.readouterr()
    assert second.err.count("(kept)") == len(body["results"])
    assert second.out == first.out


def test_an_unknown_question_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reducing"]) == 1
    assert "reduces" in capsys.readouterr().err
