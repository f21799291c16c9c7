"""A participant's memory of what its coded uploads left out (error feedback), one a round, in its
own folder.

The coordinator is told nothing of it: it is part of a participant's update, and bytes that nobody
needs. But only the coordinator knows which updates came into the shared model. So each training
task says after which round the memory counts (`memory_round`), and the memory of a round is written
beside the older ones, not over them. A process killed between training and commit, an update that
is lost or refused,
a round that the gate rejects: the next task names the older round again, and what was sent in vain
    is sent again.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field

from tequio.core.canonical import pack, unpack
from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder


@dataclass(frozen=True)
class Residual:
    """Memories by round: files `under`/memory-ROUND.safetensors of `folder`, or kept in this object
    where there is no folder.

    since: of rounds up to this one there is none: a participant that lost its folder began anew
        after it.
    """

    folder: RunFolder | None = None
    under: str = ""
    saved: MutableMapping[int, Update] = field(default_factory=dict)
    since: int = 0

    def load(self, round_: int, spec: str, who: str) -> Update:
        """The memory after round `round_`; nothing up to round `since`.

        Raises UpdateError if it is gone or damaged.
        """
        if round_ <= self.since:
            return zero(spec)
        if self.folder is None and round_ in self.saved:
            return self.saved[round_]
        if self.folder is None:
            raise refusal(UpdateError, "residual-lost", who=who, round=round_)
        path = self.folder.path / self._file(round_)
        try:
            return unpack(path.read_bytes(), str(path))
        except OSError:
            raise refusal(UpdateError, "residual-lost", who=who, round=round_) from None

    def save(self, round_: int, memory: Update, since: int) -> None:
        """Keep the memory after `round_`, and forget those before `since`, the round that
        counts now.
        """
        if self.folder is None:
            self.saved[round_] = memory
            for old in [r for r in self.saved if r < since]:
                del self.saved[old]
            return
        self.folder.write_atomic(self._file(round_), pack(memory))
        for path in (self.folder.path / self.under).glob("memory-*.safetensors"):
            number = path.stem.removeprefix("memory-")
            if number.isdecimal() and int(number) < since:
                path.unlink(missing_ok=True)

    def _file(self, round_: int) -> str:
        return f"{self.under}/memory-{round_}.safetensors"
