"""Each local term and method of the registry, with what it adds at one step that was worked by
hand.
"""

from __future__ import annotations

import math

TERMS = {  # name -> (strength, what it adds at `toy()`; worked by hand)
    # B = [2, 1]ᵀ, A = [3, 1] against B₀ = [1, 1]ᵀ, A₀ = [3, 1]: BA − B₀A₀ = [[3, 1], [0, 0]], head
    # 1 − 3: (10 + 4)·0.5/2
    "fedprox": (0.5, 3.5),
    # p_base = (3/4, 1/4) against (1/2, 1/2): ¾·ln(3/2) + ¼·ln(1/2)
    "kl": (2.0, 2.0 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))),
    "replay": (0.25, 0.25 * (math.log(2.0) - 4.0)),  # loss of (1/2, 1/2) is ln 2; own is 4
    # G = [1, 0]ᵀ[1, 2], head 5: ⟨G, BA⟩ = 2·(3·1 + 1·2) = 10, 5·1 for the head
    "transfer": (0.1, 0.1 * 15.0),
}


METHODS: dict[str, dict[str, float]] = {"plain": {}, "fomaml": {"inner_rate": 0.1}}
