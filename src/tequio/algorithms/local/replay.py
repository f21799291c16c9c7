"""Replay: a share of every step's loss comes from public text, (1 − s)·own + s·public, against
forgetting (Rolnick et al., arXiv
1811.11682, on experience replay; Ibrahim et al., arXiv 2403.08763, who find 5 % enough where the
shift is weak).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from tequio.algorithms.settings import require
from tequio.core.errors import TrainingError
from tequio.core.protocols import Need, Step
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Replay:
    """Share s, usually 0.05 to 0.2. The centre needs none: its own texts are public."""

    strength: float
    name: str = "replay"
    needs: frozenset[Need] = frozenset({"public"})
    for_centre: bool = False

    def __post_init__(self) -> None:
        require(
            0.0 <= self.strength <= 1.0,
            "terms",
            self.name,
            self.strength,
            "0 ≤ replay ≤ 1",
            "local",
        )

    def added(self, step: Step) -> Tensor:
        """s·(public − own): what turns the own loss into the mixture."""
        if step.public is None or step.truth is None:
            raise refusal(TrainingError, "term-without-text", term=self.name)
        return self.strength * (F.cross_entropy(step.public.float(), step.truth) - step.own)
