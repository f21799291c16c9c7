"""Messages one after the other in a temporary file: a sequence of bytes of which only one is in
memory at a time.

An update of full weights is as large as the model. It is spooled rather than handed on as it is
made, because it is read twice: admission must have seen all of it, and its norm must be known,
before any of it is added up.
"""

import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import overload


class Spool(Sequence[bytes]):
    """`append` writes, indexing reads.

    The file has no name on disk, and is gone when nobody refers to it.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this object lives)
        self._ends = [0]
        weakref.finalize(self, self._file.close)

    def append(self, message: bytes) -> None:
        """Add a message at the end."""
        self._file.write(message)
        self._ends.append(self._ends[-1] + len(message))

    @property
    def nbytes(self) -> int:
        """Of all messages."""
        return self._ends[-1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        self._file.flush()
        start, end = self._ends[index % len(self)], self._ends[index % len(self) + 1]
        out = bytearray(end - start)
        view, done = memoryview(out), 0
        while done < len(out):
            done += os.preadv(self._file.fileno(), [view[done:]], start + done)
        return bytes(out)
