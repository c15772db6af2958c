"""The functions of `kernels.py` from tensor operations: the same results, more slowly, where numba is absent.

Shapes and meanings are described there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEGLIGIBLE = 1e-12


def _places(positions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of flat positions."""
    positions, (height, width) = positions.long(), size
    return positions // (height * width), positions // width % height, positions % width


def taps(
    row_of: Tensor, positions: Tensor, size: tuple[int, int], conv: tuple[int, int, int], rows: int
) -> tuple[Tensor, Tensor]:
    """See `kernels.taps`; the missing positions come in ascending order."""
    side, stride, dilation = conv
    reach = dilation * (side // 2)
    flat = torch.arange(row_of.numel()).view_as(row_of)
    padded = F.pad(flat, (reach,) * 4, value=-1)
    image, i, j = _places(positions, size)
    shift = torch.arange(side) * dilation
    place = padded[
        image[:, None, None], (i * stride)[:, None, None] + shift[:, None], (j * stride)[:, None, None] + shift
    ].flatten(1)
    row = row_of.flatten()[place.clamp(min=0)].long()
    absent = (place >= 0) & (row < 0)
    missing, bag = place[absent].unique(return_inverse=True)
    indices = row + 1
    indices[absent] = 1 + rows + bag
    indices[place < 0] = 0
    return indices.int(), missing.int()


def bags(row_of: Tensor, positions: Tensor, kernel: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """See `kernels.bags`."""
    side = kernel.shape[0]
    padded = F.pad(row_of, (side // 2,) * 4, value=-1)
    image, i, j = _places(positions, row_of.shape[1:])
    shift = torch.arange(side)
    row = padded[image[:, None, None], i[:, None, None] + shift[:, None], j[:, None, None] + shift].flatten(1)
    kept = (row >= 0) & (kernel.flatten().abs() >= NEGLIGIBLE)
    weights = kernel.flatten() * kept
    if epsilon is not None:
        total = weights.sum(1, keepdim=True) + epsilon
        weights = weights / torch.where(total > 0, total, 1)
    offsets = F.pad(kept.sum(1).cumsum(0), (1, 0))
    return offsets.int(), row[kept], weights[kept]


def weighted(rows: Tensor, offsets: Tensor, columns: Tensor, weights: Tensor, out: Tensor) -> None:
    """See `kernels.weighted`."""
    sums = {"mode": "sum", "per_sample_weights": weights, "include_last_offset": True}
    out.copy_(F.embedding_bag(columns, rows, offsets, **sums))


def tail(
    rows: Tensor,
    row_of: Tensor,
    offsets: Tensor,
    columns: Tensor,
    weights: Tensor,
    bias: Tensor,
    bare: bool,
    out: Tensor,
) -> None:
    """See `kernels.tail`."""
    row_of = row_of.flatten()
    sampled, missing = (row_of >= 0).nonzero().flatten(), (row_of < 0).nonzero().flatten()
    out.index_add_(0, sampled, rows[row_of[sampled]] + bias)
    if not bare:
        sums = rows.new_empty(len(missing), rows.shape[1])
        weighted(rows, offsets, columns, weights, sums)
        out.index_add_(0, missing, sums + bias)
    out.relu_()


def shifted_sum(parts: Tensor, first: int, bias: float, stride: int, size: tuple[int, int]) -> Tensor:
    """See `kernels.shifted_sum`."""
    padded = F.pad(parts[..., first : first + 9], (0, 0, 1, 1, 1, 1))
    rows, columns = ((side - 1) * stride + 1 for side in size)
    shifted = (padded[:, t // 3 :, t % 3 :, t][:, :rows:stride, :columns:stride] for t in range(9))
    return (sum(shifted) + bias)[:, None]
