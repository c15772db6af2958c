"""Operations that both bands of an octave share: squeeze-and-excitation gates, and the skipping of whole images."""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from dynlib.papers.octconv_ops import Octave


def octave_mean(x: Octave, keepdim: bool) -> Tensor:
    """Global average of each channel, high ones first: (N, C, 1, 1), of a clip (N, C, 1, 1, 1), or (N, C).

    The squeeze of a gate: one vector for both bands, so that its layers see all channels (the authors' code).
    """
    means = [band.mean(tuple(range(2, band.dim())), keepdim) for band in x if band is not None]
    return torch.cat(means, 1)


def octave_gate(x: Octave, gate: Tensor) -> Octave:
    """An octave times one number a channel, (N, C, 1, 1) in octave order: each band takes its own."""
    rows = gate.split([0 if band is None else band.shape[1] for band in x], 1)
    return Octave(*(None if band is None else band * row for band, row in zip(x, rows, strict=True)))


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
