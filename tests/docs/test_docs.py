"""The documentation says what the code does: generated pages, commands, keys, errors, links, data
formats, both languages.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

import tequio
from tequio.config import Federation, ParticipantFile
from tequio.core import errors
from tequio.core.update import Dense, Factored, Update
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import load_base
from tequio.participant.data import Columns, read_examples
from tequio.participant.encoding import class_ids
from tequio.participant.export import adapter_files
from tequio.participant.general import answers
from tequio.participant.predict import classify
from tequio.participant.splits import enough

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SKIPPED = {"runs", "build", "dist"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in SKIPPED or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GUIDES = ("guide.md", "guia.md")


def _generator() -> Any:
    """docs/generate.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()
COMMANDS: dict[str, Any] = dict(GENERATE.COMMANDS)


def named(words: list[str]) -> tuple[str, list[str]]:
    """(the command, what follows it): a command's name has one word or two."""
    both = " ".join(words[:2])
    return (both, words[2:]) if both in COMMANDS else (words[0], words[1:])


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every whole `tequio …` line in a code block; commands.md shows patterns
    instead and is compared whole.
    """
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        lines = [
            line.strip().removeprefix("$ ")
            for block in blocks(text, "", "sh")
            for line in block.splitlines()
        ]
        name = str(path.relative_to(ROOT))
        found += [
            (name, line)
            for line in lines
            if line.startswith("tequio ") and name != "docs/commands.md"
        ]
    return found


def test_generated_pages_are_up_to_date() -> None:
    made: dict[str, str] = GENERATE.pages()
    stale = [
        name for name, text in made.items() if not (DOCS / name).exists() or page(name) != text
    ]
    assert len(made) == 6
    assert stale == [], f"{', '.join(stale)}: run `python docs/generate.py`"


def leaf_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys straight from the models, not by way of the generator."""
    for name, field in model.model_fields.items():
        nested = [part for part in every_type(field.annotation) if issubclass(part, BaseModel)]
        if nested:
            yield from leaf_keys(nested[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def every_type(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from every_type(part)


@pytest.mark.parametrize(
    ("heading", "model"), [("federation.toml", Federation), ("participant.toml", ParticipantFile)]
)
def test_every_key_is_documented_in_its_table(heading: str, model: type[BaseModel]) -> None:
    part = page("configuration.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", part, re.MULTILINE | re.DOTALL))
    documented = {
        f"{'' if title == 'At the top' else title.strip('[]') + '.'}{key}"
        for title, body in tables.items()
        for key in re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE)
    }
    assert documented == set(leaf_keys(model))


def test_every_command_and_option_is_documented() -> None:
    parts = dict(
        re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page("commands.md"), re.MULTILINE | re.DOTALL)
    )
    assert set(parts) == set(COMMANDS)
    for name, command in COMMANDS.items():
        options = {
            o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")
        }
        assert options - {"--help", "-h"} <= set(re.findall(r"--[a-z-]+", parts[name])), name


def test_every_error_is_documented_with_its_exit_code() -> None:
    found = re.findall(r"^\| (\d+) \| (\w+) \|", page("errors.md"), re.MULTILINE)
    rows = {name: int(code) for code, name in found}
    classes = {
        n: c
        for n, c in vars(errors).items()
        if isinstance(c, type) and issubclass(c, errors.TequioError)
    }
    del classes["TequioError"]
    assert rows == {name: error.exit_code for name, error in classes.items()}
    assert len(set(rows.values())) == len(rows), "two errors share an exit code"


