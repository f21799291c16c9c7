"""The learning rate of a round, as federation.toml says it: the coordinator asks for it, and a
participant compares.
"""


def round_rate(
    round_: int, rounds: int, centre_first: int, learning_rate: float, final_rate: float
) -> float:
    """Return the local learning rate of round 1…rounds: it falls linearly to `final_rate` times
    itself.

    Args:
        round_: the round, from 1.
        rounds: rounds in all.
        centre_first: rounds that the centre trains alone at the beginning; the rate then begins
            again.
        learning_rate: that of the first round.
        final_rate: the share of it in the last round.
    """
    begun, among = (
        (0, centre_first) if 0 < round_ <= centre_first else (centre_first, rounds - centre_first)
    )
    done = min(1.0, (round_ - begun - 1) / max(1, among - 1))
    return learning_rate * (1.0 + (final_rate - 1.0) * done)
