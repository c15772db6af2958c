"""A sampled block that skips: gather the sampled rows, multiply, and write over the shortcut in one last pass.

- A 3x3 convolution reads its nine rows a position straight from the table of samples (first those, then what had to be
  interpolated because a neighbour reads it): no map in between, no zeros, and one matrix product.
- A 1x1 convolution behind it with the same mask stays on the samples. It is affine and so is the interpolation: its
  outputs are interpolated without their bias, which is then added everywhere. This is exact, epsilon and empty windows
  included.
- Buffers are shared by all blocks, and a block's output takes the place of its input.

A block that samples more than its `break_even` is computed densely, and then interpolated all the same: the outputs do
not depend on the choice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynlib.fusion import affine, conv, freeze, pack
from dynlib.papers.sampling.block import SampledBlock, Step, raised
from dynlib.papers.sampling.gather import KERNELS, Product, Workspace, tail, weighted
from dynlib.papers.sampling.interpolate import REUSE, WINDOWED, ZEROS

CHUNK = 512  # rows gathered at a time, so that they are still in the cache when they are multiplied


class Group(nn.Module):
    """Convolutions of a block at the same positions: one that gathers its input, and perhaps a 1x1 behind it."""

    def __init__(self, block: SampledBlock, steps: Sequence[Step], sizes: Sequence[tuple[int, ...]]):
        super().__init__()
        first, last = steps[0], steps[-1]
        is_end = last is block.steps[-1]
        self.mask, self.is_end = first.mask, is_end
        self.kind = block.kind if any(step.filled for step in steps) else ZEROS
        filler = next((block.fillers[step.conv] for step in steps if step.conv in block.fillers), None)
        self.epsilon = None if filler is None else filler.epsilon
        self.kernel = None if filler is None or self.kind not in WINDOWED else filler.kernel().detach().clone()
        # What comes out of a 1x1 with a fill in front of it has its bias outside of the interpolation.
        self.products = nn.ModuleList()
        for step, size in zip(steps, sizes, strict=True):
            layer, norm = getattr(block, step.conv), getattr(block, step.norm)
            scale, shift = affine(norm)
            offset = shift if layer.bias is None else layer.bias.detach() * scale + shift
            weight = layer.weight.detach() * scale[:, None, None, None]
            self.products.append(Product(layer, weight, offset, size))
        channels = self.products[-1].out_channels
        self.bias = torch.zeros(channels)
        if is_end and (len(steps) > 1 or self.kind not in WINDOWED):
            self.bias = self.products[-1].bias
            self.products[-1].bias = None

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Side, stride and dilation of the gathering convolution."""
        return self.products[0].geometry


