"""Floating-point operations a token, counted from a model's shape, for sequences of T tokens.

A matrix product costs 2 a parameter forward, 2 for the gradient of its input, 2 for that of its
weight where it is trained; attention (scores, and their use) 4·L·d·T forward and 8·L·d·T backward.
Below the first adapter no gradient is needed.
"""

from tequio.planning.memory import ModelShape


def forward(shape: ModelShape, tokens: float, rank: int = 0) -> float:
    """Forward only: 2·(N + N_lora) + 4·L·d·T."""
    return (
        2.0 * (shape.products + adapters(shape, rank)) + 4.0 * shape.layers * shape.hidden * tokens
    )


def training(shape: ModelShape, tokens: float, rank: int, full: bool = False) -> float:
    """A step, forward and backward, without checkpointing.

    Adapters: 4·N + 6·N_lora + 12·L·d·T − 2·N_first, N_first the products that take the first
    layer's input, its factors A with them. Full: 6·N + 12·L·d·T.
    """
    attention = 12.0 * shape.layers * shape.hidden * tokens
    if full:
        return 6.0 * shape.products + attention
    lowest = shape.adapted[: len(shape.adapted) // shape.layers]
    first = shape.first + rank * sum(n for _, n in lowest)
    return 4.0 * shape.products + 6.0 * adapters(shape, rank) + attention - 2.0 * first


def adapters(shape: ModelShape, rank: int) -> int:
    """Parameters of the factors: Σ r·(m + n)."""
    return rank * sum(m + n for m, n in shape.adapted)
