"""Apply chat templates in a process of its own, whose time and memory the kernel bounds: a template
is a program of the base's maker.

It is run as a file. Its first line says that it is ready. From then on each line that comes in is
one chat as JSON, and each line that goes out is its text or the template's own error.
"""

import json
import math
import resource
import sys
from typing import Any

# the first line, before any template is applied: what ends this process later has to do with a
# template
READY = "ready\n"
SECONDS = 2  # of the processor, for one chat; a usual template takes less than a thousandth
MEMORY = 1 << 29  # bytes, beyond those of the process itself
LONGEST = 1 << 24  # characters that one chat may become


def main() -> None:
    """Answer until there is no more to read."""
    from transformers.utils.chat_template_utils import render_jinja_template

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        most = _memory() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.stdout.write(READY)
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        _allow(SECONDS)
        sys.stdout.write(json.dumps(_answer(render_jinja_template, json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(render: Any, asked: dict[str, Any]) -> dict[str, str]:
    try:
        found = render(
            conversations=[asked["chat"]], chat_template=asked["template"], **asked["more"]
        )
        text = str(found[0][0] if isinstance(found, tuple) else found[0])
    except MemoryError:
        return {"limit": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except Exception as error:  # a template is a program: any error may come
        first = (str(error).strip().splitlines() or [""])[0]
        return {"error": type(error).__name__, "words": first[:400]}
    if len(text) > LONGEST:
        return {"limit": f"it makes a text of {len(text):,} characters of one chat"}
    return {"text": text}


def _allow(seconds: int) -> None:
    """Let this process use the processor for so many more seconds; then the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + seconds, hard)
    )


def _memory() -> int:
    """Return the size of this process's memory as the limit counts it, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
