"""A run over two bases, from federation.toml to verify: who holds what, what is refused, and that a
run cut off ends the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from builders import bodies, build_setup, refused, sentences, tokenizer, write_jsonl
from tequio.app.assembly import checks as wiring
from tequio.app.assembly.build import build
from tequio.app.models.adapt import adapt
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.config import load_federation
from tequio.core.canonical import digest_update, unpack
from tequio.core.errors import ConfigError, ResourceError, RunError
from tequio.core.texts.words import ENGLISH
from tequio.ledger.record import Ledger
from tequio.report.write import write_report

KINDS = ["classification", "causal"]


@pytest.fixture
def path(request: Any, make_two_bases: Any) -> Path:
    made: Path = make_two_bases(kind=getattr(request, "param", "classification"), participants=3)
    return made


class Cut(BaseException):
    """As a signal would end the process."""


@pytest.mark.parametrize("path", KINDS, indirect=True)
def test_a_run_over_two_bases_serves_everybody_over_its_own(path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    checked = verify_run(run)
    assert checked["ok"], checked["problems"]
    assert (
        checked["models"] == 2 + 2 + 2 * 3
    )  # heads, shared models, and of each participant the personal and the local one
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        header = ledger.last("run")
        rounds = [
            json.loads(json.dumps(dict(e.body), default=dict)) for e in ledger.entries("round")
        ]
        general, shared = ledger.last("general"), ledger.last("shared")
    assert header is not None
    assert [(p["name"], p["base"]) for p in header.body["participants"]] == [
        ("site0", "main"),
        ("site1", "small"),
        ("site2", "main"),
    ]
    assert header.body["bases"]["small"]["base"]["parameters"] < header.body["base"]["parameters"]
    for number, body in enumerate(rounds, 1):
        assert body["round"] == number
        assert set(body["validation"]) == {"site0", "site1", "site2"}
        assert set(body["gate"]) == {"public", "public (small)"}
        assert set(body["distil"]["groups"]) == {"main", "small"}
        assert body["distil"]["teachers"] == ["main", "small"]
        mean = sum(v["loss"] for v in body["validation"].values()) / 3
        assert body["mean_validation_loss"] == pytest.approx(mean)
    assert general is not None
    assert set(general.body) == {"public", "public (small)", "record_version"}
    assert shared is not None
    small = unpack((run / "bases/small/shared.safetensors").read_bytes())
    assert digest_update(small) == shared.body["bases"]["small"]["digest"]
    # every model is used over its own base
    exported = {
        row["name"]: Path(row["adapter"])
        for row in export_models(run, None, tmp_path / "out", False)
    }
    assert set(exported) == {"site0", "site1", "site2", "shared", "shared-small"}
    config = load_federation(path)
    on = {name: width_of(folder) for name, folder in exported.items()}
    assert {on["site0"], on["site2"], on["shared"]} == {32}
    assert {on["site1"], on["shared-small"]} == {16}
    for who in exported:
        assert len(predict_texts(run, who, ["the nurse was kind"], 2)) == 1
    page, summary = write_report(run, "en", None)
    assert page.is_file()
    assert [(p["name"], ENGLISH.reason(p["tier"])) for p in summary["participants"]] == [
        ("site0", "main, rank 4"),
        ("site1", "small, rank 2"),
        ("site2", "main, rank 4"),
    ]
    assert summary["base"]["model"] == f"{config.base.model} + {config.bases[0].model}"
    assert summary["chain"]["algorithm"].endswith("distil = feddf of groups")


def width_of(adapter: Path) -> int:
    """How wide the base of an exported adapter is: the large one 32, the small one 16."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    return min(int(tensor.shape[1]) for name, tensor in tensors.items() if "lora_A" in name)


