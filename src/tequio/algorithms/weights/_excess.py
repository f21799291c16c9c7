"""What the weightings by need (q-FFL, TERM) go by: how badly the shared model serves a participant,
relative to the base.
"""

from tequio.core.protocols import Facts

LIMIT = 10.0


def need(facts: Facts) -> float:
    """The excess loss; 1 (as bad as the base) where it is not known.

    Above 10 it counts as 10: a participant states it itself.
    """
    return min(facts.excess, LIMIT) if facts.excess > 0.0 else 1.0
