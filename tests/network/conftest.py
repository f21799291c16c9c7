"""What tests across a network share: a coordinator that listens, one per test file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from live_server import Live


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A real server and gateway, up until the file's last test ends."""
    from live_server import live  # needs Flower, which each file skips without

    with live(tmp_path_factory.mktemp("live") / "hub") as found:
        yield found
