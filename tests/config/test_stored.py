"""A record keeps only the keys that differ from their default, and outlives keys that come and
go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from builders import NEEDED, refused
from tequio.config import Federation, changes, load_federation, stored, validated, whole
from tequio.config import load as config_read
from tequio.config.stored import RETIRED, without_retired
from tequio.core.canonical import canonical_json
from tequio.core.errors import ConfigError

DEFAULTS = Path(__file__).with_name("defaults.json")

# values that a key may have
some = st.sampled_from
TABLES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "base": {"licence": some(["not stated", "x"]), "dtype": some(["auto", "float32"])},
    "task": {"labels": some([["a", "b"], {"b": "x", "a": "y"}]), "max_tokens": some([128, 16])},
    "adapter": {
        "kind": some(["lora", "full"]),
        "ranks": some([[2, 4, 8, 16], [4]]),
        "scale": some([2.0, 1, 2]),
    },
    "train": {
        **{
            "rounds": some([10, 3]),
            "local_epochs": some([1, 1.0, 2.5]),
            "max_steps": some([200, 9]),
        },
        **{
            "round_seconds": some([60.0, 1]),
            "cohort": some([2, 3]),
            "pace": some(["rounds", "buffered"]),
        },
        **{"buffer": some([1, 2]), "quorum": some([1, 2]), "final_rate": some([0.1, 0, 1])},
    },
    "algorithm": {
        **{
            "reduce": some(["stack", "x"]),
            "reduce_settings": some([{}, {"k": 1.0}]),
            "feedback": some([0, 0.5]),
        },
        "broadcast_rank": some([1, 8]),
    },
    "local": {
        "terms": some([{}, {"kl": 0.1}]),
        "data": some(["d.jsonl"]),
        "method": some(["plain", "fomaml"]),
    },
    "topology": {
        "kind": some(["star", "ring"]),
        "edges": some([[], [["a", "b"]]]),
        "pace": some([1.0, 1, 0.5]),
    },
    "centre": {
        "data": some(["c.jsonl"]),
        "first": some([0, 2]),
        "steps": some([1, 5]),
        "licence": some(["x"]),
    },
    "gate": {
        "slices": some([{}, {"s": "s.jsonl"}]),
        "margin": some([0.02, 0, 1]),
        "interpolate": some([0, 3]),
    },
    "screen": {
        "norm_bound": some([3.0]),
        "cosine": some([0, 0.5]),
        "cosine_to": some(["others", "centre"]),
    },
    "personal": {
        "pooled_rates": some([[], [0.1]]),
        "alphas": some([[0.5, 1.0], []]),
        "ditto": some([[], [1]]),
    },
    "distil": {
        "teachers": some(["groups", "participants"]),
        "rank": some([2]),
        "temperature": some([1.0, 2]),
    },
    "equity": {"credit": some([False, True])},
    "energy": {"country": some(["MEX"]), "pue": some([1.0, 1, 1.5]), "tell": some([True, False])},
    "money": {"currency": some(["EUR"]), "per_kwh": some([0, 0.2]), "residual": some([0, 0.1])},
    "budget": {"hours": some([3.0]), "kwh": some([1])},
    "shift": {
        "start": some(["2026-03-03T00:00:00Z"]),
        "policy": some(["greedy", "none"]),
        "minimum": some([0.2, 0]),
    },
}


FIRST = {
    "centre": ("data",),
    "money": ("currency", "per_kwh"),
    "shift": ("start",),
}  # keys that a table must have


@st.composite
def configurations(draw: st.DrawFn) -> Federation:
    """A configuration with some tables, each with some of its keys or none; a key that does not go
    with those before is left out.
    """
    raw: dict[str, Any] = json.loads(json.dumps(NEEDED))
    tables = draw(st.lists(some(sorted(TABLES)), unique=True, max_size=9))
    if draw(st.booleans()):
        further = draw(
            st.fixed_dictionaries({}, optional={"licence": some(["x"]), "modules": some([["v"]])})
        )
        raw["bases"] = [{"name": "small", "model": "n", **further}]
        raw["participants"][1]["base"] = "small"
    raw |= draw(st.fixed_dictionaries({}, optional={"seed": some([0, 1])}))
    for name in sorted(tables, key=lambda name: name != "centre"):  # others need it
        needed = {key: draw(TABLES[name][key]) for key in FIRST.get(name, ())}
        raw = fitting(raw, {**raw, name: {**raw.get(name, {}), **needed}})
        for key in draw(st.lists(some(sorted(TABLES[name])), unique=True)) if name in raw else ():
            raw = fitting(raw, {**raw, name: {**raw[name], key: draw(TABLES[name][key])}})
    return Federation.model_validate(raw)


def fitting(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """`after`, where it is a configuration."""
    try:
        Federation.model_validate(after)
    except ValidationError:
        return before
    return after


@given(configurations())
def test_what_is_stored_is_read_back_and_holds_no_default(config: Federation) -> None:
    plain = json.loads(canonical_json(stored(config)))
    again = validated(plain, Federation, Path("record"))
    assert again == config
    assert stored(again) == stored(config)
    assert whole(plain) == whole(config.model_dump(mode="json")) == config.model_dump(mode="json")
    assert changes(stored(config), plain) == []
    for key, default in defaults(Federation):
        assert not [
            value for value in found_at(plain, key.split(".")) if json_equal(value, default)
        ], key


def json_equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def found_at(value: Any, parts: list[str]) -> list[Any]:
    """What stands at a key; of a list of tables in each."""
    if not parts:
        return [value]
    if isinstance(value, list):
        return [item for each in value for item in found_at(each, parts)]
    return (
        found_at(value[parts[0]], parts[1:])
        if isinstance(value, Mapping) and parts[0] in value
        else []
    )


def defaults(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a default, with it, as JSON."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
            yield f"{above}{name}", json.loads(json.dumps(plain))
        for part in (field.annotation, *arguments(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from defaults(part, f"{above}{name}.")


def arguments(annotation: Any) -> Iterator[Any]:
    for argument in getattr(annotation, "__args__", ()):
        yield argument
        yield from arguments(argument)


def test_a_default_never_changes_and_a_key_that_goes_is_retired() -> None:
    """A stored configuration leaves out what stands at its default.

    A new key belongs into defaults.json, with its default.

    Where a default should be another, give a new key that default, and retire the old key.
    """
    retained: dict[str, Any] = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    now = {key: value for key, value in defaults(Federation) if not tables_in(value)}
    assert {key: retained[key] for key in retained if key not in RETIRED} == now
    assert {key: retained.get(key, "not there") for key in RETIRED} == dict(RETIRED)


def tables_in(default: Any) -> bool:
    """Whether this is the default of a table, whose keys stand in the list themselves."""
    return isinstance(default, dict) and bool(default)


@pytest.mark.parametrize("table", ["centre", "distil", "money", "shift"])
def test_a_table_that_switches_something_on_stays_although_it_is_empty(table: str) -> None:
    """An optional table is absent or there; how it is stored says which."""
    given: dict[str, Any] = {
        "centre": {"data": "c"},
        "money": {"currency": "EUR", "rent_per_hour": 0},
    }
    given |= {"shift": {"start": "2026-03-03T00:00:00Z"}, "distil": {"teachers": "participants"}}
    raw = {**NEEDED, table: given[table]} | (
        {"centre": given["centre"]} if table == "distil" else {}
    )
    with_it = stored(Federation.model_validate(raw))
    assert table in with_it
    assert table not in stored(Federation.model_validate(NEEDED))
    assert validated(with_it, Federation, Path("record")) == Federation.model_validate(raw)


def test_an_empty_optional_table_is_not_an_absent_one() -> None:
    bases = {
        "bases": [{"name": "small", "model": "n"}],
        "participants": [{"name": "a"}, {"name": "b", "base": "small"}],
    }
    raw = {**NEEDED, **bases, "centre": {"data": "c"}}
    assert stored(Federation.model_validate({**raw, "distil": {}}))["distil"] == {}
    assert "distil" not in stored(Federation.model_validate(raw))


def test_a_retired_key_is_dropped_at_its_default_and_named_otherwise() -> None:
    retired = {
        "train.warmup": 0,
        "participants.share": 1.0,
        "haste": {"on": False, "by": 2},
        "gate.strict": False,
    }
    source = Path("federation.toml")
    old = {
        **NEEDED,
        "train": {"rounds": 3, "warmup": 0},
        "haste": {"on": False},
        "gate": {"strict": False},
    }
    old["participants"] = [{"name": "a", "share": 1}, {"name": "b"}]
    retained = without_retired(old, source, retired)
    assert retained == {
        **NEEDED,
        "train": {"rounds": 3},
        "gate": {},
        "participants": [{"name": "a"}, {"name": "b"}],
    }
    wrong: list[tuple[str, Any]] = [
        ("train.warmup", {"train": {"warmup": 5}}),
        ("haste", {"haste": {"by": 3}}),
    ]
    wrong += [("participants.share", {"participants": [{"name": "a"}, {"name": "b", "share": 2}]})]
    wrong += [("gate.strict", {"gate": {"strict": 0}})]
    for key, values in wrong:
        with pytest.raises(ConfigError, match=f"federation.toml: the key '{key}' was retired"):
            without_retired({**NEEDED, **values}, source, retired)


def test_a_retired_key_in_a_file(make_federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_federation()
    before, text = load_federation(path), path.read_text()
    monkeypatch.setattr(config_read, "RETIRED", {"train.warmup": 0})
    path.write_text(text.replace("[train]\n", "[train]\nwarmup = 0\n"))
    assert load_federation(path) == before
    path.write_text(text.replace("[train]\n", "[train]\nwarmup = 4\n"))
    with refused(ConfigError, "key-retired", key="train.warmup", value="0"):
        load_federation(path)
