"""The coordinator's memory does not grow with the number of full-weight updates."""

from __future__ import annotations

from benchmarks.scale import measured_separately


def test_streamed_updates_are_added_up_in_the_memory_of_one() -> None:
    """40 MiB in entries of 1 MiB from 5, the first last: the sum is 1, an entry 1/40; the rest,
    under 1, is not tensors.

    Whole updates that wait for the first are 4, and the sum comes on top.
    """
    streamed = measured_separately(40, 5, "streamed", "last")
    assert streamed["folded"] == 5
    assert streamed["ratio"] <= 2.0
    assert measured_separately(40, 5, "whole", "last")["ratio"] >= 5.0
