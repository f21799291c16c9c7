"""Losses of a set, looked at by all processes of a team together: each takes its part of the
batches, and all get all the numbers.

So what is decided by them, as which checkpoint is kept, is decided alike in every process. Each
makes as many forward passes as the others, for a base in shards is gathered for all of them at
once.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.process_group import ProcessGroup
from tequio.participant.text_tasks import Item, Losses, TextTask, by_length


def evaluate_losses(
    task: TextTask, adapted: AdaptedModel, items: Sequence[Item], together: ProcessGroup
) -> Losses:
    """What `task.losses` gives one process alone, in every process."""
    if together.size == 1:
        return task.losses(adapted, items)
    whole = list(by_length(items, task.batch_tokens))
    own, found = together.part(whole), np.zeros((4, len(items)))
    for turn in range(-(-len(whole) // together.size)):
        where = own[turn] if turn < len(own) else None
        losses = task.losses(
            adapted, [items[i] for i in where or whole[0]]
        )  # with none left, one is made for the others
        if where is not None:
            answered = np.full(len(where), np.nan) if losses.answered is None else losses.answered
            found[:, where] = losses.total, losses.terms, losses.right, answered
    numbers = torch.from_numpy(found).to(together.device)
    together.add([numbers])  # each number is one process's, and 0 in the others
    total, terms, right, answered = numbers.cpu().numpy()
    return Losses(total, terms, right, None if np.isnan(answered).any() else answered)
