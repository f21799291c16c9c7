"""The packages that only the study's worlds need: pinned wheels, and files of Debian packages."""

from __future__ import annotations

from pathlib import Path

from tequio.app.demos import fetch
from tequio.app.demos.fetch import Package

NESTOR = Package(
    "nist-nestor",
    "0.4.4",
    "nist_nestor-0.4.4-py3-none-any.whl",
    "63fd73ae2f5bbcc72fb43d2ab4f56c826c6fb42166557c5ff6ecce18ac80e1fa",
)
ICD = Package(
    "simple-icd-10-cm",
    "1.5.0",
    "simple_icd_10_cm-1.5.0-py3-none-any.whl",
    "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42",
)


def wheel_text(package: Package, member: str, cache: Path) -> str:
    """Return one text file of a pinned wheel, which is fetched once.

    DataError when it cannot be had.
    """
    wheel = fetch.download_wheel(package, cache)
    target = cache / "unpacked" / f"{package.name}-{package.version}-{Path(member).name}"
    return fetch.unpack_member(wheel, member, target).read_text(encoding="utf-8")
