"""Bad input on the real path: each error names the thing, says what was expected and what to do, and shows no text of anybody."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tequio.app.assembly.build import build
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.app.stages import speed_free
from tequio.cli.main import app
from tequio.config import load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import (
    BaseModelError,
    ConfigError,
    DataError,
    LedgerCorrupt,
    ResourceError,
    RunError,
    TequioError,
    UpdateError,
)
from tequio.ledger.record import Ledger
from tequio.report.write import write_report
from tequio.runtimes.embedded import Embedded

MARKER = "zarzamora"  # stands in every text of every participant and may come out nowhere
MARK = MARKER.encode()
Rows = list[dict[str, Any]]


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def site(federation: Path, number: int = 0) -> Path:
    return federation.parent / "data" / f"site{number}.jsonl"


@pytest.fixture
def marked(make_federation: Any) -> Callable[..., Path]:
    """`make_federation`, with the marker in every text of the participants."""

    def make(**options: Any) -> Path:
        path: Path = make_federation(**options)
        for file in (path.parent / "data").glob("*.jsonl"):
            put(file, [{**row, "text": f"{row['text']} {MARKER}"} for row in rows_of(file)])
        return path

    return make


def said(error: TequioError) -> str:
    """The message as people and as programs get it, after checking that it says what to do and leaks nothing."""
    text = str(error) + json.dumps(error.as_dict())
    assert MARKER not in text
    return text


def refused(path: Path, kind: type[TequioError], *expected: str) -> TequioError:
    """A run of `path` is refused with all of `expected` in the message, and nothing is written."""
    out = path.parent / "run"
    with pytest.raises(kind) as caught:
        start(load_federation(path), out, False)
    text = said(caught.value)
    for words in expected:
        assert words in text
    assert not out.exists()
    return caught.value


def nothing_leaks(folder: Path) -> None:
    """No file of the run, no record in it, no report and no summary holds the marker."""
    page, summary = write_report(folder, "en", None)
    assert "site0" in page.read_text()
    assert MARKER not in json.dumps(summary, default=str)
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        assert MARKER not in json.dumps([dict(e.body) for e in ledger.entries()], default=dict)
    for file in folder.rglob("*"):
        assert file.is_dir() or MARK not in file.read_bytes(), file


# data


def _missing(f: Path) -> None:
    site(f).unlink()


def _other_column(f: Path) -> None:
    put(site(f), [{"texto": r["text"], "label": r["label"]} for r in rows_of(site(f))])


def _empty(f: Path) -> None:
    site(f).write_text("")


def _blank(f: Path) -> None:
    put(site(f), [{**r, "text": "  "} for r in rows_of(site(f))])


def _few(f: Path) -> None:
    put(site(f), rows_of(site(f))[:1])


def _unknown_label(f: Path) -> None:
    put(site(f), [*rows_of(site(f)), {"text": f"more {MARKER}", "label": MARKER}])


def _not_utf8(f: Path) -> None:
    site(f).write_bytes(site(f).read_bytes() + b'{"text": "caf\xe9 ' + MARK + b'", "label": "good"}\n')


def _cut_off(f: Path) -> None:
    site(f).write_bytes(site(f).read_bytes()[:-20])


DATA = [
    (_missing, ["site0", "there is no file", "site0.jsonl", "Correct the path"]),
    (_other_column, ["site0", "there is no column 'text'", "Perhaps 'texto' is meant", "[data] in participant.toml"]),
    (_empty, ["site0", "no usable example for train", "0 rows were read", "Give it 1 or more different texts"]),
    (_blank, ["site0", "no usable example for train", "80 rows were read"]),
    (_few, ["site0", "too few examples for", "It has 0, needed are 1"]),
    (_unknown_label, ["site0", "line 81", "the label is empty or unknown", "allows: bad, good", "Correct the row"]),
    (_not_utf8, ["site0", "is not UTF-8", "Line 81", "iconv"]),
    (_cut_off, ["site0", "line 80", "not valid JSON"]),
]


@pytest.mark.parametrize(("damage", "expected"), DATA, ids=[d.__name__ for d, _ in DATA])
def test_data_that_cannot_be_used(marked: Any, damage: Callable[[Path], None], expected: list[str]) -> None:
    path = marked()
    damage(path)
    refused(path, DataError, *expected)


def test_responses_that_fill_max_tokens_leave_nothing_to_learn(marked: Any) -> None:
    path = marked(kind="causal")
    put(site(path), [{"prompt": r["text"], "response": f"{MARKER} " * 20} for r in rows_of(site(path))])
    refused(path, DataError, "site0", "no token is left to learn from", "max_tokens = 16", "shorten the responses")


# configuration


def test_an_unknown_key_offers_the_nearest_in_both_files(marked: Any) -> None:
    path = marked()
    own = path.parent / "participants" / "site1.toml"
    own.write_text(own.read_text().replace("max_rank", "max_ranks"))
    refused(path, ConfigError, "site1.toml", "unknown key 'hardware.max_ranks', did you mean 'max_rank'?")
    path.write_text(path.read_text().replace("batch_size", "batchsize"))
    refused(path, ConfigError, "federation.toml", "unknown key 'train.batchsize', did you mean 'batch_size'?")


def test_a_rate_that_no_float_can_follow(marked: Any) -> None:
    path = marked(train={"learning_rate": 0.005})
    path.write_text(path.read_text().replace("learning_rate = 0.005", "learning_rate = 1e40"))
    refused(path, ConfigError, "train.learning_rate", "expected 1000 or less")


def test_a_participant_file_that_is_not_there(marked: Any) -> None:
    path = marked()
    (path.parent / "participants" / "site1.toml").unlink()
    refused(path, ConfigError, "There is no file", "site1.toml")


def test_modules_that_the_base_does_not_have(marked: Any) -> None:
    path = marked(adapter={"modules": ["query", "q_proj"]})
    refused(path, BaseModelError, "no linear layer called q_proj", "called: dense, key, query, value", "Name some")


def test_more_tokens_than_the_base_has_positions(marked: Any) -> None:
    refused(marked(task={"max_tokens": 65}), ConfigError, "max_tokens = 65", "reads at most 64 tokens", "Lower it")


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
        refused(path, BaseModelError, str(base), "cannot be loaded", "*.safetensors")
    else:
        refused(path, BaseModelError, str(base), "has no *.safetensors", "can hide code", "Convert the model")
    assert not (tmp_path / "sprung").exists()


def test_a_base_that_is_not_there(marked: Any, tiny_bert: Path) -> None:
    path = marked()
    gone = path.parent / "gone"
    path.write_text(path.read_text().replace(str(tiny_bert), str(gone)))
    refused(path, BaseModelError, f"there is no folder {gone}", "Give a folder, a .gguf or an id")


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _without_a_layer(file: Path) -> None:
    save_file({k: v for k, v in load_file(file).items() if ".layer.1." not in k}, file, metadata={"format": "pt"})


def _with_nan(file: Path) -> None:
    tensors = load_file(file)
    tensors["embeddings.word_embeddings.weight"][5, 5] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_truncated, ["cannot be loaded (SafetensorError", "Expected"]),
        (_without_a_layer, ["its weights are incomplete", "encoder.layer.1.", "Download the model again"]),
        (_with_nan, ["is damaged", "embeddings.word_embeddings.weight holds NaN", "Download the model again"]),
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
        path, ResourceError, "Participant site0 needs about", "has 0.00 GiB", "The sum in GiB: runtime 0.50 +"
    )
    assert "base weights" in error.why
    assert error.fix


# folders and disks


@pytest.mark.parametrize("where", ["proc", "file"])
def test_a_folder_that_cannot_be_written(marked: Any, where: str) -> None:
    path = marked()
    (path.parent / "file").write_text("")
    out = Path("/proc/run") if where == "proc" else path.parent / "file" / "run"
    with pytest.raises(ResourceError, match="cannot be written") as caught:
        start(load_federation(path), out, False)
    assert str(out) in said(caught.value)


@contextmanager
def largest_file(size: int) -> Iterator[Callable[[], None]]:
    """A real limit of the system on the size of files, from the call of what it yields to the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "size", "name"),
    [("rounds", 4096, "ledger.sqlite"), ("general", 100, "ledger.sqlite"), ("personal", 100, "accounts.jsonl")],
)
def test_a_full_disk_names_the_file_and_the_run_goes_on_later(marked: Any, stage: str, size: int, name: str) -> None:
    path = marked(rows=40)
    out, unbroken = path.parent / "run", path.parent / "unbroken"
    expected = start(load_federation(path), unbroken, False).end
    with largest_file(size) as full, pytest.raises(ResourceError, match=r"The disk (or quota )?is full") as caught:
        start(load_federation(path), out, False, watch=lambda s, *_: full() if s == stage else None)
    text = said(caught.value)
    assert name in text
    assert str(out) in text
    assert "tequio run --resume" in text
    assert speed_free(resume(out).end) == speed_free(expected)
    nothing_leaks(out)


