"""How long until a run trains?

Processor time from an empty process to participants ready for their first step ÷ importing torch
and
transformers and loading the same model and tokenizer (target ≤ 1.3); and `tequio --help` ÷ `python
-c pass`. Medians of pairs, in turns.

Run: python -m benchmarks.start [--pairs 5]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.overhead import federation
from tequio.app.demos.fetch import minilm
from tequio.config.cache import cache_folder

BARE = """
import torch
torch.set_num_threads(1)
from transformers import AutoModel, AutoTokenizer
from tequio.participant.base import best_dtype
AutoModel.from_pretrained({model!r}, dtype=best_dtype()), AutoTokenizer.from_pretrained({model!r})
"""
OURS = """
from pathlib import Path
from tequio.cli.environment import prepare_process
prepare_process()
from tequio.cli.options import set_threads
from tequio.config import load_federation
set_threads(1)
from tequio.app.simulation.parallelism import choose_workers
from tequio.app.assembly.build import build, read_participants
from tequio.app.assembly.checks import check_pieces
config = load_federation(Path({path!r}))
algorithm, participants = check_pieces(config), read_participants(config)
choose_workers(config, algorithm, 0)
build(config, participants=participants, algorithm=algorithm)
"""


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Processor and wall time of a Python process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    model = str(minilm(cache_folder()))
    with tempfile.TemporaryDirectory() as name:
        path = str(federation(Path(name), 6, 160, 3, 12))
        arms = {
            "import and load": ["-c", BARE.format(model=model)],
            "ready to train": ["-c", OURS.format(path=path)],
            "nothing": ["-c", "pass"],
            "help": ["-m", "tequio.cli.main", "--help"],
        }
        found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
        for turn in range(pairs + 1):
            for arm, arguments in arms.items():
                took = seconds(arguments)
                if turn:  # the first turn fills the disk's cache
                    found[arm].append(took)
    for arm, times in found.items():
        processor, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{arm}: {processor:.3f} s of processor time, {wall:.3f} s")
    for arm, bare in (("ready to train", "import and load"), ("help", "nothing")):
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found[arm], found[bare], strict=True))
        print(f"{arm} ÷ {bare}: median {ratio:.2f} of {pairs} pairs, processor time")


if __name__ == "__main__":
    main()
