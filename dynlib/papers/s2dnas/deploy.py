"""Networks with stages for inference on a CPU: one network a stage, real exits.

Each stage of `split.py` is frozen: batch norm folded, additions and ReLU fused, kernels packed. At batch 1 the
stages after the exit do not run. In a batch, images that have left are dropped from all kept pieces where that spares
at least a tenth of the batch, and carried along otherwise.

Stages are thin. A convolution of four channels spends its time on being called, and which of the ways to call it is
fastest depends on the machine, so each convolution is timed in three ways on the example and keeps the fastest.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dynlib import fusion
from dynlib.errors import InputError
from dynlib.fusion import Freezer
from dynlib.ops import evaluating
from dynlib.papers.s2dnas.layers import Exits
from dynlib.papers.s2dnas.split import Piece, split

COMPACT_FROM = 0.1  # share of the images still there that must have left before the rest is gathered
TRIES = 5  # timings of each way to run a convolution


def plain_conv(x, weight, bias, stride, padding, dilation, groups, relu, other=None, layout=torch.channels_last):
    """relu(conv(x) + other) by torch's own convolution, its map in `layout`; all tensors come and go channels-last."""
    y = F.conv2d(x.contiguous(memory_format=layout), weight, bias, stride, padding, dilation, groups)
    y = y.contiguous(memory_format=torch.channels_last)
    y = y if other is None else y.add_(other)
    return y.relu_() if relu else y


def _duration(function: Callable, *args) -> int:
    """Nanoseconds of the fastest of a few calls."""
    times = []
    for _ in range(TRIES):
        began = time.perf_counter_ns()
        function(*args)
        times.append(time.perf_counter_ns() - began)
    return min(times)


class _StageFreezer(Freezer):
    """Freezes a stage, which has several inputs and small convolutions."""

    def __init__(self, network: fx.GraphModule, example: Tensor, values: list[Tensor]):
        super().__init__(network, example)
        names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
        self._values = dict(zip(names, values, strict=True))

    def step(self, node: fx.Node) -> object:
        """As `Freezer.step`; each input has its own name and example."""
        if node.op != "placeholder":
            return super().step(node)
        new = self.graph.placeholder(node.name)
        new.meta["value"] = self._values[node.name]
        return new

    def convolve(self, x, weight, bias, stride, padding, dilation, groups, other=None, relu=False) -> fx.Node:
        """Write relu(conv(x) + other) in the way that is fastest for the example."""
        geometry = (list(stride), list(padding), list(dilation), groups)
        image = x.meta["value"]
        size = list(image.shape)
        added = None if other is None else other.meta["value"]
        last = weight.contiguous(memory_format=torch.channels_last)
        packed = fusion.pack(weight, geometry[1], geometry[0], geometry[2], groups, size)
        fused = (fusion.conv, packed, ()) if other is None else (fusion.conv_add, packed, (added,))
        ways = [
            fused,
            (plain_conv, last, (added, torch.channels_last)),
            (plain_conv, weight.contiguous(), (added, torch.contiguous_format)),
        ]
        times = [_duration(run, image, kernel, bias, *geometry, relu, *rest) for run, kernel, rest in ways]
        run, kernel, rest = ways[min(range(len(ways)), key=times.__getitem__)]
        arguments = (x, self.constant(kernel), self.constant(bias), *geometry, relu)
        return self.call(run, *arguments, *(other if value is added else value for value in rest))


class EarlyExit(nn.Module):
    """A network with stages that stops where it is sure: inference only, float32, CPU."""

    def __init__(self, model: fx.GraphModule, example: Tensor):
        super().__init__()
        self._stages = []
        self._thresholds = model.exit_rule.thresholds.tolist()
        with torch.inference_mode(), evaluating(model):
            stages = split(model)
            kept: dict[Piece, Tensor] = {}
            for stage in stages:
                image = example.contiguous(memory_format=torch.channels_last)
                values = [kept.get(piece, image) for piece in stage.inputs]
                frozen = _StageFreezer(stage.network, example, values).run().graph
                self.add_module(f"stage_{len(self._stages) + 1}", frozen)
                kept |= dict(zip(stage.outputs, frozen(*values)[1:], strict=True))
                self._stages.append((stage.inputs, stage.outputs))
        last = {piece: number for number, (inputs, _) in enumerate(self._stages) for piece in inputs}
        self._spent = [[piece for piece, at in last.items() if at == number] for number in range(len(self._stages))]

    @torch.inference_mode()
    def forward(self, images: Tensor, choices: Tensor | None = None) -> Exits:
        """Images (N, 3, H, W), any N; with `choices` (N,), int64, exits are forced, yet confidence is still computed.

        Raises InputError for images of another type or layout and for choices that are no exits of the images.
        """
        count, last = len(images), len(self._thresholds)
        if images.ndim != 4 or (images.dtype, images.device.type) != (torch.float32, "cpu"):
            raise InputError(
                f"images are {images.dtype} {tuple(images.shape)} on {images.device}; float32 (N, C, H, W) on the CPU"
            )
        if choices is not None and (
            choices.dtype != torch.int64 or choices.shape != (count,) or not ((choices >= 0) & (choices <= last)).all()
        ):
            raise InputError(f"choices are {choices.dtype} {tuple(choices.shape)}; int64 ({count},) from 0 to {last}")
        images = images.contiguous(memory_format=torch.channels_last)
        if count == 1:
            return self._one(images, None if choices is None else int(choices))
        return self._many(images, choices)

    def _one(self, image: Tensor, choice: int | None) -> Exits:
        """A single image: whatever is not its class scores is a number or a list."""
        kept, found = {self._stages[0][0][0]: image}, []
        for number, (inputs, outputs) in enumerate(self._stages):
            logits, *pieces = getattr(self, f"stage_{number + 1}")(*[kept[piece] for piece in inputs])
            found.append(logits)
            if number == len(self._thresholds):
                break
            sure = logits.softmax(-1).amax().item() >= self._thresholds[number]
            if sure if choice is None else choice <= number:
                break
            kept |= dict(zip(outputs, pieces, strict=True))
        missing = [torch.full_like(logits, torch.nan)] * (len(self._stages) - len(found))
        return Exits(logits, torch.tensor([number]), torch.stack(found + missing))

    def _many(self, images: Tensor, choices: Tensor | None) -> Exits:
        """A batch, from which those that have left are dropped now and then."""
        count, last = len(images), len(self._thresholds)
        kept = {self._stages[0][0][0]: images}
        rows, active = torch.arange(count), torch.ones(count, dtype=torch.bool)  # who is there, who has not left
        taken, exits = torch.full((count,), last), None
        for number, (inputs, outputs) in enumerate(self._stages):
            network = getattr(self, f"stage_{number + 1}")
            logits, *pieces = network(*[kept[piece] for piece in inputs])
            kept |= dict(zip(outputs, pieces, strict=True))
            if exits is None:
                exits = logits.new_full((last + 1, *logits.shape), torch.nan)
            exits[number, rows] = logits
            if number == last:
                break
            sure = logits.softmax(-1).amax(-1) >= self._thresholds[number]
            leaves = active & (sure if choices is None else choices[rows] <= number)
            taken[rows[leaves]] = number
            active &= ~leaves
            if not active.any():
                break
            for piece in self._spent[number]:
                del kept[piece]
            if len(active) - active.sum() >= COMPACT_FROM * len(active):
                stay = active.nonzero().flatten()
                kept = {piece: value.index_select(0, stay) for piece, value in kept.items()}
                rows, active = rows[stay], active[stay]
        return Exits(exits[taken, torch.arange(count)], taken, exits)
