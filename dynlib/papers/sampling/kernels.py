"""CPU kernels of a sampled block: which rows a convolution reads, what stands in between, and the tail of the block.

A map (N, C, H, W) in channels-last memory is a table of rows (N H W, C), one a position. Of a sampled map only the rows
of its samples exist; `row_of` (N, H, W) int32 says which row holds a position, or -1 where there is none. What is at
an unsampled position is a *bag*, a weighted sum of rows, in compressed form: bag b sums the rows
`columns[offsets[b]:offsets[b + 1]]` times their `weights`.

Each function is one pass over memory, compiled by numba on first use and kept beside this file; one thread.
`tensors.py` has the same functions, without numba.
"""

import numba
import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1e-12  # a weight of the window below this changes no float32 sum that matters, and is left out
_FAST = {"contract", "reassoc", "nsz"}  # NaN and infinity stay what they are


@numba.njit(nogil=True, cache=True)
def _taps(row_of, positions, height, width, side, stride, dilation, rows):
    _, h, w = row_of.shape
    table = row_of.copy()
    indices = np.empty((positions.shape[0], side * side), np.int32)
    missing = np.empty(min(row_of.size, positions.shape[0] * side * side), np.int32)
    found = 0
    reach = dilation * (side // 2)
    for p in range(positions.shape[0]):
        image, rest = divmod(positions[p], height * width)
        i, j = divmod(rest, width)
        i, j = i * stride - reach, j * stride - reach
        for a in range(side):
            y = i + a * dilation
            for b in range(side):
                x = j + b * dilation
                if y < 0 or y >= h or x < 0 or x >= w:
                    indices[p, a * side + b] = 0
                    continue
                row = table[image, y, x]
                if row < 0:
                    row = rows + found
                    table[image, y, x] = row
                    missing[found] = (image * h + y) * w + x
                    found += 1
                indices[p, a * side + b] = row + 1
    return indices, missing[:found]


def taps(
    row_of: Tensor, positions: Tensor, size: tuple[int, int], conv: tuple[int, int, int], rows: int
) -> tuple[Tensor, Tensor]:
    """Which rows of a table a convolution reads for the flat `positions` (P,) of its output (N, *size).

    The table has a row of zeros, then the `rows` samples, then a row for each missing position that is read. `conv` is
    the kernel's side, stride and dilation; the padding keeps the kernel centred. Returns `indices` (P, side^2) into the
    table and `missing` (M,), the flat input positions of its last M rows, both int32.
    """
    indices, missing = _taps(row_of.numpy(), positions.numpy(), *size, *conv, rows)
    return torch.from_numpy(indices), torch.from_numpy(missing)


@numba.njit(nogil=True, cache=True)
def _bags(row_of, positions, kernel, epsilon, normalised, offsets, columns, weights):
    _, h, w = row_of.shape
    side = kernel.shape[0]
    reach = side // 2
    # Samples in flat order: those of one line of a window are neighbours, from before[left] to before[right].
    before = np.empty(row_of.size + 1, np.int32)
    rows = np.empty(row_of.size, np.int32)
    where = np.empty(row_of.size, np.int32)  # column of each sample
    count = 0
    for place, row in enumerate(row_of.flat):
        before[place] = count
        rows[count] = row
        where[count] = place % w
        count += row >= 0
    before[row_of.size] = count
    end = 0
    offsets[0] = 0
    for p in range(positions.shape[0]):
        image, rest = divmod(positions[p], np.int32(h * w))
        i, j = divmod(rest, np.int32(w))
        begin, total = end, epsilon
        left, right = max(0, j - reach), min(w, j + reach + 1)
        for y in range(max(0, i - reach), min(h, i + reach + 1)):
            line = (image * h + y) * w
            window = kernel[y - i + reach]
            for q in range(before[line + left], before[line + right]):
                value = window[where[q] - j + reach]
                columns[end] = rows[q]
                weights[end] = value
                total += value
                end += value != 0
        if normalised and end > begin:
            scale = np.float32(1) / total
            for q in range(begin, end):
                weights[q] *= scale
        offsets[p + 1] = end
    return end


def bags(row_of: Tensor, positions: Tensor, kernel: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """The bags of the unsampled flat `positions` (M,) of a map: offsets (M + 1,), columns (S,), weights (S,).

    The weights are those of the window's samples in `kernel` (K, K), over their sum plus `epsilon` where it is given.
    """
    kernel = torch.where(kernel.abs() < NEGLIGIBLE, 0, kernel)
    room = len(positions) * int(kernel.count_nonzero()) + 1  # one more: every sample is written first, then kept
    offsets = torch.empty(len(positions) + 1, dtype=torch.int32)
    columns, weights = torch.empty(room, dtype=torch.int32), torch.empty(room)
    arrays = (tensor.numpy() for tensor in (offsets, columns, weights))
    given = row_of.numpy(), positions.numpy(), kernel.numpy(), np.float32(epsilon or 0), epsilon is not None
    end = _bags(*given, *arrays)
    return offsets, columns[:end], weights[:end]


@numba.njit(nogil=True, fastmath=_FAST, cache=True)
def _add_bag(rows, columns, weights, begin, end, out):
    """Add one bag to `out` (C,), three rows at a time: with more streams the loop is no longer vectorised."""
    q = begin
    while q + 3 <= end:
        r0, r1, r2 = rows[columns[q]], rows[columns[q + 1]], rows[columns[q + 2]]
        w0, w1, w2 = weights[q], weights[q + 1], weights[q + 2]
        for c in range(out.shape[0]):
            out[c] += w0 * r0[c] + w1 * r1[c] + w2 * r2[c]
        q += 3
    while q < end:
        r0, w0 = rows[columns[q]], weights[q]
        for c in range(out.shape[0]):
            out[c] += w0 * r0[c]
        q += 1


@numba.njit(nogil=True, cache=True)
def _weighted(rows, offsets, columns, weights, out):
    for b in range(out.shape[0]):
        out[b] = 0
        _add_bag(rows, columns, weights, offsets[b], offsets[b + 1], out[b])


def weighted(rows: Tensor, offsets: Tensor, columns: Tensor, weights: Tensor, out: Tensor) -> None:
    """Write the sum of each bag to `out` (B, C)."""
    _weighted(*(tensor.numpy() for tensor in (rows, offsets, columns, weights, out)))


@numba.njit(nogil=True, fastmath=_FAST, cache=True)
def _tail(rows, row_of, offsets, columns, weights, bias, bare, out):
    zero = np.float32(0)
    channels = out.shape[1]
    sums = np.empty(channels, np.float32)
    bag = 0
    for p in range(row_of.shape[0]):
        y, row = out[p], row_of[p]
        if row >= 0:
            r = rows[row]
            for c in range(channels):
                value = y[c] + (r[c] + bias[c])
                y[c] = zero if value < zero else value
        elif bare:
            for c in range(channels):
                y[c] = zero if y[c] < zero else y[c]
        else:
            for c in range(channels):
                sums[c] = bias[c]
            _add_bag(rows, columns, weights, offsets[bag], offsets[bag + 1], sums)
            bag += 1
            for c in range(channels):
                value = y[c] + sums[c]
                y[c] = zero if value < zero else value


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
    """Finish a block over its shortcut `out` (N H W, C), in place: relu(shortcut + branch + bias).

    The branch is `rows` where there is a sample and else the next bag; with `bare` there is none, nor a bias.
    """
    arrays = (tensor.numpy() for tensor in (rows, row_of.flatten(), offsets, columns, weights, bias))
    _tail(*arrays, bare, out.numpy())


@numba.njit(nogil=True, cache=True)
def _shifted_sum(parts, first, bias, stride, out):
    _, h, w, _ = parts.shape
    n, height, width = out.shape
    for image in range(n):
        for i in range(height):
            for j in range(width):
                total = bias
                for tap in range(9):
                    y, x = i * stride + tap // 3 - 1, j * stride + tap % 3 - 1
                    if 0 <= y < h and 0 <= x < w:
                        total += parts[image, y, x, first + tap]
                out[image, i, j] = total


def shifted_sum(parts: Tensor, first: int, bias: float, stride: int, size: tuple[int, int]) -> Tensor:
    """A 3x3 convolution with one output from the products of its taps: (N, 1, *size).

    `parts` (N, H, W, T) has the product of tap t at `first + t`.
    """
    out = torch.empty(len(parts), *size)
    _shifted_sum(parts.numpy(), first, np.float32(bias), stride, out.numpy())
    return out[:, None]
