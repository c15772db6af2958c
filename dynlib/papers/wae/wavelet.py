"""What takes the auto-encoder's place in the paper's baselines: a fixed wavelet, or plain down-scaling (Table 3).

One level of a separable transform of every colour channel: `cdf97` is the 9/7 biorthogonal wavelet, whose images are
continued beyond their edges by whole-sample reflection (as in JPEG 2000, so that N pixels become N/2 + N/2 numbers and
nothing is lost), `haar` needs none. Filters are those of PyWavelets divided by sqrt(2): a constant image keeps its
value.
"""

import math

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.cost import Costed

# Name in PyWavelets; taps that are zero in both filters, at the end; pixels added in front of and behind a row.
WAVELETS = {"cdf97": ("bior4.4", 1, (4, 3)), "haar": ("haar", 0, (0, 0))}


class Wavelet(Costed, nn.Module):
    """(N, 3, H, W), even sides -> cA (N, 3, H/2, W/2) and the details cH, cV, cD (N, 9, H/2, W/2), in this order."""

    def __init__(self, name: str = "cdf97"):
        super().__init__()
        known, empty, self.margin = WAVELETS[name]
        wavelet = pywt.Wavelet(known)
        filters = torch.tensor([wavelet.dec_lo, wavelet.dec_hi]).flip(1) / math.sqrt(2)  # a kernel runs the other way
        self.register_buffer("filters", filters[:, : filters.shape[1] - empty].contiguous(), persistent=False)

    def bands(self, images: Tensor, filters: Tensor) -> Tensor:
        """(N, C, F, F, H/2, W/2): each channel through each of the filters (F, K), along rows, then along columns."""
        (count, channels, *_), (number, _), (left, right) = images.shape, filters.shape, self.margin
        x = images.flatten(0, 1)[:, None]  # (N C, 1, H, W)
        x = F.pad(x, (left, right, left, right), mode="reflect")
        x = F.conv2d(x, filters[:, None, None, :], stride=(1, 2)).flatten(0, 1)[:, None]  # (N C F, 1, H + margin, W/2)
        x = F.conv2d(x, filters[:, None, :, None], stride=(2, 1))  # (N C F, F, H/2, W/2)
        return x.view(count, channels, number, number, *x.shape[-2:])

    def forward(self, images: Tensor, both: bool = True) -> tuple[Tensor, Tensor | None]:
        """Yield cA and the details; without `both` cA alone, and None."""
        if not both:
            return self.bands(images, self.filters[:1])[:, :, 0, 0], None
        bands = self.bands(images, self.filters)
        details = torch.cat([bands[:, :, 0, 1], bands[:, :, 1, 0], bands[:, :, 1, 1]], 1)
        return bands[:, :, 0, 0], details

    def macs(self, inputs: tuple, output: tuple) -> int:
        """Multiply-accumulates of one image, from the shapes of its input and output."""
        (channels, height, width), *_ = inputs
        number, taps = 1 if output[1] is None else 2, self.filters.shape[1]
        rows = number * (height + sum(self.margin)) * (width // 2)
        columns = number**2 * (height // 2) * (width // 2)
        return channels * taps * (rows + columns)


class Approximation(nn.Module):
    """cA alone: (N, 3, H, W), even sides -> (N, 3, H/2, W/2)."""

    def __init__(self, name: str = "cdf97"):
        super().__init__()
        self.wavelet = Wavelet(name)

    def forward(self, images: Tensor) -> Tensor:
        """The low band."""
        return self.wavelet(images, both=False)[0]


class Downscale(nn.Module):
    """I_R: the image at half its side, bilinear with a low-pass filter in front, (N, 3, H/2, W/2)."""

    def forward(self, images: Tensor) -> Tensor:
        """Resize; a CPU has no filter in bfloat16."""
        wide = images.float() if images.dtype == torch.bfloat16 else images
        return F.interpolate(wide, scale_factor=0.5, mode="bilinear", antialias=True).to(images.dtype)
