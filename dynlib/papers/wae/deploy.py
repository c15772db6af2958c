"""Wrapped networks for inference on a CPU.

Towers and heads are frozen as any network's. The encoder is the one part at full side: three convolutions of 16
channels, which move more memory than they multiply. It runs in strips of rows whose maps stay in the cache, and the
convolutions for I_L and I_H, which read the same map, are one.
"""

import torch
from torch import Tensor, fx

from dynlib.fusion import Freezer, conv, pack
from dynlib.papers.wae.split import WIDTH, Encoder

STRIP = (
    2**18
)  # numbers in a strip's map, 1 MiB: fastest of 1/2, 1, 2 and 4 on a core with a second-level cache of 1 MiB
HALO = 4  # rows beyond a strip that its half-size rows look at: one a convolution


def strip_rows(height: int, width: int) -> int:
    """Rows in a strip: an even number, strips of one image alike but for the last."""
    strips = max(1, round(height * width * WIDTH / STRIP))
    return -(-height // (2 * strips)) * 2


def encode(images: Tensor, both: bool, *kernels: Tensor) -> tuple[Tensor, Tensor | None]:
    """I_L and I_H, or None for the latter, from packed kernels and biases of the four layers in turn.

    Rows at the seams of strips are computed twice: 4 % more multiply-adds at 224 px.
    """
    height, width = images.shape[-2:]
    rows, layers = strip_rows(height, width), list(zip(kernels[::2], kernels[1::2], strict=True))
    small = []
    for image in images.split(1):
        for top in range(0, height, rows):
            first, last = max(0, top - HALO), min(height, top + rows + HALO)
            x = image[:, :, first:last]
            for kernel, bias in layers[:-1]:
                x = conv(x, kernel, bias, [1, 1], [1, 1], [1, 1], 1, True)
            x = conv(x, *layers[-1], [2, 2], [1, 1], [1, 1], 1, False)  # (1, 6, rows / 2 and halo, W / 2)
            small.append(x[:, :, (top - first) // 2 : (top - first + rows) // 2])
    strips = len(small) // len(images)
    joined = torch.cat([torch.cat(small[i : i + strips], 2) for i in range(0, len(small), strips)])
    return tuple(joined.split(3, 1)) if both else (joined, None)


class WaeFreezer(Freezer):
    """Writes the encoder as one call in strips."""

    def copy(self, node: fx.Node, what: object) -> fx.Node:
        """The encoder; all else as it is."""
        if not isinstance(what, Encoder):
            return super().copy(node, what)
        (source, both), trunk = node.args, what.trunk
        images = self.write(self.values[source])
        ends = [what.low, what.high] if both else [what.low]
        end = [torch.cat([getattr(layer, name).detach() for layer in ends]) for name in ("weight", "bias")]
        layers = [[layer.weight.detach(), layer.bias.detach()] for layer in (trunk.conv1, trunk.conv2, trunk.conv3)]
        height, width = images.meta["value"].shape[-2:]
        kernels = []
        for stride, (weight, bias) in zip((1, 1, 1, 2), (*layers, end), strict=True):
            size = [1, weight.shape[1], min(height, strip_rows(height, width) + 2 * HALO), width]
            packed = pack(weight, [1, 1], [stride, stride], [1, 1], 1, size)
            kernels += [self.constant(packed), self.constant(bias)]
        return self.call(encode, images, both, *kernels)
