"""Jobs of the study: functions by name with JSON arguments, spread over worker processes, their
results kept by content.

A result is one JSON file named after the digest of what was asked; a study that was cut off goes on
where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import tequio
from benchmarks.study.base import VERSION
from tequio.core.canonical import digest_json


@dataclass(frozen=True)
class Job:
    """`call(**arguments)`, whose result is kept as JSON.

    `call` stands at the top of a module; arguments are JSON, dataclasses and
    sections of a configuration."""

    call: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """Digest of function, arguments and the version of the base: what the result depends on,
        the source text aside.
        """
        name = f"{self.call.__module__}:{self.call.__qualname__}"
        return digest_json([name, VERSION, plain(dict(self.arguments), whole=False)])


@dataclass(frozen=True)
class Result:
    """What a job gave, the CPU seconds it took, and the digest of the sources it ran from.

    `kept`: read from its file.
    """

    value: Any
    seconds: float
    source: str
    stored: bool = False


def run_jobs(
    jobs: Sequence[Job], folder: Path, workers: int, fresh: bool = False
) -> Iterator[tuple[Job, Result]]:
    """Yield each different job with its result, as they end: first those that are in `folder`, then
    the others, in order.

    fresh: take nothing from the folder. An error of a job is raised here; results that were made
        before it stay.
    """
    waiting: list[Job] = []
    for job in {job.key(): job for job in jobs}.values():
        stored = None if fresh else read(job, folder)
        if stored is None:
            waiting.append(job)
        else:
            yield job, stored
    if workers == 1:
        _begin()
        for job in waiting:
            yield job, work(job, folder)
    elif waiting:
        yield from _side_by_side(waiting, folder, workers)


def _side_by_side(
    waiting: Sequence[Job], folder: Path, workers: int
) -> Iterator[tuple[Job, Result]]:
    """One process a worker, one thread each."""
    context = multiprocessing.get_context(
        "spawn"
    )  # each loads torch for itself: forked threads would hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        running: dict[Future[Result], Job] = {
            pool.submit(work, job, folder): job for job in waiting
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def work(job: Job, folder: Path) -> Result:
    """Do a job, and keep its result."""
    begin = time.process_time()
    value = plain(job.call(**job.arguments))
    result = Result(value, time.process_time() - begin, sources())
    path = _path(job, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(result), indent=1, allow_nan=False), encoding="utf-8")
    os.replace(part, path)
    return result


def read(job: Job, folder: Path) -> Result | None:
    """The result that was kept, if any."""
    path = _path(job, folder)
    if not path.is_file():
        return None
    return Result(**{**json.loads(path.read_text(encoding="utf-8")), "stored": True})


@lru_cache(maxsize=1)
def sources() -> str:
    """Digest of the sources of Tequio and of the study: tells a result from one of other
    sources.
    """
    total = hashlib.sha256()
    for root in (Path(tequio.__file__).parent, Path(__file__).parent):
        for path in sorted(root.rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _path(job: Job, folder: Path) -> Path:
    return folder / f"{job.call.__module__.rsplit('.', 1)[-1]}-{job.key()[:16]}.json"


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    sources()  # as they are now, not as they will be when a job ends


def plain(value: Any, whole: bool = True) -> Any:
    """As JSON holds it: dataclasses and sections as tables (not whole: without what is as by
    default, so that a new field does not
    make all keys new), tuples as lists, infinity and not-a-number as None."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(exclude_defaults=not whole), whole)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {
            f.name: getattr(value, f.name)
            for f in fields(value)
            if whole or getattr(value, f.name) != f.default
        }
        return plain(parts, whole)
    if isinstance(value, Mapping):
        return {str(key): plain(item, whole) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, whole) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
