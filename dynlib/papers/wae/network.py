"""The networks of the method and its baselines: one that classifies two half-size images, one that classifies one."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.ops import pad_to_multiple
from dynlib.papers.wae.split import Parts

# Of the batch norms in front: 1e-5, Caffe's and torch's, belongs to the paper's pixels, 0 .. 255; ours are 0 .. 1.
EPSILON = 1e-5 / 255**2


class Output(NamedTuple):
    """What a network behind a split yields. Scores are (N, C), half-size images (N, 3, H/2, W/2)."""

    logits: Tensor | None  # s_L + s_F; None where only the split was asked for, as are the two below
    low: Tensor | None  # s_L
    fused: Tensor | None  # s_F; None where I_L alone is classified
    image_low: Tensor
    image_high: Tensor | None  # the wavelet's has nine channels; None where I_L alone is classified
    restored: Tensor | None  # I' (N, 3, H, W), where it was asked for


class Even(nn.Module):
    """Sees to it that both sides can be halved: (N, 3, H, W) unchanged, padded with zeros, or refused."""

    def __init__(self, pad: bool):
        super().__init__()
        self.pad = pad

    def forward(self, images: Tensor) -> Tensor:
        """Pad or raise InputError."""
        if self.pad:
            return pad_to_multiple(images, 2)
        height, width = images.shape[-2:]
        if height % 2 or width % 2:
            raise InputError(f"size {height}x{width}: both sides must be even to be halved; sizes='pad' adds zeros")
        return images


class Wae(nn.Module):
    """An image split in two, a tower for each half-size image, two heads and their summed score (Fig. 2).

    Without a `twin` I_L alone is classified. With a `decoder` the split is learned from the image itself.
    """

    def __init__(
        self,
        even: Even,
        split: nn.Module,
        tower: nn.Module,
        head_low: nn.Module,
        twin: nn.Module | None = None,
        head_fused: nn.Module | None = None,
        channels_high: int = 3,
        decoder: nn.Module | None = None,
    ):
        super().__init__()
        self.even, self.split = even, split
        self.norm_low = nn.BatchNorm2d(3, EPSILON, affine=False)
        self.tower, self.head_low = tower, head_low
        self.norm_high = None if twin is None else nn.BatchNorm2d(channels_high, EPSILON, affine=False)
        self.twin, self.head_fused = twin, head_fused
        self.decoder = decoder
        if decoder is not None:
            self.register_buffer("gamma", torch.zeros(()))  # of the joint stage, settled at its first step

    def forward(self, images: Tensor, restore: bool = False, classify: bool = True) -> Output:
        """Images (N, 3, H, W) on the scale 0 .. 1; `restore` decodes them too, `classify=False` stops at the split."""
        image_low, image_high = self.split(self.even(images), restore or self.twin is not None)
        low, fused = self.scores(image_low, image_high) if classify else (None, None)
        logits = low if fused is None else low + fused  # eq-wae-scores
        restored = self.decode(image_low, image_high, images) if restore else None
        return Output(logits, low, fused, image_low, image_high, restored)

    def scores(self, image_low: Tensor, image_high: Tensor | None) -> Parts:
        """s_L and s_F, or None for the latter, of the two half-size images."""
        map_low = self.tower(self.norm_low(image_low))
        low = self.head_low(map_low)
        if self.twin is None:
            return low, None
        map_high = self.twin(self.norm_high(image_high))
        both = torch.cat([map_low, map_high], 1)
        return low, self.head_fused(both)  # eq-wae-scores

    def decode(self, image_low: Tensor, image_high: Tensor, images: Tensor) -> Tensor:
        """I', as large as the images."""
        return self.decoder(image_low, image_high)[..., : images.shape[-2], : images.shape[-1]]


class Single(nn.Module):
    """One image classified: (N, 3, H, W) on the scale 0 .. 1 to logits (N, C).

    `image` makes what is seen of it; a batch norm as in front of the towers precedes the network.
    """

    def __init__(self, image: nn.Module, network: nn.Module):
        super().__init__()
        self.image = image
        self.norm = nn.BatchNorm2d(3, EPSILON, affine=False)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        return self.network(self.norm(self.image(images)))
