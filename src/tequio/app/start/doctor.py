"""Check a machine for what Tequio needs (`tequio doctor`). torch comes last, in a process of
its own.
"""

import importlib.metadata
import importlib.util
import json
import locale
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

import tequio
from tequio.config.cache import cache_folder

GIB = 2**30
DISK = (0.2, 2.0)  # GiB free: below the first a check fails, below the second it warns
MEMORY = (0.7, 2.0)
EXTRAS = {
    "gguf": "gguf",
    "parquet": "pyarrow",
    "xlsx": "openpyxl",
    "flower": "flwr",
    "gpu": "pynvml",
}
NEEDED = (
    "transformers",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
    "numpy",
    "psutil",
    "zstandard",
)
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
PROBE = """
import json, torch
a = torch.ones(8, 8) @ torch.ones(8, 8)
assert float(a[0, 0]) == 8.0
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "cards": names,
                  "capability": torch.backends.cpu.get_cpu_capability(), "cuda": torch.version.cuda}))
"""
Status = Literal["ok", "warning", "fail"]


@dataclass(frozen=True)
class Check:
    """Hold one line: what was checked, how it stands, what was found, and what to do."""

    name: str
    status: Status
    found: str
    remedy: str = ""

    def facts(self) -> dict[str, str]:
        """Return it as plain values."""
        return asdict(self)


def examine(folder: Path, python: str = sys.executable) -> Iterator[Check]:
    """Yield every check. folder: where runs would be written; python: the one whose torch is
    tried.
    """
    parts: tuple[Callable[[], Check], ...] = (
        check_python,
        check_packages,
        check_extras,
        check_text,
        check_clock,
        check_cores,
        check_memory,
        lambda: check_folder("folder", folder, "Change to a folder of your own."),
        lambda: check_folder("cache", cache_folder(), "Set TEQUIO_CACHE to a folder of your own."),
        check_proxy,
        check_ports,
    )
    for part in parts:
        yield part()
    yield from check_torch(python)


def check_python() -> Check:
    """Say which Python and which Tequio run (an older Python than 3.11 cannot install it)."""
    found = (
        f"Python {platform.python_version()}, Tequio {tequio.__version__}, "
        f"{platform.system()} {platform.machine()}"
    )
    return Check("python", "ok", found)


def check_packages() -> Check:
    """Check that the packages that Tequio needs are installed."""
    missing = []
    for name in NEEDED:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "packages",
            "fail",
            f"not installed: {', '.join(missing)}",
            "Install Tequio again with pip.",
        )
    return Check(
        "packages",
        "ok",
        f"transformers {importlib.metadata.version('transformers')}, and all others",
    )


def check_extras() -> Check:
    """Say which extras are installed."""
    present = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module)]
    missing = [name for name in EXTRAS if name not in present]
    found = f"installed: {', '.join(present) or 'none'}"
    if not missing:
        return Check("extras", "ok", found)
    more = f"; not installed: {', '.join(missing)}"
    return Check(
        "extras", "ok", found + more, f'If you need one: pip install "tequio[{missing[0]}]"'
    )


def check_text() -> Check:
    """Check that the terminal shows accents and other signs."""
    encoding = (getattr(sys.stdout, "encoding", None) or locale.getpreferredencoding(False)).lower()
    if encoding.replace("-", "") != "utf8":
        return Check(
            "terminal",
            "warning",
            f"writes {encoding}, not UTF-8",
            "Set LANG=C.UTF-8 or PYTHONUTF8=1.",
        )
    return Check("terminal", "ok", "UTF-8")


def check_clock(now: float | None = None) -> Check:
    """Check that the clock is not before the package's files; more cannot be known without a
    network.
    """
    now = time.time() if now is None else now
    written = Path(tequio.__file__).stat().st_mtime
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < written - 86_400:
        why = f"{shown}, before Tequio's own files were written"
        return Check(
            "clock", "fail", why, "Set the clock: with a wrong one certificates are not valid."
        )
    return Check(
        "clock",
        "ok",
        f"{shown}; compare it with another clock, for an offset cannot be seen from here",
    )


