"""Check the prose of this project:

`python docs/english.py [FILE…]` lists what docs/english.md forbids.

Three rules are checked: no clause begins with a bare Who or What, everyday words and "per", and
short sentences on lines of their own. Code, tables, addresses and quoted messages are left out.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS = 100
WORDS = 25  # of a sentence in Markdown
BARE = re.compile(
    r"(?:^|[.;:(] ?)(Who|What|Whoever) "
    r"(?:is|has|was|lost|leaves|comes|goes|diverges|joins|answers|works|trains|sends|stays)\b"
)
UNITS = "second|minute|hour|day|year|round|step|token|participant|kWh|site|seed|update|number"
FOR_TOOLS = re.compile(r"# type: ignore.*|# noqa.*")  # comments for tools do not count as columns
PLAIN = {
    re.compile(rf"\b{words}\b"): instead
    for words, instead in {
        "anew": "again",
        "but for": "except",
        "(?:go|goes|going|went|gone) on with": "resume, continue",
        "to the bit": "bit-for-bit identical",
        "for ever": "until it succeeds",
        "as it were": "nothing",
        r"(?:tokens|steps|rounds|bytes|dollars|numbers|texts|bits|batches|events|grams|g|Mbit) "
        rf"an? (?:{UNITS})": "per",
    }.items()
}
END = re.compile(
    r"(?<![A-Z])(?<!e\.g)(?<!i\.e)(?<!cf)(?<!vs)(?<!al)[.!?](?:[)\"”’*_]*) +(?=[A-ZÁÉÍÓÚÑ¿¡*`“(\[])"
)
FENCE = re.compile(r"^\s*(```|~~~)")


def prose_of_python(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each comment and string of more than three words."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) and token.string.count(" ") >= 3:
            for offset, text in enumerate(token.string.strip("\"'# frb").split("\n")):
                yield token.start[0] + offset, text.strip()


def lines_of_templates(path: Path) -> set[int]:
    """Return the lines of strings of several lines that are no docstring, and of aligned tables."""
    source = path.read_text(encoding="utf-8")
    found, aligned = set[int](), False
    for number, line in enumerate(source.split("\n"), 1):
        aligned = "# fmt: off" in line or (aligned and "# fmt: on" not in line)
        found |= {number} if aligned else set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and token.line[: token.start[1]].strip():
            found |= set(range(token.start[0], token.end[0] + 1)) if "\n" in token.string else set()
    return found


def lines_of_markdown(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each line of prose: no code, table, heading, quotation or picture."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced and line.strip() and not re.match(r"\s*(\||#|>|<|!\[|\[.*\]: )|    ", line):
            yield number, line.strip()


def plain(text: str) -> str:
    """Return a line of Markdown as a person reads it: a link is its words, code is one word."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"^(?:[-*] |\d+\. )", "", re.sub(r"`[^`]*`", "code", text))


def faults_of_words(text: str) -> Iterator[str]:
    """Yield what rules 1 and 4 forbid in a text."""
    if found := BARE.search(text):
        yield f"rule 1: {found[0].strip()!r} has no actor"
    for words, instead in PLAIN.items():
        if found := words.search(text):
            yield f"rule 4: {found[0]!r}, better: {instead}"


def faults(path: Path) -> Iterator[str]:
    """Yield each fault of a file, as 'path:line: rule: what'."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".py":
        templates = lines_of_templates(path)
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if len(FOR_TOOLS.sub("", line).rstrip()) > COLUMNS and number not in templates:
                yield f"{name}:{number}: rule 7: {len(line)} columns"
        for number, text in prose_of_python(path):
            yield from (f"{name}:{number}: {fault}" for fault in faults_of_words(text))
        return
    if path.suffix == ".toml":
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            yield from (f"{name}:{number}: {fault}" for fault in faults_of_words(line))
        return
    for number, line in lines_of_markdown(path):
        text = plain(line)
        yield from (f"{name}:{number}: {fault}" for fault in faults_of_words(text))
        sentences = END.split(text)
        if len(sentences) > 1:
            yield f"{name}:{number}: rule 7: {len(sentences)} sentences on one line"
        for sentence in sentences:
            if (words := len(re.findall(r"\w[\w'’.,-]*", sentence))) > WORDS:
                yield f"{name}:{number}: rule 7: a sentence of {words} words"
        if text.count(";") > 1:
            yield f"{name}:{number}: rule 7: {text.count(';')} semicolons"


def main() -> int:
    """Print every fault; return 1 if there is one."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or [
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("src/**/texts/e[ns].toml"),
    ]
    found = [fault for path in sorted(chosen) for fault in faults(path)]
    print("\n".join(found) or "The English check found nothing.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
