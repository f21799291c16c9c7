"""Seeds: every random stream has its own, derived from the run's seed and what the stream is
for.
"""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`; streams of different purposes or participants never coincide by
    construction.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