class SparseBlock(nn.Module):
    """A `SampledBlock` that skips: (N, C_in, H, W) channels-last -> (N, C_out, H / stride, W / stride)."""

    def __init__(self, block: SampledBlock, example: Tensor, workspace: Workspace, owns_input: bool):
        super().__init__()
        self.workspace, self.owns_input = workspace, owns_input
        self.break_even = 1.0  # share of the MACs beyond which the block is computed densely
        self.samplers = block.samplers
        self.shares = block.shares
        # A score's nine taps are nine 1x1 convolutions; those of all scores are one product.
        scores = [sampler.score.weight.detach()[0].flatten(1).T for sampler in block.samplers]  # (9, C) each
        score = torch.cat(scores)[:, :, None, None].contiguous()
        self.score = pack(score, [0, 0], [1, 1], [1, 1], 1, list(example.shape))
        groups: list[list[Step]] = []
        sizes: list[list[tuple[int, ...]]] = []
        size = tuple(example.shape)
        for index, step in enumerate(block.steps):
            layer = getattr(block, step.conv)
            if index and step.mask == block.steps[index - 1].mask and layer.kernel_size == (1, 1):
                groups[-1].append(step)
                sizes[-1].append(size)
            else:
                groups.append([step])
                sizes.append([size])
            size = (size[0], layer.out_channels, *(-(-side // layer.stride[0]) for side in size[2:]))
        self.groups = nn.ModuleList(Group(block, *of) for of in zip(groups, sizes, strict=True))
        self.downsample = None
        if block.downsample is not None:
            projection = isinstance(block.downsample, nn.Sequential)
            self.downsample = freeze(block.downsample, example) if projection else block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """The block, with every mask drawn from its input."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.masked(x, self.masks(x))

    def masks(self, x: Tensor) -> list[Tensor]:
        """The mask (N, 1, H, W) of each sampler."""
        parts = conv(x, self.score, None, [1, 1], [0, 0], [1, 1], 1, False).permute(0, 2, 3, 1)
        masks = []
        for index, sampler in enumerate(self.samplers):
            stride = sampler.score.stride[0]
            size = tuple(-(-side // stride) for side in x.shape[2:])
            logits = KERNELS.shifted_sum(parts, 9 * index, sampler.score.bias.item(), stride, size)
            density = self.workspace.density if sampler.density is None else torch.tensor([sampler.density])
            if density is not None:
                logits = torch.logit(density)[:, None, None, None].expand_as(logits)
            masks.append(sampler.sample(logits).mask)
        return masks

    def masked(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """The block under given hard masks."""
        density = sum(share * mask.mean().item() for share, mask in zip(self.shares, masks, strict=True))
        size = tuple(x.shape[2:])
        positions, maps = [], []
        for group in self.groups:
            size = tuple(-(-side // group.geometry[1]) for side in size)
            mask = raised(masks[group.mask], torch.empty(0, 1, *size)).flatten() > 0
            found = mask.nonzero().flatten()
            row_of = torch.full((len(mask),), -1, dtype=torch.int32)
            row_of[found] = torch.arange(len(found), dtype=torch.int32)
            positions.append(found)
            maps.append(row_of.view(len(x), *size))
        compute = self._dense if density > self.break_even else self._sparse
        rows, row_of = compute(x, positions, maps)
        out = self._shortcut(x)
        end = self.groups[-1]
        missing = (row_of.flatten() < 0).nonzero().flatten().int() if end.kernel is not None else positions[-1][:0]
        bags = self._bags(end, maps[-1], row_of, missing)
        tail(rows, row_of.flatten(), *bags, end.bias, end.kernel is None, _rows(out))
        return out

    def _shortcut(self, x: Tensor) -> Tensor:
        """A map that the block may write its output over."""
        if self.downsample is not None:
            return self.downsample(x).contiguous(memory_format=torch.channels_last)
        return x if self.owns_input else x.clone(memory_format=torch.channels_last)

    def _bags(self, group: Group, samples: Tensor, row_of: Tensor, missing: Tensor) -> tuple[Tensor, ...]:
        """The interpolation of the missing positions from those that the group has sampled."""
        if group.kernel is None:
            return torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0)
        return KERNELS.bags(torch.where(samples < 0, -1, row_of), missing, group.kernel, group.epsilon)

    def _sparse(self, x: Tensor, positions: list[Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows (R, C) of the last group, and which of them holds a position."""
        source, indices, last = _rows(x), None, len(self.groups) - 1
        for index, (group, found) in enumerate(zip(self.groups, positions, strict=True)):
            if index == 0:
                source, indices = self._entry(x, group, found, maps[0])
            missing, following = found[:0], None
            if index < last:
                following = self.groups[index + 1]
                read = KERNELS.taps(
                    maps[index], positions[index + 1], tuple(maps[index + 1].shape[1:]), following.geometry, len(found)
                )
                following_indices, missing = read
            channels = group.products[-1].out_channels
            table = self.workspace.take(f"table{index}", 1 + len(found) + len(missing), channels)
            table[0] = 0
            samples = table[1 : 1 + len(found)]
            self._multiply(group, source, indices, samples)
            if len(missing):
                self._fill(group, x, maps[index], missing, samples, table[1 + len(found) :])
            if following is not None:
                source, indices = table, following_indices
        return samples, maps[-1]

    def _entry(self, x: Tensor, group: Group, found: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the block's input, and which of them its first convolution reads."""
        rows = _rows(x)
        if group.geometry[0] == 1:
            return rows, found[:, None]
        table = self.workspace.take("input", 1 + len(rows), rows.shape[1])
        table[0], table[1:] = 0, rows
        everywhere = torch.arange(len(rows), dtype=torch.int32).view(len(x), *x.shape[2:])
        return table, KERNELS.taps(everywhere, found, tuple(samples.shape[1:]), group.geometry, len(rows))[0]

    def _multiply(self, group: Group, source: Tensor, indices: Tensor, out: Tensor) -> None:
        """Gather, multiply, and multiply again, a few hundred rows at a time, so that they stay in the cache."""
        first, *rest = group.products
        width = indices.shape[1] * source.shape[1]
        for begin in range(0, len(indices), CHUNK):
            part = indices[begin : begin + CHUNK]
            gathered = self.workspace.take("gathered", part.numel(), source.shape[1])
            torch.index_select(source, 0, part.flatten(), out=gathered)
            target = out[begin : begin + CHUNK]
            value = self.workspace.take("between", len(part), first.out_channels) if rest else target
            first(gathered.view(len(part), width), value)
            if rest:
                rest[0](value.relu_(), target)
            if not group.is_end:
                target.relu_()

    def _fill(self, group: Group, x: Tensor, row_of: Tensor, missing: Tensor, samples: Tensor, out: Tensor) -> None:
        """What stands at missing positions, into `out` (M, C)."""
        if group.kernel is not None:
            weighted(samples, *KERNELS.bags(row_of, missing, group.kernel, group.epsilon), out)
        elif group.kind == REUSE:
            stride, (height, width) = group.geometry[1], row_of.shape[1:]
            image, place = missing // (height * width), missing % (height * width)
            entry = image * (x.shape[2] * x.shape[3]) + place // width * stride * x.shape[3] + place % width * stride
            channels = torch.arange(out.shape[1]) % x.shape[1]
            torch.index_select(_rows(x).index_select(0, entry), 1, channels, out=out)
        else:
            out.zero_()

    def _dense(self, x: Tensor, positions: list[Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The same with every convolution at every position; only what is sampled is used."""
        h = x
        for group, row_of in zip(self.groups, maps, strict=True):
            for product in group.products:
                h = product.everywhere(h, relu=not (group.is_end and product is group.products[-1]))
            rows = _rows(h)
            own = torch.arange(len(rows), dtype=torch.int32).view_as(row_of)
            if not group.is_end:
                missing = (row_of.flatten() < 0).nonzero().flatten().int()
                filled = self.workspace.take("filled", len(missing), rows.shape[1])
                self._fill(group, x, torch.where(row_of < 0, -1, own), missing, rows, filled)
                rows.index_copy_(0, missing.long(), filled)
        return rows, torch.where(row_of < 0, -1, own)


def _rows(x: Tensor) -> Tensor:
    """A channels-last map (N, C, H, W) as rows (N H W, C), sharing its memory."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])
