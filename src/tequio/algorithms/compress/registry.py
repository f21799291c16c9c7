"""The codecs by name; their settings are keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.compress.eden import Eden
from tequio.algorithms.compress.half import Half
from tequio.algorithms.compress.plain import Plain
from tequio.algorithms.compress.quantise import Quantise
from tequio.algorithms.compress.topk import TopK

COMPRESS: Mapping[str, Callable[..., Codec]] = {
    "plain": Plain,
    "half": Half,
    "quantise": Quantise,
    "eden": Eden,
    "topk": TopK,
}
