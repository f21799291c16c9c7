"""How often a verdict is wrong: synthetic comparisons with known effects, by measure and number of
test texts.

    python -m benchmarks.verdicts [--each 1000] [--seed 0]

Half of the comparisons have no effect. `gains` or `loses` there is wrong; `no difference` is wrong
where the true effect lies outside ± 1 point (accuracy) or ± 1 % (loss). Accuracy: paired right and
wrong answers with a given share of texts that the two models answer differently. Loss: log-normal
losses of texts, alike in both models, with a factor between them.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tequio.measure.verdicts import SMALLEST, Pairs, judge, loss_ratio, paired_proportions

SIZES = (10, 30, 60, 200, 1000, 5000)
DISCORDANT = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.3,
)  # share of texts that only one of the two models answers right
SPREADS = (
    (0.3, 0.02),
    (0.3, 0.1),
    (1.0, 0.3),
    (1.5, 0.6),
)  # of log losses: between texts, between models
EFFECTS = (0.005, 0.0101, 0.015, 0.03, 0.1, 0.3)  # as a share of texts, or of the loss


@dataclass(frozen=True)
class Comparison:
    """One synthetic comparison: what was true, and what was said."""

    measure: str
    examples: int
    effect: float
    code: str

    @property
    def null(self) -> bool:
        """Whether the two models are equally good."""
        return self.effect == 0.0


def compare_accuracy(
    random: np.random.Generator, n: int, discordant: float, effect: float
) -> Comparison:
    """Draw one test set on which the judged model is right on a share `effect` more of all
    texts.
    """
    discordant = max(discordant, abs(effect))
    better, worse = (discordant + effect) / 2, (discordant - effect) / 2
    agreed = 1.0 - discordant
    pairs = Pairs(
        *(int(x) for x in random.multinomial(n, [0.75 * agreed, better, worse, 0.25 * agreed]))
    )
    return Comparison(
        "accuracy", n, effect, judge(paired_proportions(pairs), n, SMALLEST, pairs).code
    )


def compare_loss(
    random: np.random.Generator, n: int, spread: tuple[float, float], effect: float
) -> Comparison:
    """Draw one test set on which the judged model's losses are lower by a factor e^effect."""
    common = random.normal(0.0, spread[0], n)
    judged, other = (np.exp(common + random.normal(0.0, spread[1], n)) for _ in range(2))
    found = loss_ratio(judged * math.exp(-effect), other)
    return Comparison(
        "loss", n, effect, "too_few" if found is None else judge(found, n, SMALLEST).code
    )


def comparisons(seed: int, each: int) -> Iterator[Comparison]:
    """Make `each` comparisons for each measure and size; half of them without effect."""
    random = np.random.default_rng(seed)
    for n in SIZES:
        for i in range(each):
            effect = 0.0 if i % 2 else float(random.choice(EFFECTS) * random.choice((-1.0, 1.0)))
            yield compare_accuracy(random, n, float(random.choice(DISCORDANT)), effect)
            yield compare_loss(random, n, SPREADS[int(random.integers(len(SPREADS)))], effect)


@dataclass(frozen=True)
class Rates:
    """What was said of some comparisons, and how often wrongly."""

    null: int
    false_gains: int
    false_losses: int
    wrong_side: int  # gains where it lost, or loses where it gained
    no_difference: int
    no_difference_right: int
    codes: Counter[str]

    @classmethod
    def of(cls, found: Sequence[Comparison]) -> Rates:
        """Count them."""
        null = [c for c in found if c.null]
        said = [c for c in found if c.code == "no_difference"]
        sides = [
            c
            for c in found
            if (c.code == "gains" and c.effect < 0) or (c.code == "loses" and c.effect > 0)
        ]
        right = sum(abs(c.effect) <= SMALLEST for c in said)
        gains, losses = (sum(c.code == code for c in null) for code in ("gains", "loses"))
        return cls(
            len(null), gains, losses, len(sides), len(said), right, Counter(c.code for c in found)
        )


def main() -> None:
    """Print the measured rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=1000, help="comparisons per measure and size")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = list(comparisons(options.seed, options.each))
    print(
        "| measure | test texts | null cases | gains, wrongly | loses, wrongly | no difference, "
        "said | of these right |"
    )
    print("|---|---|---|---|---|---|---|")
    for measure in ("accuracy", "loss"):
        mine = [c for c in found if c.measure == measure]
        for n in (*SIZES, None):
            rates = Rates.of([c for c in mine if n in (None, c.examples)])
            right = (
                f"{100 * rates.no_difference_right / rates.no_difference:.1f} %"
                if rates.no_difference
                else "–"
            )
            wrong = [
                f"{100 * count / rates.null:.1f} %"
                for count in (rates.false_gains, rates.false_losses)
            ]
            print(
                f"| {measure} | {n or 'all'} | {rates.null} | {' | '.join(wrong)} | "
                f"{rates.no_difference} | {right} |"
            )


if __name__ == "__main__":
    main()