# training


def test_all_diverge_names_each(marked: Any) -> None:
    path = marked(train={"learning_rate": 1e3})
    with pytest.raises(RunError, match="Round 1: no participant's update could be used") as caught:
        start(load_federation(path), path.parent / "run", False)
    text = said(caught.value)
    for name in ("site0", "site1"):
        assert f"Participant {name}: training diverged" in text
    assert "Lower [train] learning_rate" in text
    nothing_leaks(path.parent / "run")


def test_a_personal_rate_that_diverges_is_given_up_and_named(marked: Any) -> None:
    rates = {"local_rates": [1e3, 5e-3], "private_rates": [1e3], "private_epochs": 8.0}
    path = marked(rows=40, train={"rounds": 1, "local_epochs": 8.0, "max_steps": 20}, personal=rates)
    out = path.parent / "run"
    start(load_federation(path), out, False)
    with Ledger.open(out / "ledger.sqlite", read_only=True) as ledger:
        fits = [dict(e.body["fits"]) for e in ledger.entries("personal")]
    assert len(fits) == 2
    for fit in fits:
        assert fit["local"]["diverged"] == [1e3]
        assert fit["local"]["learning_rate"] in (0.0, 5e-3)
        assert fit["private"] == {"learning_rate": 0.0, "step": 0, "diverged": [1e3]}
    nothing_leaks(out)


