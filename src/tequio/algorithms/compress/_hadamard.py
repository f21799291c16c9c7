"""Random rotation of vectors of any length by signs and Walsh-Hadamard transforms, without padding:
orthogonal, n·log n.

A vector of length L is covered by windows of p = the largest power of two ≤ L (at most 4,096): once
from its start, and if p does not divide L once more from its end, each time after random signs.
Each pass is orthogonal, so their product is. Spreading a vector before
quantising it: Suresh et al., arXiv 1611.00429; DRIVE, arXiv 2105.08339. Signs come from SHAKE-256,
    so both sides draw the same ones.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

WIDEST = 4096


def rotate(matrix: Tensor, seed: int, index: int) -> Tensor:
    """Each row of (vectors × length) rotated; `index` tells the matrices of one update apart."""
    front, back = _signs(matrix, seed, index)
    out = _windows(matrix * front, from_end=False)
    return out if _whole(matrix) else _windows(out * back, from_end=True)


def unrotate(matrix: Tensor, seed: int, index: int) -> Tensor:
    """The inverse of `rotate`."""
    front, back = _signs(matrix, seed, index)
    out = matrix if _whole(matrix) else _windows(matrix, from_end=True) * back
    return _windows(out, from_end=False) * front


def _width(length: int) -> int:
    return min(1 << (max(length, 1).bit_length() - 1), WIDEST)


def _whole(matrix: Tensor) -> bool:
    return matrix.shape[1] % _width(matrix.shape[1]) == 0


def _signs(matrix: Tensor, seed: int, index: int) -> tuple[Tensor, Tensor]:
    count = matrix.numel()
    stream = hashlib.shake_256(f"{seed}/{index}".encode()).digest((2 * count + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=2 * count)
    front, back = torch.from_numpy(bits).reshape(2, *matrix.shape).float() * 2.0 - 1.0
    return front, back


def _windows(matrix: Tensor, from_end: bool) -> Tensor:
    vectors, length = matrix.shape
    width = _width(length)
    used = length // width * width
    start = length - used if from_end else 0
    out = matrix.clone()
    body = matrix[:, start : start + used].reshape(vectors * (used // width), width)
    out[:, start : start + used] = _transform(body).reshape(vectors, used)
    return out


def _transform(rows: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of each row; its own inverse."""
    count, width = rows.shape
    half = 1
    while half < width:
        pairs = rows.reshape(count, width // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        rows = torch.stack((left + right, left - right), dim=2)
        half *= 2
    return rows.reshape(count, width) / math.sqrt(width)
