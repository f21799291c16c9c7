"""FedAdam (Reddi et al., arXiv 2003.00295): m ← β₁m + (1−β₁)Δ, v ← β₂v + (1−β₂)Δ², step = η·m/(√v +
τ); no bias correction.

For many rounds and layout factors; `moments.py` says what it costs with layout product.
"""

from dataclasses import dataclass

from torch import Tensor

from tequio.algorithms.server._moments import moments
from tequio.algorithms.settings import require
from tequio.core.update import Dense, Entry, Update, zero


@dataclass(frozen=True)
class Adam:
    """Learning rate η, decay β₁ and β₂ of the moments, and τ, the degree of adaptivity (smaller
    adapts more).
    """

    learning_rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    name: str = "adam"

    def __post_init__(self) -> None:
        require(0.0 <= self.beta1 < 1.0, self.name, "beta1", self.beta1, "0 ≤ beta1 < 1")
        require(0.0 <= self.beta2 <= 1.0, self.name, "beta2", self.beta2, "0 ≤ beta2 ≤ 1")
        require(self.tau >= 1e-15, self.name, "tau", self.tau, "tau ≥ 1e-15")

    def init(self, spec: str) -> Update:
        """m = 0, v = τ²."""
        return zero(spec)

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """(moments, dense step). Raises UpdateError if the two belong to different layouts."""
        memory: dict[str, Entry] = {}
        step: dict[str, Entry] = {}
        for name, (m, v, delta) in moments(momentum, change, self.tau**2).items():
            m = self.beta1 * m + (1.0 - self.beta1) * delta
            v = self.second(v, delta.square())
            memory[f"m/{name}"], memory[f"v/{name}"] = Dense(m), Dense(v)
            step[name] = Dense(self.learning_rate * m / (v.sqrt() + self.tau))
        return Update(memory, momentum.spec), Update(step, momentum.spec)

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after a change whose square is `square`."""
        return self.beta2 * v + (1.0 - self.beta2) * square
