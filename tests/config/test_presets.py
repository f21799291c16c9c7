"""Methods by name: each is the keys that one would write, its own words win where the method stays,
and nothing of the name is left.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builders import NEEDED
from tequio.algorithms.registry import (
    ENSEMBLE,
    METHOD,
    REDUCE,
    SERVER,
    START,
    WEIGHTS,
    terms_by_name,
)
from tequio.app.assembly.algorithm import build_chain
from tequio.config import Federation, stored, validated, whole
from tequio.config.presets import PRESETS, leaves, resolved
from tequio.config.starter import write_starter
from tequio.core.errors import ConfigError
from written_presets import WRITTEN

SOURCE = Path("federation.toml")
CENTRE = {"centre": {"data": "c.jsonl"}}


def read(raw: dict[str, Any]) -> Federation:
    return validated({**NEEDED, **CENTRE, **raw}, Federation, SOURCE)


def preset(name: str, algorithm: dict[str, Any] | None = None, **tables: Any) -> Federation:
    return read({"algorithm": {"preset": name, **(algorithm or {})}, **tables})


def test_every_method_is_written_out_here() -> None:
    assert WRITTEN.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_method_by_name_is_its_keys(name: str) -> None:
    found = preset(name)
    assert found == read(WRITTEN[name])
    assert stored(found) == stored(read(WRITTEN[name]))
    assert found.algorithm.preset is None
    assert "preset" not in stored(found)["algorithm"]
    assert "preset" not in whole(stored(found))["algorithm"]


@pytest.mark.parametrize("name", PRESETS)
def test_its_pieces_exist_and_go_together(name: str) -> None:
    found = preset(name)
    build_chain(found.algorithm)
    terms_by_name(found.local.terms)
    chosen = found.algorithm
    for piece, known in (
        (chosen.reduce, REDUCE),
        (chosen.weights, WEIGHTS),
        (chosen.server, SERVER),
    ):
        assert piece in known
    assert (chosen.start in START, found.local.method in METHOD) == (True, True)
    assert found.distil is None or found.distil.ensemble in ENSEMBLE


def test_each_says_its_paper_its_use_and_how_it_differs() -> None:
    for name, made in PRESETS.items():
        assert made.keys() - {"starts"} == {"paper", "arxiv", "pieces", "use", "difference"}, name
        assert re.fullmatch(r"\d{4}\.\d{5}", made["arxiv"]), name
        assert re.search(r", 20\d\d", made["paper"]), name


def test_without_a_preset_nothing_changes() -> None:
    unlike: list[dict[str, Any]] = [
        {},
        {"algorithm": {"reduce": "fedit"}},
        {"algorithm": 3},
        {"train": []},
    ]
    for raw in [*unlike, {"algorithm": {"preset": 3}}]:
        assert resolved(raw) is raw


def test_the_file_as_it_was_read_is_left_as_it_was() -> None:
    raw = {"algorithm": {"preset": "fedprox"}, "local": {"terms": {"kl": 0.1}}}
    assert resolved(raw)["local"] == {"terms": {"kl": 0.1, "fedprox": 0.01}, "method": "plain"}
    assert raw == {"algorithm": {"preset": "fedprox"}, "local": {"terms": {"kl": 0.1}}}
    first = preset("ditto").personal.ditto
    first.append(9.0)
    assert preset("ditto").personal.ditto == [0.1, 1.0]


def test_own_values_win_where_the_method_stays() -> None:
    assert preset("fedprox", local={"terms": {"fedprox": 0.1}}).local.terms == {"fedprox": 0.1}
    assert preset("fedavg", {"upload": "half", "server": "sgd"}).algorithm.upload == "half"
    assert preset("fedit", {"weights": "uniform"}).algorithm.weights == "uniform"
    adam = preset("fedadam", {"reduce": "stack", "server_settings": {"tau": 0.01}}).algorithm
    assert (adam.reduce, adam.server, adam.server_settings) == ("stack", "adam", {"tau": 0.01})
    momentum = preset(
        "fedavgm", {"server_settings": {"learning_rate": 0.5}}
    ).algorithm.server_settings
    assert momentum == {"learning_rate": 0.5, "momentum": 0.9}
    buffered = preset("fedbuff", train={"buffer": 3}).train
    assert (buffered.buffer, buffered.round_seconds) == (3, 60.0)


@pytest.mark.parametrize("own", [{"max_steps": 50}, {"min_steps": 10}, {"local_epochs": 2.0}])
def test_steps_of_diloco_are_set_only_where_the_file_sets_none(own: dict[str, Any]) -> None:
    assert preset("diloco", train=own).train == read({"train": own}).train
    assert preset("diloco", train={"rounds": 4}).train.max_steps == 500


@pytest.mark.parametrize("name", PRESETS)
def test_another_value_of_a_piece_is_refused_with_its_key(name: str) -> None:
    for where, value in leaves(PRESETS[name]["pieces"]):
        own: Any = {"x": 1.0} if isinstance(value, dict) else "another"
        raw: dict[str, Any] = {"algorithm": {"preset": name}}
        table = raw
        for part in where[:-1]:
            table = table.setdefault(part, {})
        table[where[-1]] = own
        with pytest.raises(ConfigError) as caught:
            read(raw)
        key = ".".join(where)
        assert f"{key}: it does not go with algorithm.preset = {name!r}" in str(caught.value)
        assert f"leave out {key}, or the preset" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tables", "key"),
    [
        ("fedprox", {"local": {"terms": {"fedprox": 0}}}, "local.terms.fedprox"),
        ("ditto", {"personal": {"ditto": []}}, "personal.ditto"),
        ("fedavg", {"local": {"terms": {"fedprox": 0.1}}}, "local.terms"),
    ],
)
def test_what_would_switch_a_piece_off_or_make_another_method_is_refused(
    name: str, tables: dict[str, Any], key: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"{re.escape(key)}: it does not go with algorithm\.preset = '{name}'"
    ):
        preset(name, **tables)


def test_an_unknown_name_leads_to_the_nearest() -> None:
    with pytest.raises(
        ConfigError,
        match=r"algorithm\.preset: there is no such method; did you mean 'fedprox'\? Known: ",
    ):
        preset("fedprx")
    with pytest.raises(ConfigError, match=r"algorithm\.preset: expected text \(got 3\)"):
        read({"algorithm": {"preset": 3}})
    with pytest.raises(ConfigError, match=r"local: expected a table"):
        read({"algorithm": {"preset": "fedprox"}, "local": 3})


def test_the_starter_writes_the_name(tmp_path: Path) -> None:
    path, _ = write_starter(tmp_path, "causal", "org/model", "fedprox")
    assert '\npreset = "fedprox"\n' in path.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'fedavg'"):
        write_starter(tmp_path / "other", "causal", "org/model", "fedavgg")
    assert not (tmp_path / "other").exists()


def test_the_page_shows_each_method_with_its_keys() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "algorithms.md").read_text(
        encoding="utf-8"
    )
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", page, re.MULTILINE))
    assert list(rows) == list(PRESETS)
    for name, row in rows.items():
        assert f"https://arxiv.org/abs/{PRESETS[name]['arxiv']}" in row
        for where, _ in leaves(PRESETS[name]["pieces"]):
            assert ".".join(where).removeprefix("algorithm.") in row, name
