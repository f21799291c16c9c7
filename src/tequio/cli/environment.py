"""Settings of the process that must be made before torch is loaded: how its threads wait, and how
much it keeps for later.
"""

import os
import tempfile
from pathlib import Path
from types import MappingProxyType

from tequio.runtimes.flower.proxies import keep_loopback_direct

DEFAULTS = MappingProxyType(
    {
        # Threads that wait: asleep at once, waking them takes a third of a small step; spinning for
        # milliseconds, as is the
        # default, takes many times the work on a busy machine. A thousand turns, a few
        # microseconds, is good on both.
        "GOMP_SPINCOUNT": "1000",
        # Torch's own cache of prepared operations: texts have many lengths, so the default of 1024
        # only fills memory.
        # How many matrix products oneDNN keeps depends on the task:
        # `participant.base.keep_products` sets it.
        "LRU_CACHE_CAPACITY": "16",
    }
)


def prepare_process() -> None:
    """Set what the environment does not set already. Without effect once torch is loaded.

    What is made can be changed by its owner only where the umask would let anybody change it (000,
    for instance). Connections to this machine itself go through no proxy; without a home folder,
    what can be fetched again goes to the temporary one.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    before = os.umask(0o077)
    os.umask(before if before & 0o002 else before | 0o022)
    keep_loopback_direct()
    if not _has_home():
        os.environ["HOME"] = tempfile.gettempdir()


def _has_home() -> bool:
    try:
        return Path.home().is_absolute()
    except (RuntimeError, KeyError):
        return False
