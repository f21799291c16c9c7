"""What does a secure sum cost? Processor seconds of both sides over those of the plain float32 sum
of the same vectors, and bytes sent.

Each case is measured in pairs in one process, the plain sum before and after; signatures are
checked by each member, as on a network. Run: python -m benchmarks.secure_sum [--values 300000]
[--pairs 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tequio.cli.environment import prepare_process

prepare_process()

import hashlib

import numpy as np

from tequio.trust.keys import new_key, public_bytes
from tequio.trust.secure_sum import directory as directories
from tequio.trust.secure_sum.agreement import Context, Layout, Policy
from tequio.trust.secure_sum.coordinator import Collector
from tequio.trust.secure_sum.participant import Member, Vector

CASES = ((20, 0.0), (20, 0.1), (100, 0.0), (100, 0.3))
REQUEST = hashlib.sha256(b"a request").digest()


@dataclass
class Clock:
    """Processor seconds by who spent them."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, who: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[who] = self.seconds.get(who, 0.0) + time.process_time() - begin


def plain_seconds(vectors: np.ndarray, count: int) -> float:
    """Return the processor seconds of adding `count` float32 vectors up one after another."""
    begin = time.process_time()
    total = np.zeros(vectors.shape[1], np.float32)
    for number in range(count):
        total += vectors[number % len(vectors)]
    return time.process_time() - begin


def _made(values: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    return values, {"weight": 1.0}


def secure(
    context: Context, members: dict[int, Member], vectors: np.ndarray, lost: int
) -> tuple[Clock, int]:
    """Run one sum; (processor seconds, bytes that one member sends)."""
    clock, collector = Clock(), Collector(context, REQUEST)
    with clock("members"):
        announced = {i: m.announce(context) for i, m in members.items()}
    directories._is_signed.cache_clear()
    with clock("coordinator"):
        directory = collector.directory(announced)
    outboxes = {}
    for i, m in members.items():
        directories._is_signed.cache_clear()
        with clock("members"):
            outboxes[i] = m.share(context, directory)
    with clock("coordinator"):
        inboxes = collector.inboxes(outboxes)
    sent = 0
    for i, m in members.items():
        made: Vector = partial(_made, vectors[i % len(vectors)])
        with clock("members"):
            vector = m.mask(context, REQUEST, inboxes[i], made)
        if i > lost:
            with clock("coordinator"):
                collector.receive(i, vector)
    survivors = frozenset(collector.close())
    for i in survivors:
        with clock("members"):
            opened = members[i].unmask(context, survivors)
        with clock("coordinator"):
            collector.answer(i, opened)
        sent = len(announced[i]) + len(outboxes[i]) + len(vector) + len(opened)
    with clock("coordinator"):
        result = collector.open()
    plain = sum(np.clip(vectors[i % len(vectors)].astype(np.float64), -1, 1) for i in survivors)
    assert np.abs(result.values - plain).max() < 1e-4, "the sum is wrong"
    return clock, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=300_000)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    vectors = rng.normal(0.0, 0.1, (20, arguments.values)).astype(np.float32)
    keys = {index: new_key() for index in range(1, 101)}
    print(
        "members, dropouts: seconds of a member, of the coordinator; over the plain sum; upload "
        "over plain float32"
    )
    for count, share in CASES:
        lost = round(count * share)
        policy = Policy({index: public_bytes(keys[index]) for index in range(1, count + 1)})
        layout = Layout((arguments.values,), dict.fromkeys(policy.members, 1), 1.0, {"weight": 1.0})
        members = {index: Member(index, keys[index]) for index in policy.members}
        rows = []
        for pair in range(arguments.pairs):
            context = Context("run", "f" * 64, "0" * 64, "train", pair + 1, 1, policy, layout)
            before = plain_seconds(vectors, count - lost)
            clock, sent = secure(context, members, vectors, lost)
            plain = (before + plain_seconds(vectors, count - lost)) / 2
            mine, hub = clock.seconds["members"] / count, clock.seconds["coordinator"]
            rows.append((mine, hub, mine / plain, hub / plain, sent / (4 * arguments.values)))
        mine, hub, ratio, hub_ratio, upload = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(
            f"{count:4} {share:4.0%}: {mine:.4f} s, {hub:.3f} s; member {ratio:.1f} x, coordinator "
            f"{hub_ratio:.0f} x; upload {upload:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
