"""File descriptors of this process: how many it may have, and raising that number as far as the
system lets us.

Connections, the ledger and SuperLink's files share them. A process that has none left can open no
file, so strangers must not be able to use them up.
"""

from contextlib import suppress

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

MOST = 65_536  # the limit is raised to this at most: some programs close every possible descriptor
UNKNOWN = 1024  # where the system names no limit


def descriptor_limit() -> int:
    """Return how many descriptors this process may have now."""
    if resource is None:
        return UNKNOWN
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else int(soft)


def raise_descriptor_limit(most: int = MOST) -> int:
    """Raise the soft limit to the hard one, at most to `most`, and never lower it.

    Processes that are started afterwards inherit it.

    Returns: the limit from now on.
    """
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):  # a system may allow less than it says
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()
