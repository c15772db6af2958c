"""Residual blocks whose convolutions are computed at sampled positions, in the masked dense form that trains."""

from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models import resnet

from dynlib.backbones import cifar_resnet
from dynlib.errors import InputError
from dynlib.papers.sampling.branch import Integration
from dynlib.papers.sampling.interpolate import WINDOWED, Filler
from dynlib.papers.sampling.masks import Sampler

BLOCKS = (resnet.Bottleneck, resnet.BasicBlock, cifar_resnet.BasicBlock)  # what can be replaced


class Step(NamedTuple):
    """One convolution of a block."""

    conv: str
    norm: str
    mask: int  # which of the block's masks
    filled: bool  # whether the unsampled positions behind it get a value of their own


_CONVS = tuple((f"conv{i}", f"bn{i}") for i in (1, 2, 3))
# (convolutions of the block, masks): the mask of each convolution, whether what is behind it is filled, and the share
# of each mask in the sparse loss, which is about its share of the block's MACs.
_INTEGRATIONS = {
    (3, 1): ((0, 0, 0), (False, True, False), (1.0,)),  # Fig. 3, all three convolutions share a mask
    (3, 2): ((0, 1, 1), (True, True, False), (0.25, 0.75)),  # Fig. 3 (b), the default
    (3, 3): ((0, 1, 2), (True, True, True), (0.25, 0.5, 0.25)),  # Fig. 3, a mask for each
    (2, 1): ((0, 0), (False, True), (1.0,)),  # ours, as the paper has no basic blocks
    (2, 2): ((0, 1), (True, True), (0.5, 0.5)),
}


class SampledBlock(nn.Module):
    """A bottleneck or basic block with masks, (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounding up.

    It takes over the layers of `block` under their names. Everything is computed and masked: nothing is saved on the
    clock, see `deploy.py` for that. A convolution that shares its mask with the next one is filled only by
    interpolation. `zeros` and `reuse` drop the whole branch where its last mask is 0: the shortcut alone passes.

    Args:
        block: one of `BLOCKS`.
        masks: of the block, 1 to 3; a basic block has 1 or 2. With 1 the first convolution is 0 where it is not
            sampled; in a strided block it is sampled at all positions of the input that a sampled output stands for.
        number: of the first mask, counted over the network.
        kind, window, sigma, epsilon: of `Filler`.
        sampler: further settings of `Sampler`.
    """

    def __init__(
        self,
        block: nn.Module,
        masks: int,
        number: int,
        *,
        kind: str,
        window: int,
        sigma: float,
        epsilon: float,
        **sampler,
    ):
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        if block.downsample is None:
            self.downsample = None
        convs = 3 if hasattr(block, "conv3") else 2
        if (convs, masks) not in _INTEGRATIONS:
            raise InputError(f"masks is {masks}; a basic block has two convolutions and takes 1 or 2")
        of, filled, self.shares = _INTEGRATIONS[convs, masks]
        self.steps = tuple(Step(*names, *plan) for names, *plan in zip(_CONVS, of, filled, strict=False))
        self.kind = kind
        like = block.conv1.weight
        reach = [1] * masks  # how many times smaller than the input each mask is
        for index, step in enumerate(self.steps):
            strides = [getattr(self, before.conv).stride[0] for before in self.steps[: index + 1]]
            reach[step.mask] = max(strides)
        self.samplers = nn.ModuleList(
            Sampler(block.conv1.in_channels, stride, number + i, **sampler) for i, stride in enumerate(reach)
        )
        fills = [s.filled and (kind in WINDOWED or not self.shared(i)) for i, s in enumerate(self.steps)]
        fills[-1] &= kind in WINDOWED
        filled = [step.conv for step, fill in zip(self.steps, fills, strict=True) if fill]
        self.fillers = nn.ModuleDict({conv: Filler(kind, window, sigma, epsilon) for conv in filled})
        self.to(like)
        for part in (self, *self.samplers.modules(), *self.fillers.modules()):  # layers of the block keep their mode
            part.training = block.training

    @property
    def integration(self) -> Integration:
        """What is masked and filled: in front of a 1x1 convolution with the same mask, the outputs of that one."""
        filled = {
            f"fillers.{step.conv}": (self.steps[index + self.shared(index)].conv, step.mask)
            for index, step in enumerate(self.steps)
            if step.conv in self.fillers
        }
        return Integration(self.shares, {step.conv: step.mask for step in self.steps}, filled)

    def shared(self, index: int) -> bool:
        """Whether the convolution behind this one computes at the same positions."""
        return index + 1 < len(self.steps) and self.steps[index + 1].mask == self.steps[index].mask

    def forward(self, x: Tensor) -> Tensor:
        """The block, with every mask drawn from its input."""
        masks = [sampler(x).mask for sampler in self.samplers]
        return self.masked(x, masks)

    def masked(self, x: Tensor, masks: list[Tensor]) -> Tensor:
        """The block under given masks, each (N, 1, H, W) of its own size."""
        h = x
        for index, step in enumerate(self.steps):
            conv, before = getattr(self, step.conv), h
            h = getattr(self, step.norm)(conv(h))
            if index + 1 < len(self.steps):
                h = self.relu(h)
            mask = raised(masks[step.mask], h)
            if step.conv in self.fillers:
                stride = conv.stride[0]
                earlier = before[..., ::stride, ::stride]  # what `reuse` takes
                h = self.fillers[step.conv](h, mask, earlier)
            elif not step.filled and self.shared(index):
                h = h * mask.to(h.dtype)
        if self.kind not in WINDOWED:
            h = h * mask.to(h.dtype)
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


def raised(mask: Tensor, like: Tensor) -> Tensor:
    """The mask (N, 1, h, w) of a strided map at the positions of the larger map in front of it, each repeated."""
    (height, width), side = like.shape[-2:], mask.shape[-1]
    if width == side:
        return mask
    stride = -(-width // side)
    return mask.repeat_interleave(stride, 2).repeat_interleave(stride, 3)[..., :height, :width]


def sampled_blocks(network: nn.Module) -> dict[str, Integration]:
    """What was done to every sampled block of a network, by its name, in order."""
    return {
        name: part.integration if isinstance(part, SampledBlock) else part.meta["integration"]
        for name, part in network.named_modules()
        if isinstance(part, SampledBlock) or "integration" in getattr(part, "meta", ())
    }


def loss_shares(network: nn.Module) -> dict[str, float]:
    """The share of every mask in its block's sparse loss, by the sampler's name."""
    return {
        f"{name}.samplers.{index}": share
        for name, block in sampled_blocks(network).items()
        for index, share in enumerate(block.shares)
    }
