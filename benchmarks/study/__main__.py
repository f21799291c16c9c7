"""`python -m benchmarks.study [questions…]`, from the repository root: runs the questions and
writes a page and a JSON file of each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.answers import Answer, markdown
from benchmarks.study.jobs import Result, plain, run_jobs, sources
from benchmarks.study.scenes import prepare
from tequio.core.errors import TequioError

QUESTIONS = ("reduces", "bytes", "who", "hybrid", "newcomer", "forgetting", "poison", "bases")
# modules here, each with QUESTION, jobs(quick) and answer(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 on an error; a target that is missed is none."""
    chosen = _parser().parse_args(arguments)
    names = chosen.questions or list(QUESTIONS)
    if unknown := sorted(set(names) - set(QUESTIONS)):
        sys.stderr.write(f"There is no question {unknown[0]!r}. Known: {', '.join(QUESTIONS)}.\n")
        return 1
    try:
        study(
            names,
            chosen.out / "quick" if chosen.quick else chosen.out,
            chosen.jobs,
            chosen.quick,
            chosen.fresh,
        )
    except TequioError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"all, unless named: {', '.join(QUESTIONS)}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="an offline toy: shows that all works, its figures mean nothing",
    )
    parser.add_argument("--jobs", type=int, default=2, help="worker processes, one thread each")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/study"),
        help="pages, JSON, and kept results to go on from",
    )
    parser.add_argument("--fresh", action="store_true", help="do not take results that were kept")
    return parser


def study(
    names: Sequence[str], out: Path, workers: int, quick: bool, fresh: bool = False
) -> dict[str, Answer]:
    """Run all jobs of these questions, and answer each question once its last job is done."""
    modules = {name: importlib.import_module(f"benchmarks.study.{name}") for name in names}
    wanted = {name: module.jobs(quick) for name, module in modules.items()}
    labels = {
        job.key(): f"{name}: {arm}" for name in reversed(names) for arm, job in wanted[name].items()
    }
    results: dict[str, Result] = {}
    answers: dict[str, Answer] = {}
    begin = time.perf_counter()
    prepare(quick)
    every = [job for name in names for job in wanted[name].values()]
    for job, result in run_jobs(every, out / "kept", workers, fresh):
        results[job.key()] = result
        note = "kept" if result.stored else f"{result.seconds:.0f} s of CPU"
        note += ", of other sources: --fresh makes it anew" if result.source != sources() else ""
        elapsed = time.perf_counter() - begin
        sys.stderr.write(
            f"[{elapsed / 60:5.1f} min] {len(results)}/{len(labels)} {labels[job.key()]} ({note})\n"
        )
        for name in names:
            done = {arm: results.get(part.key()) for arm, part in wanted[name].items()}
            if name not in answers and all(done.values()):
                found = {arm: part for arm, part in done.items() if part is not None}
                answers[name] = _answered(name, modules[name], found, out, quick)
    return answers


def _answered(name: str, module: Any, found: dict[str, Result], out: Path, quick: bool) -> Answer:
    """The answer, written to the folder and to standard output."""
    answer: Answer = module.answer({arm: result.value for arm, result in found.items()})
    seconds = sum(result.seconds for result in found.values())
    page = markdown(name, module.QUESTION, answer, seconds, quick)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    body = {
        "question": module.QUESTION,
        "quick": quick,
        "seconds": seconds,
        "answer": plain(answer),
    }
    body["results"] = {arm: result.value for arm, result in found.items()}
    (out / f"{name}.json").write_text(
        json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    for file, svg in answer.pictures.items():
        (out / file).write_text(svg, encoding="utf-8")
    sys.stdout.write(page + "\n")
    sys.stdout.flush()
    return answer


if __name__ == "__main__":
    sys.exit(main())
