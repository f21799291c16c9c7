"""Read TOML as people write it: decode the file, parse it, and explain a fault by its line, its key
and its cure.

The parser's own phrase is kept at the end, for a fault that none of the rules below knows.
"""

import codecs
import re
import tomllib
from typing import Any

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

BOMS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
KEY = re.compile(
    r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=[ \t]*(.*)"""
)
TABLE = re.compile(r"\s*\[{1,2}\s*([^\]]+?)\s*\]{1,2}")
CURLY = "“”„‟«»‘’‚‹›`´"  # quotation marks that TOML does not know
BLANKS = {
    "\u00a0": "a no-break space",
    "\u202f": "a narrow no-break space",
    "\u3000": "a wide space",
    "\u200b": "an invisible space",
    "\ufeff": "a byte-order mark",
    "\u2060": "an invisible joiner",
}
SWITCHES = {
    "yes": "true",
    "on": "true",
    "no": "false",
    "off": "false",
    "ja": "true",
    "nein": "false",
    "sí": "true",
}
NOTHING = ("none", "null", "nil")
BACKSLASH = "In double quotes a backslash begins an escape."
PATHS = "Write the path with / or \\\\, or put it in single quotes"


def decode_toml(raw: bytes, source: str) -> str:
    """Decode a TOML file's bytes.

    Raises ConfigError naming the line, the encoding it seems to have, and the command that converts
    it.
    """
    encoding = next((name for mark, name in BOMS if raw.startswith(mark)), "")
    if encoding == "" and b"\0" in raw[:200]:
        encoding = "UTF-16LE" if raw[1:2] == b"\0" else "UTF-16BE"
    if encoding not in ("", "UTF-8"):
        raise refusal(ConfigError, "toml-encoding", place=source, encoding=encoding)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        line = raw.split(b"\n")[number - 1].decode("cp1252", errors="replace")
        key = _key_of(line)
        place = f"{source}, line {number}" + (f", the key {key!r}" if key else "")
        raise refusal(ConfigError, "toml-encoding", place=place, encoding="WINDOWS-1252") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse TOML.

    Raises ConfigError naming `source`, the line, the key, what was expected there, and what to do.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(text, source, error) from None


def _fault(text: str, source: str, error: Exception) -> ConfigError:
    said = re.sub(r" \(at .*\)$", "", str(error).strip())
    lines = text.split("\n")
    found = re.search(r"at line (\d+), column (\d+)", str(error))
    number = int(found[1]) if found else _last_line(lines)
    number = _begun(lines, min(number, len(lines)), said)
    line, key = lines[number - 1], _dotted(lines, number)
    words, fix = _cause(line, said, lines, number)
    if key.startswith("task.labels"):  # neither a label nor its description is shown
        key, fix = "task.labels", 'Write each as: "label" = "its description"' if fix else ""
    where = f"{source}, line {number}" + (f", the key {key!r}" if key else "")
    return refusal(
        ConfigError,
        "toml-unreadable",
        place=where,
        why=words or f"The parser says: {said}.",
        next=fix,
    )


def _last_line(lines: list[str]) -> int:
    return next((k for k in range(len(lines), 0, -1) if lines[k - 1].strip()), 1)


def _begun(lines: list[str], number: int, said: str) -> int:
    """The line in which the fault began: the parser finds what is never closed, and what stands
    twice, further down.
    """
    back = range(number, 0, -1)
    if "Cannot overwrite" in said:
        return next((k for k in back if _key_of(lines[k - 1])), number)
    if "Unclosed" in said or "Expected '" in said or 'Expected "' in said or "Unterminated" in said:
        opened = (k for k in back if _key_of(lines[k - 1]) and _open(KEY.match(lines[k - 1])[2]))  # type: ignore[index]
        return next(opened, number)
    return number


def _open(value: str) -> bool:
    """Whether a bracket, a brace or a quotation mark is opened in a value and not closed in its
    line.
    """
    rest = _outside(value)
    return (
        rest.count("[") > rest.count("]")
        or rest.count("{") > rest.count("}")
        or bool(re.search("[\"']", rest))
    )


def _outside(line: str) -> str:
    """A line without its texts in quotation marks and its comment."""
    return re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', "", line).split("#", 1)[0]


def _key_of(line: str) -> str:
    found = KEY.match(line)
    return found[1] if found and not line.lstrip().startswith("#") else ""


def _dotted(lines: list[str], number: int) -> str:
    """The key of a line with the table above it; of a line inside a list that was begun earlier,
    the key that began it.
    """
    begun = next(
        (k for k in range(number, 0, -1) if _key_of(lines[k - 1]) or TABLE.match(lines[k - 1])), 0
    )
    key = _key_of(lines[begun - 1]) if begun else ""
    inside = begun == number or _outside("".join(lines[begun - 1 : number - 1])).count(
        "["
    ) > _outside("".join(lines[begun - 1 : number - 1])).count("]")
    if not key or not inside:
        return ""
    tables = (TABLE.fullmatch(re.sub(r"\s*#.*", "", line)) for line in reversed(lines[: begun - 1]))
    above = next((found[1] for found in tables if found), "")
    return f"{above}.{key}" if above else key


def _cause(line: str, said: str, lines: list[str], number: int) -> tuple[str, str]:
    """(what is wrong, what to do), from the most certain sign to the least."""
    found, text = KEY.match(line), line.strip()
    key, value = (found[1], found[2].rstrip()) if found else ("", text)
    plain, outside = re.sub(r"\s+#.*$", "", value), _outside(line)
    if text.startswith("[") and not re.fullmatch(
        r"\[[^\[\]]+\]|\[\[[^\[\]]+\]\]", text.split("#")[0].strip()
    ):
        return (
            "A heading stands in brackets that are closed.",
            "Write [train], or [[participants]] for each participant.",
        )
    if "Cannot overwrite" in said or "Cannot declare" in said or "Cannot mutate" in said:
        return _twice(key or text, lines, number)
    if "Unescaped '\\'" in said or "hex value" in said or "not a Unicode scalar" in said:
        own = re.search(r'"([^"]*)"?', value)
        example = (
            f": {key or 'path'} = '{own[1]}'"
            if own and own[1].isprintable() and "'" not in own[1]
            else ""
        )
        return BACKSLASH, f"{PATHS}{example}"
    for mark, name in BLANKS.items():
        if mark in outside:
            return (
                f"The line holds {name}, which TOML does not allow there.",
                "Delete it, and type an ordinary space.",
            )
    if any(mark in outside for mark in CURLY):
        clean = plain.strip(CURLY + " \"'")
        return (
            "Its quotation marks are typographic ones.",
            f'Use straight ones: {key or "key"} = "{clean}"',
        )
    if not found and _dotted(lines, number):  # a line of a list
        return _value_cause(
            _dotted(lines, number).rsplit(".")[-1], f"[{plain}]", _outside(f"[{plain}]")
        )
    if key and not key.isascii() and key[0] not in "\"'":
        return (
            "A key with other letters than a to z stands in quotation marks.",
            f'Write: "{key}" = …',
        )
    return _value_cause(key, plain, _outside(value)) if found else _line_cause(text)


def _twice(what: str, lines: list[str], number: int) -> tuple[str, str]:
    table = TABLE.match(lines[number - 1])
    name = table[1] if table else what
    named = [
        (TABLE.match(line) or [None, None])[1] if table else _key_of(line)
        for line in lines[: number - 1]
    ]
    if not table:  # only keys of the same table
        heads = [k for k, line in enumerate(lines[: number - 1]) if TABLE.match(line)]
        named = [None] * (heads[-1] if heads else 0) + named[heads[-1] if heads else 0 :]
    before = f" It stands in line {named.index(name) + 1} already." if name in named else ""
    if table:
        both = (
            "Put its keys together under one heading; only lists like [[participants]] have a "
            "heading for each."
        )
        return f"The table [{name}] is there twice.{before}", both
    return f"The key {what!r} is there twice.{before}", "Leave one of them out."


def _value_cause(key: str, value: str, outside: str) -> tuple[str, str]:
    if not value:
        return "It has no value.", f"Give it one, or put # before the line: # {key} ="
    if value[0] in "=:":
        return "One = is enough.", f"Write: {key} = {value.lstrip('=: ')}"
    return _number_cause(key, value, outside) or _word_cause(key, value, outside) or ("", "")


def _number_cause(key: str, value: str, outside: str) -> tuple[str, str] | None:
    if found := re.search(r"(?<![\w,])[+-]?\d+(?:\.\d{3})*,\d+(?![\w.])", outside):
        right = found[0].replace(".", "").replace(",", ".")
        whole = f"{key} = {right}" if found[0] == value else right
        return "Decimals are written with a point, not with a comma.", f"Write: {whole}"
    if share := re.fullmatch(r"([+-]?\d+(?:\.\d+)?)\s*%", value):
        return (
            "A number has no sign behind it.",
            f"A share is a number from 0 to 1: {float(share[1]) / 100:g}",
        )
    if re.fullmatch(r"[+-]?0+\d+", value):
        return "A whole number does not begin with 0.", f"Write: {key} = {int(value)}"
    if re.fullmatch(r"[+-]?(\.\d+|\d+\.)([eE][+-]?\d+)?", value):
        return "A point needs a digit on both sides.", f"Write: {key} = {float(value)}"
    if re.fullmatch(r"\d{1,3}([ '’_.]\d{3})+", value):
        return (
            "A number has no signs between its thousands.",
            f"Write: {key} = {re.sub(r'[^0-9]', '', value)}",
        )
    unit = re.match(r"([+-]?\d[\d_]*(?:\.\d+)?)\s*[A-Za-zµ€$]+$", value)
    if unit and not re.fullmatch(r"[+-]?[\d.]+[eE]|0[xob]\w*", value):
        return "A number stands alone, without its unit.", f"Write: {key} = {unit[1]}"
    return None


def _word_cause(key: str, value: str, outside: str) -> tuple[str, str] | None:
    word = value.strip(",;").lower()
    if word in ("true", "false") or re.search(r"\b(True|False|TRUE|FALSE)\b", outside):
        own = f"{key} = {word}" if word in ("true", "false") else "true or false"
        return "TOML wants true and false in lower case.", f"Write: {own}"
    if word in SWITCHES:
        return "A switch is true or false.", f"Write: {key} = {SWITCHES[word]}"
    if word in NOTHING:
        return "TOML has no value for nothing.", "Leave the key out: it stands at its default then."
    if value[0] in "\"'":
        if len(re.findall(rf"(?<!\\){value[0]}", value)) % 2:
            return "Its quotation mark is not closed.", f"Write: {key} = {value}{value[0]}"
        fix = (
            'Write one key per line; inside text in double quotes, write \\" for a quotation mark.'
        )
        return "More stands behind its text.", fix
    if re.match(r"[A-Za-z_/~\\.]|[^\W\d]", value):
        return "Text is written in quotation marks.", f"Write: {key} = {_quoted(value)}"
    if outside.count("[") > outside.count("]"):
        return "Its bracket is not closed.", "Add ] at the end of the list."
    if outside.count("{") > outside.count("}"):
        return (
            "A table in braces stands in one line.",
            f"Write {key} = {{ … }} in one line, or as a table of its own.",
        )
    if value[0] == "[" and re.search(r"[\[,]\s*[^\W\d]", outside):
        return "Each text in a list is written in quotation marks.", f'Write: {key} = ["…", "…"]'
    if value.endswith((",", ";")):
        return (
            f"The line ends with {value[-1]!r}.",
            "Write one key per line, with nothing behind the value.",
        )
    if re.search(r"//|/\*", outside):
        return "A comment begins with #.", "Write # where // stands."
    return None


def _quoted(value: str) -> str:
    value = value.rstrip(",;")
    return (
        f"'{value}'" if "\\" in value and "'" not in value else '"' + value.replace('"', "") + '"'
    )


def _line_cause(text: str) -> tuple[str, str]:
    if text.startswith(("//", ";", "/*", "--")):
        return "A comment begins with #.", f"Write: # {text.lstrip('/;*- ')}"
    if found := re.match(r"([\w-]+)\s*:\s*(.*)", text):
        return (
            "A key and its value are joined by =, not by a colon.",
            f"Write: {found[1]} = {found[2] or '…'}",
        )
    if re.fullmatch(r"[\w-]+", text):
        return "A key needs a value.", f"Write: {text} = …"
    if found := re.match(r"([^=]*[^\w\s.\"'=-][^=]*|[\w-]+(?:\s+[\w-]+)+)\s*=", text):
        return "A key is one word.", f'Put it in quotation marks: "{found[1].strip()}" = …'
    return "", ""
