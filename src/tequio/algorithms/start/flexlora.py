"""FlexLoRA (Bai et al., arXiv 2402.11505): go on with the best factors of the shared model, and
with nothing else.

G = Σ wᵢBᵢAᵢ / Σ wᵢ, and a participant of rank r starts from P_r(G), its truncated SVD. What P_r
leaves out it does not see, so participants of unequal ranks start from different functions; in our
trials that trained worse than `fedex`, and could diverge.
"""

from dataclasses import dataclass

from tequio.algorithms.start._balanced import balanced
from tequio.core.update import Update, is_matrix


@dataclass(frozen=True)
class FlexLoRA:
    """Held: the heads. Continued: P_r(G)."""

    name: str = "flexlora"
    continues: bool = True
    truncates: bool = True

    def begin(self, shared: Update, rank: int) -> tuple[Update, Update]:
        """(heads, P_r(G)); the sum lacks G − P_r(G)."""
        heads = {
            name: entry for name, entry in shared.entries.items() if not is_matrix(name, entry)
        }
        return Update(heads, shared.spec), balanced(shared, rank)
