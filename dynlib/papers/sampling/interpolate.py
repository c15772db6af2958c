"""What stands at the positions that were not computed: interpolations over a window, or one of two fillings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.cost import Costed

RBF, CONVOLUTION, AVERAGE, ZEROS, REUSE = "rbf", "convolution", "average", "zeros", "reuse"
NORMALISED = (RBF, AVERAGE)  # a weighted mean of the sampled neighbours
WINDOWED = (RBF, CONVOLUTION, AVERAGE)


def rbf_profile(sigma: Tensor, window: int) -> Tensor:
    """The factor (window,) of k(d) = sigma^2 / (2 pi) exp(-sigma^2 |d|^2 / 2) along one axis; sigma is a scalar."""
    away = torch.arange(window, device=sigma.device) - window // 2
    bell = torch.exp(-(sigma**2) * away**2 / 2)
    return sigma / math.sqrt(2 * math.pi) * bell  # eq-sampling-interpolation


def rbf_kernel(sigma: Tensor, window: int) -> Tensor:
    """k(d) as (window, window), d in positions."""
    profile = rbf_profile(sigma, window)
    return torch.outer(profile, profile)


def spread(x: Tensor, kernel: Tensor) -> Tensor:
    """Sum over the window: (N, C, H, W) with one kernel for all channels, (K, K) or its factor (K,), K odd.

    By its factor it is two sums over lines, 2 K products instead of K^2: training takes half the time.
    """
    channels, side = x.shape[1], kernel.shape[-1]
    shapes = [(side, side)] if kernel.dim() == 2 else [(side, 1), (1, side)]
    for height, width in shapes:
        weight = kernel.to(x.dtype).view(1, 1, height, width).expand(channels, 1, height, width)
        x = F.conv2d(x, weight, padding=(height // 2, width // 2), groups=channels)
    return x


def interpolate(
    features: Tensor,
    mask: Tensor,
    kernel: Tensor,
    epsilon: float | None,
) -> Tensor:
    """M F + (1 - M) recon: sampled positions as they are, the others from the sampled ones around them.

    recon(p) = sum_q k(p - q) M(q) F(q) / (sum_q k(p - q) M(q) + epsilon); 0 where the window holds no sample, or only
    such as the kernel rounds to 0. With `epsilon` None the sum stands as it is, which is a plain convolution.

    Args:
        features: (N, C, H, W); what stands where the mask is 0 does not matter.
        mask: (N, 1, H, W) in [0, 1].
        kernel: (K, K), or its factor (K,), K odd.
        epsilon: 0 for an exact mean, the same on a constant map; above 0 a sparse window is drawn towards 0.
    """
    kept = features * mask.to(features.dtype)
    share = 1 - mask
    if epsilon is not None:  # dividing on one channel trains a sixth faster
        total = spread(mask, kernel) + epsilon
        share = share / torch.where(total > 0, total, 1)
    recon, share = spread(kept, kernel), share.to(features.dtype)
    return torch.addcmul(kept, share, recon)  # eq-sampling-interpolation


class Filler(Costed, nn.Module):
    """Fills the unsampled positions of one map of features; its parameters are shared by all channels.

    `rbf` learns sigma; `convolution` learns a kernel, which starts as the normalised RBF; `average` takes the mean of
    the samples in the window; `zeros` leaves them empty; `reuse` takes what was there before.
    """

    def __init__(self, kind: str, window: int, sigma: float, epsilon: float):
        super().__init__()
        self.kind, self.window = kind, window
        self.epsilon = epsilon if kind in NORMALISED else None
        if kind == RBF:
            self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        elif kind == CONVOLUTION:
            start = rbf_kernel(torch.tensor(float(sigma)), window)
            start[window // 2, window // 2] = 0  # what is interpolated is not sampled itself
            self.weight = nn.Parameter(start / start.sum())

    def kernel(self) -> Tensor | None:
        """The weights (K, K) of the window; None where nothing is interpolated."""
        if self.kind == CONVOLUTION:
            return self.weight
        return torch.outer(self.profile(), self.profile()) if self.kind in NORMALISED else None

    def profile(self) -> Tensor:
        """The factor (K,) of the weights that have one."""
        return rbf_profile(self.sigma, self.window) if self.kind == RBF else torch.ones(self.window)

    def forward(self, features: Tensor, mask: Tensor, earlier: Tensor | None = None) -> Tensor:
        """(N, C, H, W) with every position filled; `earlier` (N, C', H, W) is what `reuse` takes.

        Where `earlier` has another number of channels they are taken in order, from the first again at its end.
        """
        if self.kind in WINDOWED:
            kernel = self.weight if self.kind == CONVOLUTION else self.profile().to(features.device)
            return interpolate(features, mask, kernel, self.epsilon)
        mask = mask.to(features.dtype)
        if self.kind == ZEROS:
            return features * mask
        return features * mask + (1 - mask) * repeated(earlier, features.shape[1])

    def macs(self, inputs: tuple, output: tuple) -> int:
        """Multiply-accumulates when the whole map is interpolated, as `forward` does it, from its shapes."""
        channels, height, width = output
        if self.kind == CONVOLUTION:
            return self.window**2 * channels * height * width
        planes = channels + 1  # the sum of the weights is one more
        return 2 * self.window * planes * height * width if self.kind in NORMALISED else 0


def repeated(x: Tensor, channels: int) -> Tensor:
    """The first `channels` channels of (N, C, H, W); where there are fewer they are repeated in order."""
    return x[:, torch.arange(channels, device=x.device) % x.shape[1]]
