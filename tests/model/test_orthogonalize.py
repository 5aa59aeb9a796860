import pytest
import torch

from picochat.model.orthogonalize import orthogonalize


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 50, 20), (1, 16, 16)])
def test_orthogonalized_updates_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(update, torch.float32))
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3
    # The directions are those of the update: its polar factor is near.
    u, _, vh = torch.linalg.svd(update, full_matrices=False)
    overlap = (orthogonalize(update, torch.float32) * (u @ vh)).sum(dim=(-2, -1)) / values.sum(-1)
    assert float(overlap.min()) > 0.95
