"""Bad data, configuration and bases: each error names the thing, says what to do, and shows no text
of anybody.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from marked_runs import MARK, MARKER, put, refused, rows_of, site
from safetensors.torch import load_file, save_file

from tequio.core.errors import (
    BaseModelError,
    ConfigError,
    DataError,
    ResourceError,
)

# data


def _missing(f: Path) -> None:
    site(f).unlink()


def _other_column(f: Path) -> None:
    put(
        site(f),
        [{"txet": r["text"], "more": r["text"], "label": r["label"]} for r in rows_of(site(f))],
    )


def _empty(f: Path) -> None:
    site(f).write_text("")


def _blank(f: Path) -> None:
    put(site(f), [{**r, "text": "  "} for r in rows_of(site(f))])


def _few(f: Path) -> None:
    put(site(f), rows_of(site(f))[:1])


def _unknown_label(f: Path) -> None:
    put(site(f), [*rows_of(site(f)), {"text": f"more {MARKER}", "label": MARKER}])


def _not_utf8(f: Path) -> None:
    site(f).write_bytes(
        site(f).read_bytes() + b'{"text": "caf\x8d ' + MARK + b'", "label": "good"}\n'
    )


def _cut_off(f: Path) -> None:
    site(f).write_bytes(site(f).read_bytes()[:-20])


DATA = [
    (_missing, ["data-file-missing", "site0.jsonl"]),
    (_other_column, ["data-column-missing", "site0", '"names": ["text"]', '"nearest": "txet"']),
    (_empty, ["no-usable-example", "site0", '"rows": 0', '"minimum": 1']),
    (_blank, ["no-usable-example", "site0", '"rows": 80']),
    (_few, ["split-share-too-small", "site0", '"count": 0', '"minimum": 1']),
    (_unknown_label, ["label-unknown", "site0", "line 81", '"column": "label"']),
    (_not_utf8, ["not-utf-8", "site0", '"line": 81']),
    (_cut_off, ["not valid JSON", "site0", "line 80"]),
]


@pytest.mark.parametrize(("damage", "expected"), DATA, ids=[d.__name__ for d, _ in DATA])
def test_data_that_cannot_be_used(
    marked: Any, damage: Callable[[Path], None], expected: list[str]
) -> None:
    path = marked()
    damage(path)
    refused(path, DataError, *expected)


def test_responses_that_fill_max_tokens_leave_nothing_to_learn(marked: Any) -> None:
    path = marked(kind="causal")
    put(
        site(path),
        [{"prompt": r["text"], "response": f"{MARKER} " * 20} for r in rows_of(site(path))],
    )
    refused(path, DataError, "pairs-too-long", '"who": "site0"', '"tokens": 16')


# configuration


def test_an_unknown_key_offers_the_nearest_in_both_files(marked: Any) -> None:
    path = marked()
    own = path.parent / "participants" / "site1.toml"
    own.write_text(own.read_text().replace("max_rank", "max_ranks"))
    refused(
        path,
        ConfigError,
        "site1.toml",
        "unknown key 'hardware.max_ranks', did you mean 'max_rank'?",
    )
    path.write_text(path.read_text().replace("batch_size", "batchsize"))
    refused(
        path,
        ConfigError,
        "federation.toml",
        "unknown key 'train.batchsize', did you mean 'batch_size'?",
    )


def test_a_rate_that_no_float_can_follow(marked: Any) -> None:
    path = marked(train={"learning_rate": 0.005})
    path.write_text(path.read_text().replace("learning_rate = 0.005", "learning_rate = 1e40"))
    refused(path, ConfigError, "train.learning_rate", "expected 1000 or less")


def test_a_participant_file_that_is_not_there(marked: Any) -> None:
    path = marked()
    (path.parent / "participants" / "site1.toml").unlink()
    refused(path, ConfigError, "config-missing", "site1.toml")


def test_modules_that_the_base_does_not_have(marked: Any) -> None:
    path = marked(adapter={"modules": ["query", "q_proj"]})
    refused(
        path,
        BaseModelError,
        "modules-unknown",
        '"missing": ["q_proj"], "names": ["dense", "key", "query", "value"]',
    )


def test_more_tokens_than_the_base_has_positions(marked: Any) -> None:
    refused(
        marked(task={"max_tokens": 65}),
        ConfigError,
        "max-tokens-too-large",
        '"tokens": 65',
        '"most": 64',
    )


# the base model


def copy_of(base: Path, path: Path) -> Path:
    """A copy of the base beside federation.toml, which then names it."""
    copy = path.parent / "base"
    shutil.copytree(base, copy)
    path.write_text(path.read_text().replace(str(base), str(copy)))
    return copy


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("decoy", ["", "notes.safetensors", "notes.gguf"])
def test_pickled_weights_are_refused_and_never_unpickled(
    marked: Any, tiny_bert: Path, tmp_path: Path, decoy: str
) -> None:
    path = marked()
    base = copy_of(tiny_bert, path)
    (base / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.bin", "adapter_model.bin", "training_args.bin"):
        (base / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        torch.save(Trap(tmp_path / "sprung"), base / f"zip-{name}")
    if decoy:
        save_file({"x": torch.zeros(1)}, base / decoy)
        refused(path, BaseModelError, str(base), "no-safetensors")
    else:
        refused(path, BaseModelError, str(base), "no-safetensors")
    assert not (tmp_path / "sprung").exists()


def test_a_base_that_is_not_there(marked: Any, tiny_bert: Path) -> None:
    path = marked()
    gone = path.parent / "gone"
    path.write_text(path.read_text().replace(str(tiny_bert), str(gone)))
    refused(path, BaseModelError, "base-folder-missing", str(gone))


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _without_a_layer(file: Path) -> None:
    save_file(
        {k: v for k, v in load_file(file).items() if ".layer.1." not in k},
        file,
        metadata={"format": "pt"},
    )


def _with_nan(file: Path) -> None:
    tensors = load_file(file)
    tensors["embeddings.word_embeddings.weight"][5, 5] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_truncated, ["base-file-damaged", "model.safetensors"]),
        (_without_a_layer, ["base-incomplete", "encoder.layer.1."]),
        (_with_nan, ["base-not-finite", '"tensor": "embeddings.word_embeddings.weight"']),
    ],
)
def test_damaged_weights(marked: Any, tiny_bert: Path, damage: Any, expected: list[str]) -> None:
    path = marked()
    base = copy_of(tiny_bert, path)
    damage(base / "model.safetensors")
    refused(path, BaseModelError, str(base), *expected)


def test_too_little_memory_is_said_before_any_weight_is_read(marked: Any, tiny_bert: Path) -> None:
    path = marked()
    (copy_of(tiny_bert, path) / "model.safetensors").write_bytes(b"no weights")
    own = path.parent / "participants" / "site0.toml"
    own.write_text(own.read_text().replace("[hardware]\n", "[hardware]\nmemory_gib = 0.001\n"))
    error = refused(
        path,
        ResourceError,
        "Participant site0 needs about",
        "has 0.00 GiB",
        "The sum in GiB: runtime 0.50",
    )
    assert "base weights" in error.why
    assert error.fix
