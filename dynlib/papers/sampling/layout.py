"""Maps as rows in the order of tiles, weights between a tile's positions and what is around, and ONNX nodes for both.

Nothing here knows of blocks: `rows.py` writes them.
"""

from dataclasses import dataclass

import numpy as np
from onnx import helper, numpy_helper
from torch import Tensor

TILE = 8  # positions; a smaller tile multiplies less and gathers more: 4 and 6 were slower
NEGLIGIBLE = 1e-9  # of epsilon
CERTAIN = 1e20  # weight of a sampled position for itself: what else is around it rounds away


@dataclass(frozen=True)
class Layout:
    """The order of the rows of a map of `height` x `width` positions: by tiles, the last ones reaching beyond it."""

    height: int
    width: int

    def strided(self, stride: int) -> "Layout":
        """That of every so many-th line and column."""
        return Layout(-(-self.height // stride), -(-self.width // stride))

    @property
    def tiles(self) -> tuple[int, int]:
        """How many tiles lie one below the other, and side by side."""
        return -(-self.height // TILE), -(-self.width // TILE)

    @property
    def rows(self) -> int:
        """Rows of one image."""
        return self.tiles[0] * self.tiles[1] * TILE**2

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Line and column (rows,) of each row; beyond the map for some."""
        down, across = self.tiles
        i, j = np.mgrid[: down * TILE, : across * TILE]
        return tuple(x.reshape(down, TILE, across, TILE).swapaxes(1, 2).ravel() for x in (i, j))

    def row_at(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """The row of a position; -1 outside of the map."""
        inside = (i >= 0) & (i < self.height) & (j >= 0) & (j < self.width)
        tile = i // TILE * self.tiles[1] + j // TILE
        return np.where(inside, tile * TILE**2 + i % TILE * TILE + j % TILE, -1)

    def from_map(self) -> np.ndarray:
        """Of each row its place in the map written line by line; 0 for rows beyond it."""
        i, j = self.places()
        return np.where((i < self.height) & (j < self.width), i * self.width + j, 0)

    def to_map(self) -> np.ndarray:
        """Of each position of the map, line by line, its row."""
        i, j = np.mgrid[: self.height, : self.width]
        return self.row_at(i.ravel(), j.ravel())

    def windows(self, reach: int) -> np.ndarray:
        """The rows (tiles, (TILE + 2 reach)^2 + 1) in and around each tile, -1 outside of the map, and -1 at last."""
        down, across = self.tiles
        side = np.arange(-reach, TILE + reach)
        i = (np.arange(down) * TILE)[:, None, None, None] + side[:, None]
        j = (np.arange(across) * TILE)[:, None, None] + side
        rows = self.row_at(*np.broadcast_arrays(i, j)).reshape(down * across, -1)
        return np.pad(rows, ((0, 0), (0, 1)), constant_values=-1)


def window_weights(kernel: np.ndarray) -> np.ndarray:
    """The weight of each place in a window for each position of its tile, ((TILE + K - 1)^2 + 1, TILE^2)."""
    reach = len(kernel) // 2
    certain = kernel.astype(np.float32).copy()
    certain[reach, reach] = CERTAIN
    side, at = np.arange(-reach, TILE + reach), np.arange(TILE)
    away = side[:, None] - at + reach  # (window, tile) along one axis
    fits = (away >= 0) & (away < len(kernel))
    lines = np.clip(away, 0, len(kernel) - 1)
    weights = certain[lines[:, None, :, None], lines[None, :, None, :]]
    weights = weights * (fits[:, None, :, None] & fits[None, :, None, :])
    return np.pad(weights.reshape(len(side) ** 2, TILE**2), ((0, 1), (0, 0)))


def cropped(kernel: np.ndarray, epsilon: float | None) -> np.ndarray:
    """The kernel without the rings whose weight is nothing beside epsilon: no sample there has a say."""
    while epsilon and len(kernel) > 1:
        inner = np.zeros_like(kernel)
        inner[1:-1, 1:-1] = kernel[1:-1, 1:-1]
        if np.abs(kernel - inner).max() > NEGLIGIBLE * epsilon:
            break
        kernel = kernel[1:-1, 1:-1]
    return kernel


class Nodes:
    """Collects ONNX nodes and constants under names that nothing else has."""

    def __init__(self, prefix: str):
        self.prefix, self.nodes, self.constants = prefix, [], []
        self._known: dict[tuple, str] = {}

    def __call__(self, operator: str, *inputs: str, outputs: int = 1, **attributes) -> str | list[str]:
        """Add a node; the name of its output, or the names."""
        names = [f"{self.prefix}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def const(self, value: object, dtype: type = np.int64) -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value, dtype)
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._known:
            self._known[key] = f"{self.prefix}_constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def floats(self, value: object) -> str:
        """The name of a constant of float32."""
        return self.const(value, np.float32)

    def reshape(self, x: str, *shape: int) -> str:
        """The same numbers in another shape; 0 keeps a side, -1 is what remains."""
        return self("Reshape", x, self.const(shape))

    def rows_of_map(self, x: str, layout: Layout, channels: int) -> str:
        """A map (N, C, H, W) as rows."""
        lines = self.reshape(self("Transpose", x, perm=[0, 2, 3, 1]), 0, -1, channels)
        return self.reshape(self("Gather", lines, self.const(layout.from_map()), axis=1), -1, channels)

    def map_of_rows(self, x: str, layout: Layout, channels: int) -> str:
        """Rows as a map (N, C, H, W)."""
        lines = self("Gather", self.reshape(x, -1, layout.rows, channels), self.const(layout.to_map()), axis=1)
        # Transposed before it is a map: ONNX Runtime would push the transposition through a mean, which is then slow.
        return self.reshape(self("Transpose", lines, perm=[0, 2, 1]), 0, channels, layout.height, layout.width)