def test_one_participant_with_nan_fails_and_the_others_go_on(marked: Any) -> None:
    """One word of the base has NaN, and only site0 uses it."""
    path = marked(participants=3)
    put(site(path), [{**r, "text": f"seat {r['text']}"} for r in rows_of(site(path))])
    for other in (site(path, 1), site(path, 2), *(path.parent / "public").glob("*.jsonl")):
        put(other, [{**r, "text": r["text"].replace("seat", "pump")} for r in rows_of(other)])
    w = build(load_federation(path))
    word = w.adapted.base.tokenizer.convert_tokens_to_ids("seat")
    model: Any = w.adapted.model
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[word] = float("nan")
    state, opening = open_state(w.run_spec, Embedded(w.nodes))
    assert list(opening["validation"]) == ["site1", "site2"]
    assert "the loss of its validation data is nan" in opening["not_evaluated"]["site0"]
    after, body = run_round(state, w.run_spec, Embedded(w.nodes))
    failed = [a for a in body["admissions"] if a["status"] != "admitted"]
    assert [(a["name"], a["status"]) for a in failed] == [("site0", "failed")]
    assert "The loss became nan at step 1" in failed[0]["reason"]
    assert body["accepted"]
    assert after.shared.is_finite()
    assert MARKER not in json.dumps([opening, body], allow_nan=False)
    without = replace(w.run_spec, members=tuple(m for m in w.run_spec.members if m.name != "site0"))
    alone, _ = run_round(open_state(without, Embedded(w.nodes))[0], without, Embedded(w.nodes))
    assert alone.shared.minus(after.shared).norm() == 0.0


# a finished run and one that was cut off; each is made once, and every test has its own copy

MADE: dict[str, tuple[Path, Path]] = {}


@pytest.fixture
def finished(marked: Any, tmp_path: Path) -> tuple[Path, Path]:
    """(federation.toml, run) of a run with one participant of one class and one with long texts."""
    if "finished" not in MADE:
        path = marked(rows=60)
        put(
            site(path),
            [{**r, "text": r["text"] + " the" * (20 if i < 7 else 0)} for i, r in enumerate(rows_of(site(path)))],
        )
        put(site(path, 1), [{**r, "label": "good"} for r in rows_of(site(path, 1))])
        start(load_federation(path), path.parent / "run", True)
        MADE["finished"] = path, path.parent / "run"
    path, run = MADE["finished"]
    return path, Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def halted(marked: Any, tmp_path: Path) -> tuple[Path, Path]:
    """(federation.toml, run) of a run that was stopped after its first round."""
    if "halted" not in MADE:
        path = marked(rows=40)

        def stop(stage: str, what: str, done: int, of: int) -> None:
            if stage == "rounds" and what == "round 1 of 2":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start(load_federation(path), path.parent / "run", False, watch=stop)
        MADE["halted"] = path, path.parent / "run"
    path, run = MADE["halted"]
    return path, Path(shutil.copytree(run, tmp_path / "copy"))


def test_one_class_and_long_texts_are_legal_and_in_the_record(finished: tuple[Path, Path]) -> None:
    _, run = finished
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        header = ledger.last("run")
        assert header is not None
        assert ledger.last("end") is not None
    site0, site1 = header.body["participants"]
    assert site0["data"]["cut"] == 7  # 7 texts with 20 words more; max_tokens = 16
    assert site1["data"]["cut"] == 0
    assert site1["data"]["warnings"] == [
        "All its training texts have one class: alone it can learn nothing but that class."
    ]
    assert site0["data"]["warnings"] == []
    assert verify_run(run)["ok"]
    nothing_leaks(run)


