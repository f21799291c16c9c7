"""Bytes and characters of a file: compression by content, and the encoding by looking at all of
it.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from tequio.core.errors import DataError
from tequio.core.files import open_regular
from tequio.core.texts.words import refusal

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHUNK = 1 << 16
MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # Windows-1252 has no such characters
RUN = re.compile(rb"[\x80-\xff]{4,}")
# of Windows-1252
SIGNS = rb"\x80-\x89\x8b\x91\x93-\x95\x98\x99\x9b\xa1-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf"
INSIDE = re.compile(rb"(?<=[A-Za-z])[" + SIGNS + rb"](?=[a-z])")


@dataclass(frozen=True)
class Source:
    """Name one file and the person who reads it, for messages."""

    path: Path
    who: str

    def at(self, where: str = "") -> str:
        """Return whose file it is, with a place in it, as errors name it."""
        return f"{self.who} {self.path}{f', {where}' if where else ''}"


@dataclass(frozen=True)
class Text:
    """Say how the bytes of a file become characters."""

    source: Source
    compression: str
    encoding: str
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the lines with their ends (LF, CRLF or CR), without a byte-order mark."""
        with self.open() as stream:
            yield from _unmarked(stream)

    def chunks(self) -> Iterator[str]:
        """Yield the characters in pieces, without a byte-order mark."""
        with self.open() as stream:
            yield from _unmarked(iter(lambda: stream.read(CHUNK), ""))

    @contextmanager
    def open(self) -> Iterator[io.TextIOWrapper]:
        """Open the file as characters; line ends stay as they are."""
        with readable(self.source) as binary:
            yield io.TextIOWrapper(binary, encoding=self.encoding, newline="")


def _unmarked(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces of a text, the first one without a byte-order mark."""
    for number, piece in enumerate(pieces):
        yield piece if number else piece.removeprefix("\ufeff")


class _Zstd(io.RawIOBase):
    """Read Zstandard frames; unlike the library's reader it notices a file that was cut off."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._rest, self._ready = raw, b"", b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with the next bytes. Raises EOFError inside a frame that does not end."""
        target = memoryview(cast(bytearray, buffer))
        while not self._ready:
            piece = self._rest or self._raw.read(4096)
            self._rest = b""
            if not piece:
                if self._inside:
                    raise EOFError
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(piece)
            self._rest, self._inside = self._frame.unused_data, not self._frame.eof
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def compression_of(head: bytes) -> str:
    """Return the compression that the first bytes of a file show; empty if none."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


@contextmanager
def readable(source: Source) -> Iterator[io.BufferedReader]:
    """Open a file as bytes, uncompressed.

    Raises DataError where it cannot be read or is damaged.
    """
    kind = ""
    try:
        with open_regular(source.path) as raw:
            kind = compression_of(raw.read(8))
            raw.seek(0)
            unpacked = UNPACKED[kind](raw) if kind else raw
            yield io.BufferedReader(cast(io.RawIOBase, unpacked), CHUNK)
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile):
        raise refusal(DataError, "file-cut-off", file=source.at(), format=kind) from None
    except UnicodeError as error:
        name = error.encoding if isinstance(error, UnicodeDecodeError) else "the given encoding"
        raise refusal(
            DataError, "file-of-other-encoding", file=source.at(), encoding=name
        ) from None
    except OSError as error:
        if kind and error.errno is None:
            raise refusal(DataError, "file-cut-off", file=source.at(), format=kind) from None
        raise refusal(DataError, "unreadable", path=source.at(), error=error.strerror) from None


UNPACKED: Mapping[str, Callable[[BinaryIO], object]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "zstd": _Zstd,
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


def text_of(source: Source, given: str | None = None) -> Text:
    """Find out how a file's bytes become characters, by reading it once. Raises DataError."""
    with open_regular(source.path) as raw:
        kind = compression_of(raw.read(8))
    if given is not None:
        return Text(source, kind, given)
    with readable(source) as stream:
        head = stream.read(CHUNK)
        encoding = next((name for bom, name in BOMS if head.startswith(bom)), "") or _utf16(head)
        if encoding and encoding != "utf-8":
            _check(source, stream, head, encoding)
            return Text(source, kind, encoding)
        return _utf8_or_western(source, kind, stream, head)


def _utf16(head: bytes) -> str:
    """Return UTF-16's name where every other byte is zero in most places, as for Latin letters."""
    pairs = len(head[:4096]) // 2
    low, high = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if pairs >= 4 and high > 0.4 * pairs and low * 20 < high:
        return "utf-16-le"
    if pairs >= 4 and low > 0.4 * pairs and high * 20 < low:
        return "utf-16-be"
    return ""


def _check(source: Source, stream: io.BufferedReader, head: bytes, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        piece = head
        while piece:
            decoder.decode(piece)
            piece = stream.read(CHUNK)
        decoder.decode(b"", True)
    except UnicodeError:
        raise refusal(
            DataError, "encoding-damaged", file=source.at(), encoding=encoding.upper()
        ) from None


def _utf8_or_western(source: Source, kind: str, stream: io.BufferedReader, head: bytes) -> Text:
    """Return UTF-8 where all of the file is; else Windows-1252 where it looks like that."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8, western, line = True, _Western(), 1
    piece = head
    while True:
        if b"\0" in piece:
            number = line + piece.count(b"\n", 0, piece.index(b"\0"))
            raise refusal(DataError, "nul-byte", file=source.at(f"line {number}"))
        if utf8:
            try:
                decoder.decode(piece, not piece)
            except UnicodeDecodeError:
                utf8 = False
        if not piece:
            break
        if not piece.isascii():
            western.add(piece)
        line += piece.count(b"\n")
        piece = stream.read(CHUNK)
    if utf8:
        return Text(source, kind, "utf-8")
    if western.plausible():
        note = (
            "The file is not UTF-8; it was read as Windows-1252. If letters are wrong, name "
            "its encoding."
        )
        return Text(source, kind, "cp1252", (note,))
    number, byte = _first_fault(source)
    raise refusal(DataError, "not-utf-8", file=source.at(), line=number, byte=byte)


@dataclass
class _Western:
    """Count what tells Windows-1252 from damaged UTF-8 and from other encodings."""

    high: int = 0
    multibyte: int = 0
    in_runs: int = 0
    inside_words: int = 0
    undefined: bool = False

    def add(self, piece: bytes) -> None:
        """Count in one piece of the file."""
        self.high += len(piece) - len(piece.translate(None, bytes(range(128, 256))))
        self.multibyte += len(MULTIBYTE.findall(piece))
        self.in_runs += sum(map(len, RUN.findall(piece)))
        self.inside_words += len(INSIDE.findall(piece))
        self.undefined = self.undefined or UNDEFINED.search(piece) is not None

    def plausible(self) -> bool:
        """Return whether it can be Windows-1252.

        UTF-8 sequences show damaged UTF-8, runs of such letters a script that is not Latin, and
        signs inside words another encoding of Latin letters.
        """
        seldom = max(20 * self.multibyte, 4 * self.in_runs, 5 * self.inside_words) <= self.high
        return seldom and not self.undefined


def _first_fault(source: Source) -> tuple[int, int]:
    """Return line and byte, both from 1, of the first byte that is not UTF-8."""
    with readable(source) as stream:
        for number, raw in enumerate(stream, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, error.start + 1
    return 1, 1
