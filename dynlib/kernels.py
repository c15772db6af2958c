"""CPU kernels: one pass over memory for what would otherwise be several. Channels-last float32, one thread.

numba compiles them on first use and keeps the machine code beside this file. Every function takes and returns ordinary
tensors (N, C, H, W) in channels-last memory.
"""

import numba
import numpy as np
import torch
from torch import Tensor

_NONE = np.zeros((0, 0, 0, 0), np.float32)  # stands for a tensor that is not there


def _array(x: Tensor | None) -> np.ndarray:
    """The tensor's own memory as an array (N, H, W, C)."""
    return _NONE if x is None else x.permute(0, 2, 3, 1).numpy()


@numba.njit(fastmath={"contract", "reassoc", "nsz"}, nogil=True, cache=True)  # NaN and infinity stay what they are
def _merge(high, low, residual, relu, means):
    """In place: high += up(low) + residual, clipped at 0 with `relu`; the 2x2 means of the result go to `means`.

    Each inner loop has at most four streams: with more, LLVM gives up proving that they do not overlap and the loop is
    no longer vectorised (2.5 times slower).
    """
    floor = np.float32(0) if relu else np.float32(-np.inf)
    quarter = np.float32(0.25)
    channels = low.shape[3]
    scratch = np.empty(channels, np.float32)
    for n in range(low.shape[0]):
        for i in range(low.shape[1]):
            for j in range(low.shape[2]):
                raised = low[n, i, j]
                mean = means[n, i, j] if means.shape[0] else scratch
                for c in range(channels):
                    mean[c] = 0
                for corner in range(4):
                    row, column = 2 * i + corner // 2, 2 * j + corner % 2
                    y = high[n, row, column]
                    if residual.shape[0]:
                        shortcut = residual[n, row, column]
                        for c in range(channels):
                            value = y[c] + raised[c] + shortcut[c]
                            value = floor if value < floor else value
                            y[c] = value
                            mean[c] += quarter * value
                    else:
                        for c in range(channels):
                            value = y[c] + raised[c]
                            value = floor if value < floor else value
                            y[c] = value
                            mean[c] += quarter * value


def merge(high: Tensor, low: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """Write high + up(low) + residual, with ReLU where asked, over `high` (N, C, H, W); `low` is (N, C, H/2, W/2)."""
    _merge(_array(high), _array(low), _array(residual), relu, _NONE)
    return high


def merge_and_halve(high: Tensor, low: Tensor, residual: Tensor | None, relu: bool) -> tuple[Tensor, Tensor]:
    """As `merge`, and the 2x2 means of the result (N, C, H/2, W/2), in the same pass."""
    n, c, h, w = low.shape
    means = torch.empty((n, c, h, w), memory_format=torch.channels_last)
    _merge(_array(high), _array(low), _array(residual), relu, _array(means))
    return high, means
