"""Plain text paragraphs out of a roff manual page: a reader for prose, not a typesetter.

No tables.
"""

import re
import shlex

SYMBOLS = {
    "aq": "'", "oq": "'", "cq": "'", "lq": '"', "rq": '"', "dq": '"', "ga": "`", "em": "—", "en": "–",
    "hy": "-", "mi": "-", "bu": "•", "co": "©", "rg": "®", "ha": "^", "ti": "~", "la": "<", "ra": ">",
    "sl": "/", "at": "@", "rs": "\\", "de": "°", "->": "→", "<-": "←", "ba": "|", "or": "|", "sh": "#",
    "Do": "$", "+-": "±",
}  # fmt: skip
ESCAPE = re.compile(
    r"""\\(?:
    (?P<comment>["\#].*)
    | (?P<font>[fFmMgnYVR*](?:\([^\s]{2}|\[[^\]]*\]|[^\s\[(]))
    | s(?:[+-]?\d{1,2}|\[[^\]]*\]|'[^']*')
    | [hvwoxbCDHlLNSXZ]'[^']*'
    | \((?P<two>[^\s]{2}) | \[(?P<long>[^\]]*)\]
    | (?P<one>.) )""",
    re.VERBOSE,
)
ONE = {
    "-": "-",
    "e": "\\",
    "E": "\\",
    "\\": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    ".": ".",
    "t": " ",
}
REQUEST = re.compile(r"^[.'][ \t]*([A-Za-z\\][\w\\]*)?[ \t]*(.*)$")
BREAKS = frozenset(
    [
        "PP",
        "P",
        "LP",
        "HP",
        "sp",
        "Sp",
        "Pp",
        "TQ",
        "RS",
        "RE",
        "nf",
        "fi",
        "EX",
        "EE",
        "Vb",
        "Ve",
        "ce",
    ]
)
ALTERNATING = frozenset(["BR", "RB", "IR", "RI", "BI", "IB"])
SPACED = frozenset(["B", "I", "SM", "SB", "FN", "R", "CW"])
SKIP_UNTIL = {
    "de": "..",
    "am": "..",
    "ig": "..",
    "de1": "..",
    "am1": "..",
    "TS": ".TE",
    "EQ": ".EN",
    "PS": ".PE",
}
FOOTER = re.compile(r"^\.SH\s+\"?(?:TRADUCCIÓN|TRADUCTION|ÜBERSETZUNG)", re.MULTILINE)


def unescape(text: str) -> str:
    """Resolve roff escapes: fonts and sizes go, `\\-` is `-`, named characters become
    themselves.
    """

    def one(hit: re.Match[str]) -> str:
        if hit["two"] is not None or hit["long"] is not None:
            return SYMBOLS.get(hit["two"] or hit["long"] or "", "")
        return ONE.get(hit["one"], "") if hit["one"] else ""

    return ESCAPE.sub(one, text)


def paragraphs(page: str) -> list[str]:
    """The page's paragraphs in order, headings included, each with single spaces;

    [] for a page of another
    macro set (mdoc) or a page that only points to another (`.so`). The translators' footer is cut
    off.
    """
    if re.search(r"^\.(Dd|so)\b", page, re.MULTILINE):
        return []
    footer = FOOTER.search(page)
    body = page[: footer.start()] if footer else page
    found: list[list[str]] = [[]]
    for kind, text in _events(body):
        if kind == "break":
            found.append([])
        elif text.strip():
            found[-1].append(text)
            if kind == "heading":
                found.append([])
    joined = (" ".join(" ".join(lines).split()) for lines in found)
    return [paragraph for paragraph in joined if paragraph]


def _events(page: str) -> list[tuple[str, str]]:
    """("break" | "heading" | "text", text) for each line of the page that means something."""
    events: list[tuple[str, str]] = []
    until, depth, title = "", 0, False
    for line in page.splitlines():
        if until:
            until = "" if line.replace(" ", "").startswith(until) else until
            continue
        request = REQUEST.match(line)
        if depth or (request and request[1] in ("if", "ie", "el", "while")):
            depth = max(0, depth + line.count(r"\{") - line.count(r"\}"))
        elif request is None:
            text = unescape(line)
            events.append(("heading" if title else "text" if text.strip() else "break", text))
            title = False
        elif request[1] in SKIP_UNTIL:
            until = SKIP_UNTIL[request[1]]
        elif request[1] in ("SH", "SS") and not request[2].strip():
            title = True
            events.append(("break", ""))
        else:
            events += _request(request[1] or "", request[2])
    return events


def _request(name: str, rest: str) -> list[tuple[str, str]]:
    """The events of one macro call; none for a call that only sets the layout."""
    if name in ("SH", "SS"):
        return [("break", ""), ("heading", " ".join(_arguments(rest)))]
    if name in ("IP", "TP"):
        tag = _arguments(rest)[:1] if name == "IP" else []
        return [("break", ""), *(("text", text) for text in tag)]
    if name in BREAKS:
        return [("break", "")]
    if name in ALTERNATING:
        return [("text", "".join(_arguments(rest)))]
    if name in SPACED:
        return [("text", " ".join(_arguments(rest)))]
    if name in ("MT", "MTO"):
        return [("text", "<email>")]
    if name == "URL":
        return [("text", " ".join(_arguments(rest)[1:2]))]
    return []


def _arguments(rest: str) -> list[str]:
    """Macro arguments: words, or quoted strings with spaces inside; escapes resolved."""
    protected = rest.replace(r"\ ", r"\~")
    splitter = shlex.shlex(protected, posix=True, punctuation_chars=False)
    splitter.whitespace_split, splitter.quotes, splitter.escape, splitter.commenters = (
        True,
        '"',
        "",
        "",
    )
    try:
        words = list(splitter)
    except ValueError:
        words = protected.replace('"', "").split()
    return [unescape(word) for word in words]
