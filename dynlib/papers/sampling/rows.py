"""A sampled block in standard ONNX operators: what is not sampled is not computed.

A map is a matrix of rows, one a position, so a convolution at sampled positions is Gather and Gemm. Rows stand in the
order of tiles of `TILE` x `TILE` positions, whatever the map: then interpolating is one small matrix product a tile,
between the weights of its positions and the samples in and around it, and its result is again in order. A position that
is sampled has weight 1 at itself. Blocks hand rows on; only what else reads a map turns rows into one.

There is no way back to dense blocks where most is sampled: they would have to be interpolated all the same, and that is
what costs then. A 3x3 convolution computed everywhere instead was not faster at any density up to 0.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.ops import PadShortcut, fused
from dynlib.papers.sampling.block import SampledBlock, Step
from dynlib.papers.sampling.interpolate import NORMALISED, REUSE, WINDOWED, ZEROS
from dynlib.papers.sampling.layout import CERTAIN, TILE, Layout, Nodes, cropped, window_weights
from dynlib.papers.sampling.masks import Sampler, grid


@dataclass(frozen=True)
class Positions:
    """What one mask samples: names of values in the graph."""

    layout: Layout
    found: str  # (n,) rows, in order
    number: str  # (N, rows): which of the samples a row is, from 1 up; 0 where it is none


class BlockWriter:
    """Writes one sampled block.

    Args:
        name: of the block, for messages and names.
        block: what is written, in evaluation mode.
        layout: of the rows that it reads.
    """

    def __init__(self, name: str, block: SampledBlock, layout: Layout):
        self.name, self.block, self.inp = name, block, layout
        self.g = Nodes(f"{name}_rows")

    def write(self, x: str, forced: str, draws: Sequence[str]) -> tuple[str, Layout, int]:
        """Write the block: output rows, their layout and channels, from input rows, forced logits (N,) and draws."""
        g, block = self.g, self.block
        channels = block.conv1.in_channels
        masks = self._masks(x, forced, draws, channels)
        groups: list[list[Step]] = []
        for index, step in enumerate(block.steps):
            shared = index and step.mask == block.steps[index - 1].mask
            if shared and getattr(block, step.conv).kernel_size == (1, 1):
                groups[-1].append(step)
            else:
                groups.append([step])
        source, layout, count = x, self.inp, channels
        for index, steps in enumerate(groups):
            stride = getattr(block, steps[0].conv).stride[0]
            layout_out = layout.strided(stride)
            at = self._positions(masks[steps[0].mask], layout_out)
            is_end = index == len(groups) - 1
            samples, bias, width = self._samples(steps, source, layout, at, is_end)
            if not is_end:
                source = self._filled(steps, samples, at, None, width, (source, layout, stride, count))
                layout, count = layout_out, width
        branch = self._filled(steps, samples, at, bias, width, None)
        total = g("Relu", g("Add", self._shortcut(x, channels, layout_out, width), branch))
        return total, layout_out, width

    # -------------------------------------------------------------------------------------------------------- positions

    def _masks(self, x: str, forced: str, draws: Sequence[str], channels: int) -> list[tuple[str, Layout]]:
        """Of each sampler its mask (N, 1, H, W), bool. The nine taps of all scores are one product."""
        g, samplers = self.g, self.block.samplers
        taps = torch.cat([sampler.score.weight.detach()[0].flatten(1).T for sampler in samplers])  # (9 masks, C)
        products = g.map_of_rows(g("MatMul", x, g.floats(taps.T)), self.inp, len(taps))
        forced = g.reshape(forced, -1, 1, 1, 1)
        picks = np.zeros((len(samplers), len(taps), 3, 3), np.float32)
        for tap in range(len(taps)):
            picks[tap // 9, tap, tap % 9 // 3, tap % 3] = 1
        strides, count = [sampler.score.stride[0] for sampler in samplers], len(samplers)
        bias = g.floats(torch.cat([sampler.score.bias for sampler in samplers]))
        scores = {}
        for stride in set(strides):
            score = g("Conv", products, g.floats(picks), bias, strides=[stride] * 2, pads=[1] * 4)
            scores[stride] = [score] if count == 1 else g("Split", score, outputs=count, axis=1, num_outputs=count)
        found = zip(samplers, draws, strides, strict=True)
        return [self._mask(s, scores[stride][i], forced, draw, stride) for i, (s, draw, stride) in enumerate(found)]

    def _mask(self, sampler: Sampler, score: str, forced: str, draw: str, stride: int) -> tuple[str, Layout]:
        g, layout = self.g, self.inp.strided(stride)
        if sampler.density is not None:
            logit = np.log(sampler.density) - np.log1p(-sampler.density)
            # Scored all the same, as if it had learned to.
            score = g("Where", g("IsNaN", score), score, g.floats(logit))
        logits = g("Where", g("IsNaN", forced), score, forced)
        probability = g("Sigmoid", logits)
        if sampler.deterministic:
            mask = g("GreaterOrEqual", probability, g.floats(0.5))
        else:
            mask = g("Less", draw, probability)
        if sampler.interval is not None:
            always = grid(layout.height, layout.width, sampler.interval)[None, None]
            mask = g("Or", mask, g.const(always, bool))
        return mask, layout

    def _positions(self, mask: tuple[str, Layout], layout: Layout) -> Positions:
        """The samples of a mask in the rows of a map that may be as much larger as the convolution's stride."""
        g, (mask, small) = self.g, mask
        ratio = -(-layout.width // small.width)  # of one mask in a strided block: each position stands for several
        (i, j), beyond = layout.places(), small.height * small.width
        inside = (i < layout.height) & (j < layout.width)
        place = np.where(inside, i // ratio * small.width + j // ratio, beyond)
        numbers = g("Cast", g.reshape(mask, 0, -1), to=TensorProto.INT32)  # (N, H W)
        padded = g("Pad", numbers, g.const([0, 0, 0, 1]))  # by one that is never sampled
        flags = g("Gather", padded, g.const(place), axis=1)  # (N, rows)
        flat = g.reshape(flags, -1)
        found = g.reshape(g("NonZero", flat), -1)
        number = g("Mul", g("CumSum", flat, g.const(0)), flat)
        return Positions(layout, found, g.reshape(number, -1, layout.rows))

    # ----------------------------------------------------------------------------------------------------- convolutions

    def _samples(self, steps: list[Step], source: str, layout: Layout, at: Positions, is_end: bool):
        """Rows (n, C) of the samples behind a group's convolutions, the bias that is still to be added, and C."""
        g, value, bias = self.g, None, None
        kind = self._kind(steps)
        for number, step in enumerate(steps):
            conv = getattr(self.block, step.conv)
            weight, bias = fused(conv, getattr(self.block, step.norm))
            last = is_end and number == len(steps) - 1
            later = last and (number > 0 or kind not in WINDOWED)  # added where the branch is, not interpolated
            own = None if later else bias
            if number:
                value = self._gemm(value, weight.flatten(1).T, own)
            else:
                value = self._first(conv, weight, own, source, layout, at)
            if not last:
                value = g("Relu", value)
        return value, bias if later else None, weight.shape[0]

    def _kind(self, steps: list[Step]) -> str:
        return self.block.kind if any(step.filled for step in steps) else ZEROS

    def _gemm(self, x: str, matrix: Tensor, bias: Tensor | None) -> str:
        g = self.g
        product = ("Gemm", x, g.floats(matrix.contiguous()))
        return g(*product) if bias is None else g(*product, g.floats(bias))

    def _first(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, source: str, layout: Layout, at: Positions):
        """A convolution at sampled positions of a map that is complete in `source`."""
        g, side = self.g, conv.kernel_size[0]
        stride, dilation = conv.stride[0], conv.dilation[0]
        i, j = at.layout.places()
        shift = (np.arange(side) - side // 2) * dilation
        lines, columns = i[:, None, None] * stride + shift[:, None], j[:, None, None] * stride + shift
        taps = layout.row_at(*np.broadcast_arrays(lines, columns)).reshape(len(i), -1)  # (rows, K^2)
        if side == conv.groups == 1 and at.layout == layout:
            return self._gemm(g("Gather", source, at.found, axis=0), weight.flatten(1).T, bias)
        per_image = g.const(at.layout.rows)
        image, place = g("Div", at.found, per_image), g("Mod", at.found, per_image)
        first = g("Mul", g.reshape(image, -1, 1), g.const(layout.rows))
        read = g("Gather", g.const(taps), place, axis=0)
        index = g("Where", g("Less", read, g.const(0)), g.const(-1), g("Add", read, first))  # -1: the row of zeros
        zeros = g.floats(np.zeros((1, weight.shape[1] * conv.groups)))
        rows = g("Gather", g("Concat", source, zeros, axis=0), index, axis=0)  # (n, K^2, C)
        if conv.groups > 1:
            return self._grouped(conv, weight, bias, rows)
        return self._gemm(g.reshape(rows, -1, weight[0].numel()), weight.permute(2, 3, 1, 0).flatten(0, 2), bias)

    def _grouped(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, rows: str) -> str:
        """Rows (n, K^2, C) times the kernel of a convolution with groups."""
        g, groups, taps = self.g, conv.groups, weight[0, 0].numel()
        parts = g("Transpose", g.reshape(rows, 0, taps, groups, weight.shape[1]), perm=[2, 0, 1, 3])
        parts = g.reshape(parts, groups, -1, taps * weight.shape[1])
        matrices = weight.permute(0, 2, 3, 1).flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)  # (G, K^2 C, C')
        product = g("Transpose", g("MatMul", parts, g.floats(matrices.contiguous())), perm=[1, 0, 2])
        product = g.reshape(product, -1, len(weight))
        return product if bias is None else g("Add", product, g.floats(bias))

    # ---------------------------------------------------------------------------------------------- what is not sampled

    def _filled(self, steps: list[Step], samples: str, at: Positions, bias: Tensor | None, width: int, before) -> str:
        """All rows behind a group: the samples, and between them what its filler says; `bias` is added to them."""
        g, kind = self.g, self._kind(steps)
        if kind not in WINDOWED:
            if bias is not None:
                samples = g("Add", samples, g.floats(bias))
            first = g.floats(np.zeros((1, width)))
            rows = g("Gather", g("Concat", first, samples, axis=0), g.reshape(at.number, -1), axis=0)
            if kind == REUSE and before is not None:
                sampled = g.reshape(g("Greater", at.number, g.const(0, np.int32)), -1, 1)
                rows = g("Where", sampled, rows, self._earlier(at.layout, width, *before))
            return rows
        filler = next(self.block.fillers[step.conv] for step in steps if step.conv in self.block.fillers)
        kernel = cropped(filler.kernel().detach().numpy(), filler.epsilon)
        which, index = self._around(at, len(kernel) // 2)
        weights = g("Gather", g.floats(window_weights(kernel)), which, axis=0)  # (N tiles, most, TILE^2)
        total = g("ReduceSum", weights, g.const([1]), keepdims=1)
        least = CERTAIN / 2  # what is not normalised is divided where it is sampled alone
        if filler.kind in NORMALISED:
            total, least = g("Add", total, g.floats(filler.epsilon)), 0
        weights = g("Div", weights, g("Where", g("Greater", total, g.floats(least)), total, g.floats(1)))
        first = np.zeros((1, width)) if bias is None else bias[None]  # what stands in for a sample that is not there
        if bias is not None:
            tiles = g("Slice", g("Shape", index), g.const([0]), g.const([1]))
            ones = g("Expand", g.floats(np.ones((1, 1, TILE**2))), g("Concat", tiles, g.const([1, 1]), axis=0))
            weights = g("Concat", weights, ones, axis=1)
            index = g("Pad", index, g.const([0, 0, 0, 1]))
        table = g("Concat", g.floats(first), samples, axis=0)
        around = g("Gather", table, index, axis=0)  # (N tiles, most, C)
        product = g("MatMul", g("Transpose", weights, perm=[0, 2, 1]), around)
        return g.reshape(product, -1, width)

    def _around(self, at: Positions, reach: int) -> tuple[str, str]:
        """The samples in and around each tile: their places in its window, and their numbers, (N tiles, most) each.

        Lines have the length of the longest; the others end with the last place of a window, which has no sample.
        """
        g = self.g
        windows = at.layout.windows(reach)
        places, one = windows.shape[1], g.const([1])
        padded = g("Pad", at.number, g.const([0, 0, 0, 1]))
        number = g.reshape(g("Gather", padded, g.const(windows.ravel()), axis=1), -1, places)
        is_there = g("Greater", number, g.const(0, np.int32))
        rank = g("CumSum", g("Cast", is_there, to=TensorProto.INT64), g.const(1))  # from 1 up
        counts = g("Slice", rank, g.const([places - 1]), g.const([places]), one)
        most = g.reshape(g("Max", g("ReduceMax", counts), g.const(1)), 1)
        slot = g("Where", is_there, g("Sub", rank, one), most)  # one more slot, cut off below, for what is not there
        shape = g("Concat", g("Slice", g("Shape", number), g.const([0]), one), g("Add", most, one), axis=0)
        empty = g("ConstantOfShape", shape, value=helper.make_tensor("value", TensorProto.INT64, [1], [places - 1]))
        every = g("Expand", g.const(np.arange(places)[None]), g("Shape", number))
        which = g("ScatterElements", empty, slot, every, axis=1)
        which = g("Slice", which, g.const([0]), most, one)
        return which, g("GatherElements", number, which, axis=1)

    def _earlier(self, layout: Layout, width: int, source: str, inp: Layout, stride: int, channels: int) -> str:
        """What `reuse` takes: the map in front of the convolution, its channels in order, from the first again."""
        g = self.g
        rows = self._strided(source, inp, layout, stride, channels)
        return g("Gather", rows, g.const(np.arange(width) % channels), axis=1)

    def _strided(self, source: str, inp: Layout, layout: Layout, stride: int, channels: int) -> str:
        """Every so many-th line and column of a map, in rows."""
        if stride == 1:
            return source
        g = self.g
        i, j = layout.places()
        rows = np.maximum(inp.row_at(i * stride, j * stride), 0)
        picked = g("Gather", g.reshape(source, -1, inp.rows, channels), g.const(rows), axis=1)
        return g.reshape(picked, -1, channels)

    def _shortcut(self, x: str, channels: int, layout: Layout, width: int) -> str:
        """The rows that the branch is added to."""
        g, down = self.g, self.block.downsample
        if down is None:
            return x
        if isinstance(down, PadShortcut):
            rows = self._strided(x, self.inp, layout, down.stride, channels)
            return g("Pad", rows, g.const([0, down.before, 0, width - channels - down.before]))
        conv = down[0] if isinstance(down, nn.Sequential) and len(down) == 2 else None
        if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (1, 1) or conv.groups > 1:
            raise InputError(
                f"{self.name}.downsample: {down} has no sampled form; allowed: a 1x1 convolution, batch norm"
            )
        weight, bias = fused(conv, down[1])
        return self._gemm(self._strided(x, self.inp, layout, conv.stride[0], channels), weight.flatten(1).T, bias)
