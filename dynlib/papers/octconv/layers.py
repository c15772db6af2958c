"""Layers of an octave network besides the convolution: its doors, its gates, and the skipping of whole images.

Doors are where plain tensors become octaves without parameters, and where images come in. Gates (squeeze and excite)
and stochastic depth are what both bands of an octave share.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from dynlib.errors import InputError
from dynlib.graphs import whole
from dynlib.ops import pad_to_multiple
from dynlib.papers.octconv.ops import AVERAGE, Octave, Split, as_octave, as_value, enlarge, shrink


def octave_identity(x: Octave, out: Split, stride: int = 1, downsampling: str = AVERAGE) -> Octave:
    """A shortcut without parameters between two splits: channel i stays channel i, new channels are zero.

    A channel that changes its band is pooled, or up-sampled, to that band's resolution; `stride` shrinks all of them.
    """
    bands = []
    for band, (first, stop) in enumerate(((0, out.high), (out.high, sum(out)))):
        pieces, start = [], 0
        for source, tensor in enumerate(x):
            if tensor is None:
                continue
            a, b = max(first - start, 0), min(stop - start, tensor.shape[1])
            if a < b:
                pieces.append(_resize(tensor[:, a:b], stride * 2**band, 2**source, downsampling))
            start += tensor.shape[1]
        missing = stop - max(first, start)
        if pieces and missing > 0:
            pieces.append(pieces[0].new_zeros(pieces[0].shape[0], missing, *pieces[0].shape[2:]))
        elif missing > 0:  # a band of new channels only
            like = _resize(as_octave(x).high[:, :1], stride * 2**band, 1, downsampling)
            pieces.append(like.new_zeros(like.shape[0], missing, *like.shape[2:]))
        bands.append(torch.cat(pieces, 1) if pieces else None)
    return Octave(*bands)


def _resize(x: Tensor, target: int, source: int, downsampling: str) -> Tensor:
    """A band at 1/source of the resolution, brought to 1/target."""
    if target < source:
        return enlarge(x, source // target)
    factor = target // source
    if factor == 1:
        return x
    return shrink(x, factor) if downsampling == AVERAGE else x[..., ::factor, ::factor]


class OctIdentity(nn.Module):
    """`octave_identity` as a layer: a parameter-free shortcut, or the door through which a plain tensor enters."""

    def __init__(self, out: Split, stride: int, downsampling: str):
        super().__init__()
        self.out, self.stride, self.downsampling = out, stride, downsampling

    def forward(self, x: Tensor | Octave) -> Tensor | Octave:
        """(N, c_in, H, W) or its octave to (N, c_out, H/stride, W/stride) or its octave."""
        return as_value(octave_identity(as_octave(x), self.out, self.stride, self.downsampling))


class OctaveInput(nn.Module):
    """Stands before an octave network and lets no image in whose maps would not halve.

    `carriers` are (layer name, multiple): where the low band stands at 1/multiple of the image, both sides of the image
    have to be multiples of it. With `pad`, zeros are added below and to the right instead.
    """

    def __init__(self, carriers: list[tuple[str, int]], pad: bool):
        super().__init__()
        self.carriers, self.pad = carriers, pad
        self.multiple = max(multiple for _, multiple in carriers)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, [T,] H, W) unchanged, or padded. Raises InputError naming the first layer that H or W do not fit."""
        height, width = image.shape[-2:]
        if self.pad:
            return pad_to_multiple(image, self.multiple)
        for layer, multiple in self.carriers:
            if height % multiple or width % multiple:
                near = " or ".join(_nearest(height, width, self.multiple))
                raise InputError(
                    f"size {height}x{width}: {layer} needs sides that are multiples of {multiple}, the network of "
                    f"{self.multiple}; nearest sizes that work: {near}; or set sizes=pad"
                )
        return image


class OnlySize(nn.Module):
    """Stands before an octave network whose maps do not divide the image: only the size it was converted for fits."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.size = (height, width)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, [T,] H, W) unchanged. Raises InputError for another H or W."""
        if tuple(image.shape[-2:]) != self.size:
            height, width = image.shape[-2:]
            raise InputError(
                f"size {height}x{width}: this network's maps do not divide its image, so it takes the size of the "
                f"example that it was converted with alone: {self.size[0]}x{self.size[1]}"
            )
        return image


def _nearest(height: int, width: int, multiple: int) -> list[str]:
    """The next smaller and next larger size whose sides are multiples of `multiple`."""
    smaller = [max(side // multiple, 1) * multiple for side in (height, width)]
    larger = [-(-side // multiple) * multiple for side in (height, width)]
    return [f"{h}x{w}" for h, w in dict.fromkeys((tuple(smaller), tuple(larger)))]


@whole
def octave_mean(x: Octave, keepdim: bool) -> Tensor:
    """Global average of each channel, high ones first: (N, C, 1, 1) or (N, C).

    Of a clip (N, C, 1, 1, 1). The squeeze of a gate: one vector for both bands,
    so that its layers see all channels (the authors' code).
    """
    bands = [band for band in x if band is not None]
    means = [band.mean(tuple(range(2, band.dim())), keepdim) for band in bands]
    return torch.cat(means, 1)


@whole
def octave_gate(x: Octave, gate: Tensor) -> Octave:
    """An octave times one number a channel, (N, C, 1, 1), high ones first."""
    rows = gate.split([0 if band is None else band.shape[1] for band in x], 1)
    pairs = zip(x, rows, strict=True)
    return Octave(*(None if band is None else band * row for band, row in pairs))


class OctStochasticDepth(nn.Module):
    """Stochastic depth of an octave: both bands of an image are dropped, or neither is."""

    def __init__(self, drop: StochasticDepth):
        super().__init__()
        self.drop = drop

    def forward(self, x: Octave) -> Octave:
        """Shapes stay; in evaluation mode nothing happens."""
        if not self.training:
            return x
        like = next(band for band in x if band is not None)
        keep = self.drop(like.new_ones(like.shape[0], *[1] * (like.dim() - 1)))
        return Octave(*(None if band is None else band * keep for band in x))
