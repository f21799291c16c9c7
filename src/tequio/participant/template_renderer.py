"""Write chats by a base's chat template in a process beside this one, which ends where a template
takes too much (`template_child`).

Each process has one such helper. It starts with the first chat, and ends with its owner.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from tequio.participant.template_child import READY, SECONDS

CHILD = Path(__file__).with_name("template_child.py")


class TemplateRefused(Exception):
    """A template's own error: it refuses a chat, or has a fault.

    `kind` is the name of the error's class.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


class TemplateTooCostly(Exception):
    """A template takes more time or memory than any needs, so it was stopped."""


class HelperNotStarted(Exception):
    """The helper process ended before it was ready for a template: the template has nothing to do
    with it.
    """


class _Renderer:
    """The helper process, started when it is first asked."""

    def __init__(self) -> None:
        self._lock, self._owner = Lock(), 0
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return its answer to one chat.

        Raises TemplateTooCostly where the kernel ended it, HelperNotStarted where it did not start.
        """
        line = json.dumps(row).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            answer = b""
            with suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
            if answer.endswith(b"\n"):
                found: dict[str, str] = json.loads(answer)
                return found
            raise TemplateTooCostly(_too_costly(self._stop()))

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the helper; a new one where there is none, or where it is that of the process this
        one was forked from.
        """
        if self._process is None or self._owner != os.getpid():
            self._owner, self._process = os.getpid(), None
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", str(CHILD)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for its owner, which ends it
                )
            except OSError as error:
                raise HelperNotStarted(error.strerror or type(error).__name__) from None
            assert process.stdout is not None
            if process.stdout.readline() != READY.encode():
                raise HelperNotStarted(f"it {_ending(_end(process))}")
            self._process = process
        return self._process

    def _stop(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        return _end(process)

    def close(self) -> None:
        """End it, if it is this process's own."""
        if self._process is not None and self._owner == os.getpid():
            self._stop()


def _end(process: subprocess.Popen[bytes]) -> int:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    return process.wait()


def _too_costly(code: int) -> str:
    if code == -signal.SIGXCPU:
        return f"it takes more than {SECONDS} s of the processor"
    return f"the process that applies it {_ending(code)}"


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with {code}"


_RENDERER = _Renderer()
atexit.register(_RENDERER.close)


def render(template: str, chat: Sequence[Mapping[str, str]], more: Mapping[str, Any]) -> str:
    """Return a chat as the template writes it; more: what the template is given besides.

    Raises TemplateRefused with the template's own words, TemplateTooCostly where it was stopped,
    HelperNotStarted.
    """
    found = _RENDERER.ask({"template": template, "chat": list(chat), "more": dict(more)})
    if "limit" in found:
        raise TemplateTooCostly(found["limit"])
    if "text" not in found:
        raise TemplateRefused(found["error"], found["words"])
    return found["text"]
