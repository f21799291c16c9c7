"""The student's loss, T²·KL(p ‖ softmax(z / T)), mean over rows, in nats (Hinton, Vinyals and Dean,
arXiv 1503.02531).

T² keeps the size of the gradient the same for every temperature T.
"""

from torch import Tensor
from torch.nn import functional as F


def distil_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """logits: the student's, teacher: probabilities at temperature T, both (rows × classes). 0
    where they agree.
    """
    return (
        F.kl_div(F.log_softmax(logits.float() / temperature, 1), teacher, reduction="batchmean")
        * temperature**2
    )
