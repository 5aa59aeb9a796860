"""Newton-Schulz iterations that bring all singular values of a matrix near one: the core of Muon.

Source: Jordan et al. 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients of the Muon reference: steep at zero, near one over the rest of (0, 1]."""
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(update_NOI: Tensor, dtype: torch.dtype) -> Tensor:
    """N matrices (O outputs, I inputs) with their singular values brought near one, in float32.

    dtype: the dtype of the products.
    """
    a, b, c = NEWTON_SCHULZ
    # Rows on the shorter side give the smaller Gram matrix, and so the cheaper products.
    tall = update_NOI.shape[-2] > update_NOI.shape[-1]
    x = (update_NOI.mT if tall else update_NOI).to(dtype)
    # The Frobenius norm bounds the largest singular value, so all of them start in [0, 1], the
    # range of the coefficients. The constant avoids 0/0 for a matrix of zeros.
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):  # x <- a x + (b G + c G G) x, where G is x x^T
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()
