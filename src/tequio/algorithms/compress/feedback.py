"""Error feedback: what a codec dropped is sent later (Seide et al. 2014;

Karimireddy et al., arXiv 1901.09847; with decay β SparseLoCo,
arXiv 2508.15706): t = β·memory + update, send code(t), memory' = t − decode(sent). With β = 1, Σ
sent + memory = Σ updates.

Only for dense coordinates that mean the same in every round: re-drawn factors would mix errors of
different subspaces. The codec must shrink errors (relative error under 1), or the memory grows.
"""

from tequio.algorithms.compress.codec import LIMIT, Codec
from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Entry, Update, plain


def step(
    memory: Update, update: Update, codec: Codec, seed: int, decay: float = 1.0
) -> tuple[bytes, Update]:
    """(bytes to send, new memory). Start with `zero(spec)`.

    Entries of the memory that this round does not send stay as they are; exactly sent ones leave
    it. Raises UpdateError if an entry is factored, or the two have other shapes or layouts.
    """
    for name, entry in update.entries.items():
        if not isinstance(entry, Dense):
            raise refusal(UpdateError, "feedback-of-factors", entry=name)
    due = Update(
        {name: entry for name, entry in memory.entries.items() if name in update.entries},
        memory.spec,
    )
    wanted = update.plus(due.scaled(decay))
    sent = codec.encode(wanted, seed)
    arrived = codec.decode(sent, "the update just coded", max(LIMIT, 2 * wanted.nbytes()))
    left: dict[str, Entry] = {n: e for n, e in memory.entries.items() if n not in update.entries}
    missed = wanted.minus(arrived)
    left.update({name: entry for name, entry in missed.entries.items() if bool(plain(entry).any())})
    return sent, Update(left, update.spec)
