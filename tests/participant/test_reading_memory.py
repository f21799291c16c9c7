"""Reading streams: what a large file adds to the memory of a process, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
# ru_maxrss would begin at the parent's size at the fork; VmHWM is the peak of this program alone.
PEAK = """
def peak():
    words = open("/proc/self/status").read().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024
"""
COUNT = (
    PEAK
    + """
import sys
from pathlib import Path
from tequio.participant.data import Columns, Reading

def read(path):
    reading = Reading(Path(path), Columns(), "classification", ("pos", "neg"), "ana")
    return sum(len(example.text) for example in reading)

read(sys.argv[1])
before = peak()
read(sys.argv[2])
print(peak() - before, "torch" in sys.modules)
"""
)


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"text": f"{i} " + "the train was late again " * 4, "label": "pos"} for i in range(count)
    ]


def csv_of(count: int) -> str:
    return "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows(count))


FORMS = {
    "a.jsonl": lambda n: "".join(json.dumps(row) + "\n" for row in rows(n)),
    "a.json": lambda n: json.dumps(rows(n)),
    "a.csv": csv_of,
}


@pytest.mark.parametrize("name", FORMS)
def test_36_mib_add_at_most_20_mib(tmp_path: Path, name: str) -> None:
    small, large = tmp_path / f"small-{name}", tmp_path / name
    small.write_text(FORMS[name](10))
    large.write_text(FORMS[name](36 * MIB // 110))
    assert large.stat().st_size > 36 * MIB
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    added, torch = done.stdout.split()
    assert torch == "False"
    assert float(added) < 20


SPLIT = (
    PEAK
    + """
import sys
from pathlib import Path
from tequio.participant.data import Columns
from tequio.participant.splits import DataFiles, SplitRule, load_splits

cap = int(sys.argv[2]) or None
rule = SplitRule(max_train=cap, max_validation=cap, max_test=cap)
before = peak()
splits = load_splits(DataFiles(data=Path(sys.argv[1])), Columns(), rule, "classification", ("pos", "neg"), "ana")
print(peak() - before, splits.digest(), len(splits.train))
"""
)


def test_with_caps_the_texts_are_not_held(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    row = "the train was late again " * 80
    file.write_text(
        "".join(json.dumps({"text": f"{i} {row}", "label": "pos"}) + "\n" for i in range(20_000))
    )

    def split(cap: int) -> float:
        command = [sys.executable, "-c", SPLIT, str(file), str(cap)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[0])

    assert split(50) < split(0) / 3