def check_cores(root: Path = Path("/sys/fs/cgroup")) -> Check:
    """Say how many cores may be used, and whether something holds threads down."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    found = f"{cores} of {os.cpu_count() or cores} cores"
    quota = _quota(root)
    if quota is not None and quota < cores:
        what = f"{found}; the container may use {quota:g} of them"
        return Check(
            "cores",
            "warning",
            what,
            f"Run with --threads {max(1, int(quota))}, or raise the limit.",
        )
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) < cores:
        return Check(
            "cores",
            "warning",
            f"{found}; OMP_NUM_THREADS={asked}",
            "Unset OMP_NUM_THREADS to use all.",
        )
    return Check("cores", "ok", found)


def _quota(root: Path) -> float | None:
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def check_memory() -> Check:
    """Check the memory that a new process may use."""
    from tequio.planning.memory import available_bytes, installed_bytes

    free, installed = available_bytes(None) / GIB, installed_bytes() / GIB
    total = psutil.virtual_memory().total / GIB
    limit = (
        f" (the container's limit; the machine has {total:.1f})" if installed < 0.99 * total else ""
    )
    found = f"{free:.1f} GiB free of {installed:.1f} GiB{limit}"
    return Check(
        "memory",
        *_level(free, MEMORY, found, "Close other programs, or raise the container's limit."),
    )


def _level(
    value: float, limits: tuple[float, float], found: str, remedy: str
) -> tuple[Status, str, str]:
    if value < limits[0]:
        return "fail", found, remedy
    return ("warning", found, remedy) if value < limits[1] else ("ok", found, "")


def check_folder(name: str, folder: Path, remedy: str) -> Check:
    """Check that a folder can be written, and the disk on which it lies."""
    place = folder.expanduser()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free / GIB
    except OSError as error:
        return Check(name, "fail", f"{folder} cannot be written ({error.strerror})", remedy)
    found = f"{folder} can be written; {free:.1f} GiB free"
    return Check(name, *_level(free, DISK, found, f"Free some space on that disk. {remedy}"))


def check_proxy() -> Check:
    """Say whether a proxy stands between this machine and others, without its password."""
    named = {
        name: value
        for name in PROXIES
        if (value := os.environ.get(name) or os.environ.get(name.lower()))
    }
    if not named:
        return Check("proxy", "ok", "none is set")
    shown = ", ".join(f"{name} = {_host(value)}" for name, value in named.items())
    without = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    remedy = "If the coordinator is inside your network, add its name to NO_PROXY."
    return Check(
        "proxy", "warning", f"{shown}; NO_PROXY is {'set' if without else 'not set'}", remedy
    )


def _host(address: str) -> str:
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        return f"{parts.hostname or 'unreadable'}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "unreadable"


def check_ports() -> Check:
    """Check that a program can listen on this machine, as a coordinator does."""
    try:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(5)
            client.connect(server.getsockname())
    except OSError as error:
        remedy = (
            "A federation on this machine alone works; to join others, allow connections to "
            "127.0.0.1."
        )
        return Check(
            "ports", "fail", f"127.0.0.1 cannot be reached ({error.strerror or error})", remedy
        )
    return Check("ports", "ok", "a program can listen on 127.0.0.1")


def check_torch(python: str) -> Iterator[Check]:
    """Try torch in a process of its own, so that a broken one costs one line."""
    remedy = (
        "Install it again: pip install --force-reinstall torch (pytorch.org names the build "
        "for your machine)."
    )
    try:
        done = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, timeout=300, check=False
        )
        found: dict[str, Any] = (
            json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
        )
    except subprocess.TimeoutExpired:
        yield Check("torch", "fail", "it did not answer within 5 min", remedy)
        return
    except (OSError, ValueError, IndexError) as error:
        yield Check("torch", "fail", f"it could not be tried ({type(error).__name__})", remedy)
        return
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        why = lines[-1][:200] if lines else f"the process ended with {done.returncode}"
        yield Check("torch", "fail", f"it cannot be used ({why})", remedy)
        return
    flags = _cpu_flags()
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    what = f"torch {found['version']}, {found['threads']} threads; CPU: {found['capability']}"
    what += f" ({', '.join(fast)})" if fast else ""
    slow = platform.machine() in ("x86_64", "AMD64") and flags and not fast
    hint = "This CPU is slow at training: choose a small base."
    yield Check("torch", "warning" if slow else "ok", what, hint if slow else "")
    yield _card(found)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())


def _card(found: dict[str, Any]) -> Check:
    if found["cards"]:
        return Check("gpu", "ok", ", ".join(found["cards"]))
    if any(Path("/dev").glob("nvidia[0-9]*")):
        build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
        remedy = "Install a torch built for CUDA, and a driver that fits it."
        return Check("gpu", "warning", f"there is one, and torch ({build}) cannot use it", remedy)
    return Check("gpu", "ok", "none; training runs on the CPU")
