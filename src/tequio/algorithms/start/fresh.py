"""Restart (FLoRA, Wang et al., arXiv 2409.05976): fresh factors, A random and B = 0, over the whole
shared model.
"""

from dataclasses import dataclass

from tequio.core.update import Update


@dataclass(frozen=True)
class Fresh:
    """Held: all of G. Nothing is continued."""

    name: str = "fresh"
    continues: bool = False
    truncates: bool = False

    def begin(self, shared: Update, rank: int) -> tuple[Update, None]:
        """(G, None), whatever the rank."""
        return shared, None
