"""The best rank-r approximation P_r of a shared model as balanced factors: b = U√Σ, a = √ΣVᵀ
(Eckart-Young).
"""

import torch
from torch import Tensor

from tequio.core.update import Entry, Factored, Update, is_matrix

# of the largest singular value: below, a direction is rounding (float32), and no direction to go on
# with
NOISE = 1e-5


def balanced(shared: Update, rank: int) -> Update:
    """P_r of every matrix but heads, at most `rank` ranks each; fewer where the matrix has fewer
    (none where it is 0).
    """
    entries: dict[str, Entry] = {}
    for name, entry in shared.entries.items():
        if is_matrix(name, entry):
            u, s, vh = _svd(entry)
            effective = min(rank, int((s > NOISE * s[:1]).sum()))
            root = s[:effective].sqrt()
            entries[name] = Factored(
                b=u[:, :effective] * root, a=root.unsqueeze(1) * vh[:effective]
            )
    return Update(entries, shared.spec)


def _svd(entry: Entry) -> tuple[Tensor, Tensor, Tensor]:
    """U (m × k), Σ (k, falling), Vᵀ (k × n); by QR of both factors and the SVD of the small core
    where there are factors.
    """
    if not isinstance(entry, Factored):
        u, s, vh = torch.linalg.svd(entry.value, full_matrices=False)
        return u, s, vh
    q_b, r_b = torch.linalg.qr(entry.b)
    q_a, r_a = torch.linalg.qr(entry.a.T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ u, s, vh @ q_a.T
