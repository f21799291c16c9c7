"""What a graphics card has, what training took of it, and which parts of the memory sum lie on it.

Bytes are those of tensors, as torch counts them. Beside them a card holds the process's context,
some hundred MB: where one is in use already it is no longer among the free bytes. Without a card
everything here is None, and the process's own memory counts.
"""

from dataclasses import replace

import torch

from tequio.planning.memory import MemorySum

WORKSPACE_BYTES = (
    2**26
    # of cuBLAS: 32 MiB on a Hopper card for each of two threads, that of the backward pass is the
    # second
)


def card_name() -> str | None:
    """What the maker calls the first card."""
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def on_card(needed: MemorySum) -> MemorySum:
    """The parts that lie on the card: all but the shared updates and the process."""
    return replace(needed, shared_update=0, runtime=WORKSPACE_BYTES)


def beside_card(needed: MemorySum) -> MemorySum:
    """The parts that the process itself keeps where it trains on a card.

    The base is read there first.
    """
    return replace(needed, folded_weights=0, adapters_and_optimizer=0, activations=0, logits=0)


def card_free_bytes() -> int | None:
    """Bytes that this process may use on the first card: what is free, and what it holds
    already.
    """
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved())


def card_peak_bytes() -> int | None:
    """The most that tensors took of the card since the beginning, or since `forget_card_peak`."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def forget_card_peak() -> None:
    """From now on `card_peak_bytes` begins with what is held now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
