"""Other people's batches: any iterable of (images, targets), such as a DataLoader, for what wants `Batches`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dynlib.errors import InputError


@dataclass(frozen=True)
class Loader:
    """Batches of an iterable that has a length; it draws, moves and normalises its own samples, in its own order."""

    batches: Iterable[tuple[Tensor, Tensor]]  # float images (n, C, H, W) with labels (n,) or masks (n, H, W)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.batches)

    def epoch(
        self, generator: torch.Generator | None, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass; `generator` says nothing to an iterable, which draws from torch's own, seeded by the loop."""
        for images, targets in self.batches:
            yield images.to(device), targets.to(device)


def as_batches(batches: object) -> object:
    """`batches` where they are the library's own, else a Loader of them.

    Raises InputError for what has no length or cannot be iterated over.
    """
    if hasattr(batches, "epoch"):
        return batches
    if not (hasattr(batches, "__len__") and hasattr(batches, "__iter__")):
        kind = type(batches).__name__
        raise InputError(f"batches are of type {kind}; allowed: a DataLoader, or a list of (images, targets)")
    return Loader(batches)