def test_a_second_run_does_not_touch_the_first(finished: tuple[Path, Path]) -> None:
    path, run = finished
    with pytest.raises(RunError, match="holds a run already") as caught:
        start(load_federation(path), run, False)
    assert "name another folder" in said(caught.value)
    assert verify_run(run)["ok"]


def flip_in_record(run: Path, seq: int) -> None:
    """Another digit in the body of one record, as a bad disk or an editor would leave it."""
    with closing(sqlite3.connect(run / "ledger.sqlite")) as raw:
        body = raw.execute("SELECT body FROM record WHERE seq = ?", (seq,)).fetchone()[0]
    data = (run / "ledger.sqlite").read_bytes()
    where = data.index(body[:200].encode()) + body.index(":") + 2
    changed = bytes([data[where] ^ 1])
    (run / "ledger.sqlite").write_bytes(data[:where] + changed + data[where + 1 :])


@pytest.mark.parametrize("seq", [0, 1])
def test_a_damaged_ledger_is_noticed_and_not_built_upon(halted: tuple[Path, Path], seq: int) -> None:
    _, run = halted
    flip_in_record(run, seq)
    with pytest.raises(LedgerCorrupt, match=f"ledger.sqlite, record {seq}: ") as caught:
        resume(run)
    assert "Restore the ledger from a copy" in said(caught.value)
    checked = CliRunner().invoke(app, ["verify", str(run)])
    assert checked.exit_code == 10
    assert "PROBLEM" in checked.output
    assert MARKER not in checked.output


def test_a_ledger_that_is_no_database(halted: tuple[Path, Path]) -> None:
    _, run = halted
    (run / "ledger.sqlite").write_bytes(b"x" * 5000)
    assert CliRunner().invoke(app, ["verify", str(run), "--json"]).exit_code == 10
    with pytest.raises(TequioError, match=r"ledger\.sqlite"):
        resume(run)


@pytest.mark.parametrize("damage", ["a byte", "the end", "all", "gone"])
def test_a_damaged_model_file_is_named_and_not_used(finished: tuple[Path, Path], damage: str) -> None:
    _, run = finished
    victim = run / "participants" / "site0" / "personal.safetensors"
    raw = victim.read_bytes()
    changed = {"a byte": raw[:-1] + bytes([raw[-1] ^ 1]), "the end": raw[:-40], "all": b"x" * 40}
    victim.unlink()
    if damage in changed:
        victim.write_bytes(changed[damage])
    problems = verify_run(run)["problems"]
    assert len(problems) == 1
    assert str(victim) in problems[0]
    uses: list[Callable[[], object]] = [
        lambda: predict_texts(run, "site0", ["the pump"], 4),
        lambda: export_models(run, "site0", run / "export", False),
    ]
    for use in uses:
        with pytest.raises(UpdateError) as caught:
            use()
        assert str(victim) in said(caught.value)
        assert "Restore it from a copy" in caught.value.fix
    assert not (run / "export").exists()


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_data_that_changed_since_the_run_began(halted: tuple[Path, Path]) -> None:
    path, run = halted
    rows = rows_of(site(path, 1))
    rows[0] = {**rows[0], "text": rows[0]["text"].replace(MARKER, f"other {MARKER}")}  # the counts stay
    swapped = "".join(json.dumps(r) + "\n" for r in rows).encode()
    with changed(site(path, 1), swapped), pytest.raises(RunError) as caught:
        resume(run)
    assert "the data of participant site1" in said(caught.value)
    assert "site0" not in str(caught.value)
    public = path.parent / "public" / "slice.jsonl"
    with changed(public, public.read_bytes().replace(b"the", b"my")), pytest.raises(RunError) as caught:
        resume(run)
    assert "the public data of slice public" in said(caught.value)
    centre = path.parent / "public" / "centre.jsonl"
    with changed(centre, centre.read_bytes().replace(b"the", b"my")), pytest.raises(RunError) as caught:
        resume(run)
    assert "the public data of centre" in said(caught.value)


def test_resume_needs_the_participants_files_but_not_the_federations(halted: tuple[Path, Path]) -> None:
    path, run = halted
    own = path.parent / "participants" / "site1.toml"
    text = path.read_text()
    path.unlink()
    own.rename(own.with_suffix(".away"))
    try:
        with pytest.raises(ConfigError, match="There is no file") as caught:
            resume(run)
        assert str(own) in said(caught.value)
        own.with_suffix(".away").rename(own)
        assert resume(run).end["rounds"] == 2
    finally:
        path.write_text(text)
    nothing_leaks(run)