def test_a_newcomer_chooses_the_base(path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    rows = write_jsonl(tmp_path / "new" / "data.jsonl", sentences(60, 55))
    newcomer = tmp_path / "new" / "late.toml"
    newcomer.write_text(f'name = "late"\n[data]\npath = "{rows.name}"\n', encoding="utf-8")
    made = adapt(run, newcomer, tmp_path / "late", "small")
    assert width_of(Path(made["adapter"])) == 16
    with refused(RunError, "no-model-of", name="shared-smal"):
        adapt(run, newcomer, tmp_path / "other", "smal")


@pytest.mark.parametrize("path", ["classification"], indirect=True)
@pytest.mark.parametrize("teachers", ["groups", "participants"])
def test_a_run_cut_off_in_a_round_ends_as_an_unbroken_one(
    path: Path, tmp_path: Path, teachers: str
) -> None:
    config = load_federation(path)
    assert config.distil is not None
    config = config.model_copy(
        update={"distil": config.distil.model_copy(update={"teachers": teachers})}
    )
    whole = start(config, tmp_path / "whole", False)
    for cut in (3, 6, 9, 14):
        said = [0]

        def watch(
            stage: str, what: str, done: int, of: int, cut: int = cut, said: list[int] = said
        ) -> None:
            said[0] += 1
            if said[0] == cut:
                raise Cut

        out = tmp_path / f"cut{cut}"
        with pytest.raises(Cut):
            start(config, out, False, watch=watch)
        assert resume(out).end["outcome"] == whole.end["outcome"]


def test_one_base_with_distil_teaches_from_its_participants(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(
        rows=60, participants=3, distil={"teachers": "participants", "steps": 4, "items": 16}
    )
    start(load_federation(path), tmp_path / "run", True)
    found = bodies(tmp_path / "run", "round")
    assert [list(b["distil"]["teachers"]) for b in found] == [["site0", "site1", "site2"]] * 2
    assert "bases" not in found[0]
    assert verify_run(tmp_path / "run")["ok"]


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'base = "small"',
            'base = "smal"',
            "base = 'smal', which no .* did you mean 'small'. Known: main, small",
        ),
        ('base = "small"\n', "", "no participant has base = 'small'"),
        ('name = "small"\n', 'name = "main"\n', "'main' is there twice"),
        ('name = "site0"', 'name = "shared-small"', "'shared-small' is taken"),
        (
            "[train]\n",
            "[train]\ncohort = 2\n",
            "cohort = 2 is of each base, and 'small' has 1 participants",
        ),
    ],
)
def test_what_the_roster_cannot_mean_is_refused(path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_federation(edited(path, old, new))


def test_a_model_is_not_its_own_teacher(make_federation: Any) -> None:
    with pytest.raises(ConfigError, match='set teachers = "participants"'):
        make_federation(distil={"teachers": "groups"})
    with pytest.raises(
        ConfigError, match=r"distil: it needs public texts, so \[centre\] is needed"
    ):
        make_federation(distil={"teachers": "participants"}, centre=False)


def test_language_models_of_other_words_do_not_teach_each_other(
    make_two_bases: Any, small_llama: Path, tmp_path: Path
) -> None:
    import shutil

    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    other = tmp_path / "other"
    shutil.copytree(small_llama, other)
    words = {word: (i if i < 3 else 42 - i) for word, i in tokenizer().get_vocab().items()}
    raw = Tokenizer(WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizer().backend_tokenizer.pre_tokenizer
    PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(other)
    path = make_two_bases(kind="causal", participants=2, small=other)
    with refused(ConfigError, "teaching-other-words", base="small"):
        build_setup(path)
    separate = load_federation(path).model_copy(update={"distil": None})
    assert [g.name for g in build(separate).groups] == ["main", "small"]  # apart, they may differ


def test_predictions_that_do_not_fit_in_memory_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "PREDICTION_BYTES", 2**50)
    with refused(ResourceError, "teaching-too-large"):
        build_setup(path)


def test_counterfactuals_need_one_base(path: Path, tmp_path: Path) -> None:
    with refused(ConfigError, "several-bases-pooled"):
        start(load_federation(path), tmp_path / "run", True)
