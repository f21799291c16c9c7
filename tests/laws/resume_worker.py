"""A process that has everything imported and forks one run after another, so that a run that is to
be killed starts at once.

Reads a line a run, JSON of path, out, mode, kill_at, workers and log; answers with the child's
number, and with its status once it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from tequio.app.simulation.run import resume, start
from tequio.app.stages import speed_free
from tequio.config import load_federation


def run(path: str, out: str, mode: str, kill_at: int, workers: int) -> None:
    """Say each stage, and die at the kill_at-th."""
    torch.set_num_threads(1)
    said = 0

    def watch(stage: str, what: str, done: int, of: int) -> None:
        nonlocal said
        said += 1
        print(said, stage, flush=True)
        if said == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if mode == "resume":
        outcome = resume(Path(out), watch, workers)
    else:
        config = load_federation(Path(path))
        outcome = start(config, Path(out), not config.bases, watch=watch, workers=workers)
    print(json.dumps(speed_free(dict(outcome.end))), flush=True)


def child(log: str, **run_: Any) -> None:
    """In the forked process: its words go to `log`."""
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(words, 1)
    os.dup2(words, 2)
    status = 1
    try:
        run(**run_)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    for name in (
        "modeling_bert",
        "tokenization_bert",
    ):  # what runs import when they load a base: once, before they fork
        importlib.import_module(f"transformers.models.bert.{name}")
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(**wanted)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
