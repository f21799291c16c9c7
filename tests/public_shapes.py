"""Twenty files in the shape of well-known public data sets, made up afresh: texts and labels are
this file's own.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import BAD, FILLER, GOOD, SUBJECTS

COUNT = 60


@dataclass(frozen=True)
class Made:
    """Hold what a file must be found to be: the task, its labels, its usable rows, and what
    --column it needs (nothing).
    """

    task: str
    labels: tuple[str, ...] = ()
    rows: int = COUNT


def text(rng: random.Random, good: bool, commas: bool = True) -> str:
    """Return a sentence of 8 to 14 words."""
    words = [
        *rng.choices(FILLER, k=rng.randint(5, 10)),
        rng.choice(SUBJECTS),
        rng.choice(GOOD if good else BAD),
    ]
    rng.shuffle(words)
    if commas:
        words[3] += ","
    return " ".join(words)


def made(seed: int, names: Sequence[Any], commas: bool = True) -> list[tuple[str, Any]]:
    """Return COUNT different (text, label), the labels in turn."""
    rng = random.Random(seed)
    rows: dict[str, Any] = {}
    while len(rows) < COUNT:
        label = names[len(rows) % len(names)]
        rows.setdefault(f"{text(rng, len(rows) % 2 == 0, commas)}", label)
    return list(rows.items())


def table(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8", **how: Any) -> Path:
    """Write rows as CSV."""
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, **how).writerows(rows)
    return path


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def parquet(path: Path, columns: Mapping[str, Sequence[Any]], names: Sequence[str] = ()) -> Path:
    """Write columns as Parquet; names: of the classes of `label`, as the library datasets
    writes them.
    """
    import pyarrow as arrow
    import pyarrow.parquet as files

    made_table = arrow.table({name: list(values) for name, values in columns.items()})
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        made_table = made_table.replace_schema_metadata({"huggingface": info})
    files.write_table(made_table, path)
    return path


def banking77(folder: Path) -> Made:
    names = [f"card_{word}_{number}" for word in SUBJECTS for number in range(2)]
    table(folder / "banking77.csv", [("text", "category"), *made(1, names)])
    return Made("classification", tuple(sorted(names)))


def sms_spam(folder: Path) -> Made:
    """No header, tabs, no ending, stray quotes."""
    rows = made(2, ["ham", "ham", "spam"])
    body = "".join(
        f'{label}\t"{words}\n' if n % 9 == 4 else f"{label}\t{words}\n"
        for n, (words, label) in enumerate(rows)
    )
    (folder / "SMSSpamCollection.tsv").write_text(body, encoding="utf-8")
    return Made("classification", ("ham", "spam"))


def kaggle_spam(folder: Path) -> Made:
    """v1, v2 and three columns without a name, in Windows-1252."""
    rows = [(label, f"{words} £5 caf\xe9", "", "", "") for words, label in made(3, ["ham", "spam"])]
    table(folder / "spam.csv", [("v1", "v2", "", "", ""), *rows], encoding="cp1252")
    return Made("classification", ("ham", "spam"))


def alpaca(folder: Path) -> Made:
    rows = [
        {"instruction": w, "input": w[:9] if n % 2 else "", "output": f"{w} again"}
        for n, (w, _) in enumerate(made(4, [0]))
    ]
    (folder / "alpaca_data.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return Made("causal")


def sharegpt(folder: Path) -> Made:
    def chat(words: str) -> list[dict[str, str]]:
        turns = [
            ("human", words),
            ("gpt", "yes"),
            ("human", "and today"),
            ("gpt", f"{words} really"),
        ]
        return [{"from": who, "value": value} for who, value in turns]

    rows = [
        {"id": f"c_{n}", "conversations": chat(words)} for n, (words, _) in enumerate(made(5, [0]))
    ]
    (folder / "sharegpt.json").write_text(json.dumps(rows), encoding="utf-8")
    return Made("causal")


def openai_chat(folder: Path) -> Made:
    def chat(words: str) -> list[dict[str, str]]:
        turns = [("system", "be kind"), ("user", words), ("assistant", f"{words} very")]
        return [{"role": role, "content": content} for role, content in turns]

    lines(folder / "chat.jsonl", [{"messages": chat(words)} for words, _ in made(6, [0])])
    return Made("causal")


def dolly(folder: Path) -> Made:
    rows = [
        {"instruction": w, "context": "", "response": f"{w} calm", "category": c}
        for w, c in made(7, ["open_qa", "closed_qa"])
    ]
    lines(folder / "dolly-15k.jsonl", rows)
    return Made("causal")


def emotion(folder: Path) -> Made:
    names = ["sadness", "joy", "love", "anger", "fear", "surprise"]
    rows = made(8, range(6))
    parquet(
        folder / "emotion.parquet",
        {"text": [t for t, _ in rows], "label": [n for _, n in rows]},
        names,
    )
    return Made("classification", tuple(sorted(names)))


def emotion_txt(folder: Path) -> Made:
    """No header, semicolons, called .txt."""
    rows = made(9, ["sadness", "joy", "anger"], commas=False)
    (folder / "train.txt").write_text(
        "".join(f"{words};{label}\n" for words, label in rows), encoding="utf-8"
    )
    return Made("classification", ("anger", "joy", "sadness"))


def tweets_with_index(folder: Path) -> Made:
    """A pandas export: a first column without a name."""
    rows = [
        (n, words, label)
        for n, (words, label) in enumerate(made(10, ["negative", "neutral", "positive"]))
    ]
    table(folder / "tweets.csv", [("", "tweet", "sentiment"), *rows])
    return Made("classification", ("negative", "neutral", "positive"))


def imdb(folder: Path) -> Made:
    rows = [
        (f"{words}.<br /><br />{words}", label)
        for words, label in made(11, ["positive", "negative"])
    ]
    table(folder / "IMDB Dataset.csv", [("review", "sentiment"), *rows])
    return Made("classification", ("negative", "positive"))


def ag_news(folder: Path) -> Made:
    rows = [(label, words[:20], words) for words, label in made(12, [1, 2, 3, 4])]
    table(
        folder / "ag_news.csv",
        [("Class Index", "Title", "Description"), *rows],
        quoting=csv.QUOTE_ALL,
    )
    return Made("classification", ("1", "2", "3", "4"))


def sentiment140(folder: Path) -> Made:
    """No header, six columns, one of them constant."""
    rows = [
        (label, 1467810000 + n, "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", f"user{n}", words)
        for n, (words, label) in enumerate(made(13, [0, 4]))
    ]
    table(folder / "sentiment140.csv", rows, encoding="latin-1", quoting=csv.QUOTE_ALL)
    return Made("classification", ("0", "4"))


def airline(folder: Path) -> Made:
    header = ("tweet_id", "airline_sentiment", "airline", "name", "text", "tweet_created")
    rows = [
        (n, s, ["A", "B"][n % 2], f"n{n}", w, "2015-02-24")
        for n, (w, s) in enumerate(made(14, ["negative", "positive"]))
    ]
    table(folder / "Tweets.csv", [header, *rows])
    return Made("classification", ("negative", "positive"))


def yelp(folder: Path) -> Made:
    """JSON lines, compressed, with stars as numbers with a point."""
    rows = [
        {"review_id": str(n), "stars": s, "text": w}
        for n, (w, s) in enumerate(made(15, [1.0, 2.0, 5.0]))
    ]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    (folder / "yelp_academic.json.gz").write_bytes(packed)
    return Made("classification", ("1", "2", "5"))


def clinc(folder: Path) -> Made:
    rows = [
        {"utterance": w, "intent": name} for w, name in made(16, ["balance", "transfer", "oos"])
    ]
    lines(folder / "clinc150.jsonl", rows)
    return Made("classification", ("balance", "oos", "transfer"))


def faq(folder: Path) -> Made:
    """Question and answer, semicolons and a byte-order mark, as Excel in Spanish exports them."""
    rows = [(words, f"{words} today") for words, _ in made(17, [0])]
    table(
        folder / "preguntas.csv",
        [("pregunta", "respuesta"), *rows],
        encoding="utf-8-sig",
        delimiter=";",
    )
    return Made("causal")


def corpus(folder: Path) -> Made:
    lines(
        folder / "c4-sample.jsonl",
        [{"text": w, "url": f"https://x/{n}"} for n, (w, _) in enumerate(made(18, [0]))],
    )
    return Made("causal")


def truth(folder: Path) -> Made:
    """Comments with a label that is true or false, and rows without one."""
    rows: list[dict[str, Any]] = [
        {"comment": w, "label": label} for w, label in made(19, [True, False])
    ]
    rows += [{"comment": "again my day", "label": None}]
    lines(folder / "comments.ndjson", rows)
    return Made("classification", ("false", "true"))


def amazon_es(folder: Path) -> Made:
    """A class-label Parquet whose columns have other names, with dates and numbers beside."""
    rows = made(20, [1, 2, 3, 4, 5])
    columns = {
        "review_id": [f"es_{n}" for n in range(COUNT)],
        "stars": [n for _, n in rows],
        "review_body": [words for words, _ in rows],
        "language": ["es"] * COUNT,
    }
    parquet(folder / "amazon_es.parquet", columns)
    return Made("classification", ("1", "2", "3", "4", "5"))


SHAPES: Mapping[str, Callable[[Path], Made]] = {
    maker.__name__: maker
    for maker in (
        banking77, sms_spam, kaggle_spam, alpaca, sharegpt, openai_chat, dolly, emotion, emotion_txt, tweets_with_index,
        imdb, ag_news, sentiment140, airline, yelp, clinc, faq, corpus, truth, amazon_es,
    )
}  # fmt: skip


def write(name: str, folder: Path) -> tuple[Path, Made]:
    """Write one of the files into an empty folder; return it, and what it must be found to be."""
    folder.mkdir(parents=True, exist_ok=True)
    found = SHAPES[name](folder)
    (file,) = folder.iterdir()
    return file, found