def slugs(text: str) -> set[str]:
    """Anchors of the headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file) if file else path
        if not there.exists() or (
            anchor and anchor not in slugs(there.read_text(encoding="utf-8"))
        ):
            broken.append(target)
    assert broken == []


def test_the_pages_show_commands() -> None:
    assert {named(shlex.split(line, comments=True)[1:])[0] for _, line in command_lines()} >= set(
        COMMANDS
    ) - {"version"}


@pytest.mark.parametrize(("where", "line"), command_lines())
def test_every_command_line_parses(where: str, line: str) -> None:
    name, arguments = named(shlex.split(line, comments=True)[1:])
    assert name in COMMANDS, f"{where}: there is no command {name}"
    try:
        COMMANDS[name].make_context(name, arguments)
    except Exception as error:  # the parser's own errors differ between versions of typer
        pytest.fail(f"{where}: `{line}` does not parse: {error}")


def test_a_wrong_command_line_does_not_parse() -> None:
    """So that the test above can fail."""
    for arguments in (["--nothing"], ["--seed", "x"], ["a", "b"], ["--lang", "fr"]):
        with pytest.raises(Exception, match=r"."):
            COMMANDS["run"].make_context("run", arguments)


def test_commands_in_running_text_exist_with_their_options() -> None:
    wrong = []
    for path in PAGES:
        for line in re.findall(r"`tequio ([^`]+)`", prose(path.read_text(encoding="utf-8"))):
            name, rest = named(line.split())
            known = (
                {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)}
                if name in COMMANDS
                else {}
            )
            if not known or any(part.startswith("-") and part not in known for part in rest):
                wrong.append(f"{path.name}: tequio {line}")
    assert wrong == []


def test_the_two_guides_have_one_shape() -> None:
    english, spanish = page(GUIDES[0]), page(GUIDES[1])
    levels = [re.findall(r"^(#+) ", prose(text), re.MULTILINE) for text in (english, spanish)]
    fences = [
        [(language, body.count("\n")) for language, body in FENCE.findall(text)]
        for text in (english, spanish)
    ]
    rows = [re.findall(r"^\||^\d\.|^- ", prose(text), re.MULTILINE) for text in (english, spanish)]
    assert levels[0] == levels[1]
    assert fences[0] == fences[1]
    assert rows[0] == rows[1]
    assert len(levels[0]) > 10
    assert len(fences[0]) > 15


@pytest.mark.parametrize("guide", GUIDES)
def test_examples_of_data_are_read(guide: str, tmp_path: Path) -> None:
    read = []
    for suffix in ("jsonl", "csv", "tsv"):
        for number, body in enumerate(blocks(page(guide), suffix)):
            path = tmp_path / f"{number}.{suffix}"
            path.write_text(body, encoding="utf-8")
            kind: Any = "classification" if "label" in body else "causal"
            examples = read_examples(path, Columns(), kind, ["negative", "positive"], "north")
            read.append((suffix, kind, len(examples), examples[0].response is not None))
    assert read == [
        ("jsonl", "classification", 3, False),
        ("jsonl", "causal", 3, True),
        ("jsonl", "causal", 3, False),
        ("csv", "classification", 2, False),
        ("tsv", "classification", 2, False),
    ]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_names_enough_texts_for_a_split_of_a_fifth(guide: str) -> None:
    assert enough(1, 0.2) == 28  # ⌈(1 + 2.5 + 2) / 0.2⌉
    assert re.search(r"\b28 (different texts|textos distintos)", page(guide))


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers
@pytest.mark.parametrize("guide", GUIDES)
def test_the_guides_python_loads_an_exported_adapter(
    guide: str, tiny_bert: Path, tmp_path: Path
) -> None:
    """The two blocks, run as they stand but for the folder, answer as the run's own model does."""
    parquet, load, use = blocks(page(guide), "python")
    ast.parse(parquet)
    base = load_base(str(tiny_bert), "classification", torch.float32, tmp_path)
    adapted = AdaptedModel(base, ["query", "value"], 2.0, head_at_zero(base, 2))
    generator = torch.Generator().manual_seed(3)
    entries: dict[str, Any] = {
        name: Factored(
            torch.randn(m, 2, generator=generator) * 0.1, torch.randn(2, n, generator=generator)
        )
        for name, (m, n) in adapted.shapes.items()
    }
    entries |= {
        name: Dense(torch.randn(*t.shape, generator=generator)) for name, t in adapted.head.items()
    }
    model = Update(entries, adapted.spec)
    adapted.fold_in(model)
    for name, data in adapter_files(
        adapted, model, str(tiny_bert), ("negative", "positive")
    ).items():
        (tmp_path / name).write_bytes(data)
    folder = "my-federation/runs/my-federation-0/export/north/adapter"
    assert folder in load
    named = "sentence-transformers/all-MiniLM-L6-v2"
    assert named in load
    scope: dict[str, Any] = {}
    exec(
        load.replace(folder, str(tmp_path)).replace(named, str(tiny_bert)) + use, scope
    )  # our own page
    text = re.search(r'tokenizer\(\["(.+?)"\]', use)
    assert text is not None
    ids = class_ids(adapted.base.tokenizer, [text[1]], 64)
    expected = classify(answers(adapted, model, ids), ("negative", "positive"))[0]
    logits = 10 * scope["pooled"] @ scope["head"]["head.weight"].T + scope["head"]["head.bias"]
    shares = torch.softmax(logits, 1)[0].tolist()
    assert scope["answer"] == expected["label"]
    assert shares == pytest.approx(list(expected["probabilities"].values()), abs=1e-4)


def test_decisions_are_numbered_and_complete() -> None:
    decisions = sorted((DOCS / "adr").glob("*.md"))
    assert [path.name[:5] for path in decisions] == [
        f"{i:04}-" for i in range(1, len(decisions) + 1)
    ]
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ], path.name
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name


def test_the_changelog_has_this_version() -> None:
    assert f"## [{tequio.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_page_is_left_half_written() -> None:
    marks = re.compile(r"@@\w+@@|\bTODO\b|\bTBD\b|\bXXX\b")
    found = {path.name: marks.findall(path.read_text(encoding="utf-8")) for path in PAGES}
    assert {name: what for name, what in found.items() if what} == {}


def test_what_the_json_of_an_error_holds_is_documented() -> None:
    keys = json.loads(json.dumps(errors.ConfigError("a", "b", "c").as_dict()))
    assert all(f"`{key}`" in page("commands.md") for key in keys)
