"""The wavelet-like auto-encoder itself: one image into two of half the side, and back (Chen et al., AAAI 2018).

    I -> trunk of 3 convolutions -> I_L, I_H        Encoder, what runs at inference
    I' = D_L(I_L) + D_H(I_H)                        Decoder, for training only
    L_t = |I - I'|^2 + lam |I_H|^2                  transform_loss

and what tells how well an image was split. Images are on the scale 0 .. 1; all losses are means over elements.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.errors import InputError

Parts = tuple[Tensor, Tensor | None]  # what is low, what is high
WIDTH = 16  # channels of every inner layer (the released test file; the paper's figure of the layers)


def xavier(module: nn.Module) -> nn.Module:
    """Xavier weights and zero biases, as the released test file asks for, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class Encoder(nn.Module):
    """(N, 3, H, W) -> I_L and I_H, (N, 3, H/2, W/2) each.

    No batch norm, nothing behind the two last convolutions.
    """

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, WIDTH, 3, padding=1),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                relu2=nn.ReLU(inplace=True),
                conv3=nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                relu3=nn.ReLU(inplace=True),
            )
        )
        self.low = nn.Conv2d(WIDTH, 3, 3, stride=2, padding=1)
        self.high = nn.Conv2d(WIDTH, 3, 3, stride=2, padding=1)
        xavier(self)

    def forward(self, images: Tensor, both: bool = True) -> Parts:
        """I_L and I_H; without `both` I_L alone, and None."""
        x = self.trunk(images)  # (N, 16, H, W)
        return self.low(x), self.high(x) if both else None  # eq-wae-split


class Decoder(nn.Module):
    """I_L and I_H -> I', (N, 3, H, W): one branch for each, their sum."""

    def __init__(self):
        super().__init__()
        self.low, self.high = _branch(), _branch()
        xavier(self)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Restore the image."""
        return self.low(low) + self.high(high)  # eq-wae-split


def _branch() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            deconv=nn.ConvTranspose2d(3, WIDTH, 4, stride=2, padding=1),
            relu1=nn.ReLU(inplace=True),
            conv1=nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            relu2=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv3=nn.Conv2d(WIDTH, 3, 3, padding=1),
        )
    )


def transform_loss(
    images: Tensor,
    restored: Tensor,
    high: Tensor,
    lam: float,
) -> Tensor:
    """L_t: mean squared error of I', and `lam` times the mean square of I_H."""
    error = F.mse_loss(restored, images)
    return error + lam * high.square().mean()  # eq-wae-transform


def classification_loss(scores: Sequence[Tensor], targets: Tensor) -> Tensor:
    """L_c: the cross-entropies of the heads' scores (N, C), added."""
    return sum(F.cross_entropy(score, targets) for score in scores)


# ------------------------------------------------------------------------------------------ how well an image is split


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of images on the scale 0 .. 1."""
    return -10 * math.log10(mean_squared_error)  # eq-wae-psnr


def spectrum_share(images: Tensor) -> Tensor:
    """Share of each image's energy above half its Nyquist frequency, along either axis; its mean left out: (N,).

    That is what would be lost if the image (N, C, H, W) were halved once more; 0 where it is constant. White noise has
    about 3/4.
    """
    power = torch.fft.fft2(images.double()).abs().square()
    power[..., 0, 0] = 0
    rows, columns = (torch.fft.fftfreq(n, device=images.device).abs() > 0.25 for n in images.shape[-2:])
    above = (power * (rows[:, None] | columns)).sum((1, 2, 3))
    return above / power.sum((1, 2, 3)).clamp(min=torch.finfo(torch.float64).tiny)


def pca_reference(
    images: Tensor,
    kept: Sequence[int] = (6, 3),
) -> dict[int, float]:
    """PSNR in dB of the best linear code of 2 x 2 blocks that keeps so many.

    Of these very images (N, 3, H, W), even sides: the error is the variance
    along the principal axes that are dropped. I_L with I_H is a code of 6 of
    12, either alone one of 3. Raises InputError for other shapes or numbers.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] % 2 or shape[3] % 2:
        raise InputError(f"images {shape}; allowed: (N, 3, H, W), even sides")
    if not all(0 <= k < 12 for k in kept):
        raise InputError(f"kept is {[*kept]}; allowed: 0 to 11 of 12 numbers")
    blocks = F.pixel_unshuffle(images.double(), 2)  # (N, 12, H/2, W/2)
    blocks = blocks.movedim(1, 0).flatten(1)  # (12, blocks)
    variance = torch.linalg.eigvalsh(torch.cov(blocks, correction=0)).flip(0)
    errors = {k: variance[k:].sum().item() / 12 for k in kept}  # eq-wae-pca
    return {k: psnr(error) for k, error in errors.items()}
