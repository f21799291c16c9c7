"""float16 with one shared power of two, so that neither large nor tiny updates leave its range;
stored as byte planes.

The high bytes (sign, exponent) of all numbers come first: they are alike, and zstd shortens them.
"""

import math
from typing import Literal

import torch
from torch import Tensor

EXPONENT_LIMIT = 200  # float32 needs −164 to 113


def shared_exponent(largest: float) -> int:
    """e with largest · 2^−e from 2^14 to 2^15; 0 for 0."""
    return math.frexp(largest)[1] - 15 if largest > 0.0 else 0


def to_half(
    values: Tensor, exponent: int, toward: Literal["near", "up", "down"] = "near"
) -> Tensor:
    """values · 2^−exponent as float16, rounded to nearest, or for values ≥ 0 up (never under) or
    down (never over).
    """
    exact = values.double() * 2.0**-exponent
    half = exact.half()
    if toward == "near":
        return half
    off = half.double() < exact if toward == "up" else half.double() > exact
    return (half.view(torch.int16) + off.short() * (1 if toward == "up" else -1)).view(
        torch.float16
    )


def from_half(half: Tensor, exponent: int) -> Tensor:
    """half · 2^exponent, float32."""
    return (half.double() * 2.0**exponent).float()


def to_planes(half: Tensor) -> Tensor:
    """n numbers of 16 bits as 2n bytes: all high bytes, then all low bytes."""
    pairs = half.contiguous().reshape(-1).view(torch.int16)
    return torch.cat([pairs >> 8 & 255, pairs & 255]).to(torch.uint8)


def from_planes(planes: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """The inverse of `to_planes`."""
    high, low = planes.to(torch.int32).chunk(2) if planes.numel() else (planes.int(), planes.int())
    word = high << 8 | low
    return torch.where(word >= 1 << 15, word - (1 << 16), word).to(torch.int16).view(dtype)
