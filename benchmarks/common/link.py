"""A slow, long and lossy line between two network namespaces, in user space: two TUN devices and a
process that carries packets.

What `tc netem delay 50ms loss 1% rate 20mbit limit 1000` does on both ends, for kernels without it.
Needs root and /dev/net/tun (Linux).
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from threading import Event, Thread

SET_NAME, TUN, NO_HEADER = 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
LIMIT = 1000  # packets that wait; what comes then is dropped, as a router does


@dataclass(frozen=True)
class Shape:
    """One way: seconds of delay, share of packets lost, bits a second."""

    delay: float = 0.05
    loss: float = 0.01
    rate: float = 20e6

    def __str__(self) -> str:
        return f"{1e3 * self.delay:g} ms each way, {self.loss:.0%} loss, {self.rate / 1e6:g} Mbit/s"


@dataclass
class Way:
    """Packets on their way to one end, with the time at which each arrives."""

    shape: Shape
    end: int
    draw: random.Random
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    free: float = 0.0  # when the line has sent all that it was given

    def take(self, packet: bytes, now: float) -> None:
        """Put a packet on the line, or lose it."""
        if self.draw.random() < self.shape.loss or len(self.waiting) >= LIMIT:
            return
        self.free = max(now, self.free) + 8.0 * len(packet) / self.shape.rate
        self.waiting.append((self.free + self.shape.delay, packet))

    def deliver(self, now: float) -> float:
        """Hand over what has arrived; seconds until the next."""
        while self.waiting and self.waiting[0][0] <= now:
            os.write(self.end, self.waiting.popleft()[1])
        return max(0.0, self.waiting[0][0] - now) if self.waiting else 1.0


def device(name: str, namespace: str) -> int:
    """A TUN device in a namespace; its descriptor stays here."""
    found = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(found, SET_NAME, struct.pack("16sH", name.encode(), TUN | NO_HEADER))
    subprocess.run(["ip", "link", "set", name, "netns", namespace], check=True, capture_output=True)
    return found


def carry(ends: tuple[int, int], shape: Shape, stop: Event, seed: int = 0) -> Thread:
    """Carry packets between two devices until `stop`, in a thread that has begun."""
    ways = {
        a: Way(shape, b, random.Random(2 * seed + k)) for k, (a, b) in enumerate((ends, ends[::-1]))
    }

    def loop() -> None:
        wait = 0.0
        while not stop.is_set():
            for end in select.select(ends, (), (), wait)[0]:
                ways[end].take(os.read(end, 65536), time.monotonic())
            now = time.monotonic()
            wait = min(0.2, *(way.deliver(now) for way in ways.values()))

    thread = Thread(target=loop, daemon=True)
    thread.start()
    return thread
