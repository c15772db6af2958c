"""Sampled networks as one ONNX graph in which what is not sampled is not computed.

torch exports the network with a placeholder for every sampled block; `rows.py` writes what takes its place.
The draws of the masks are inputs of the graph: chance stays outside, see `dynlib.runtime.Sampled`.
"""

import copy
from collections.abc import Iterable

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from dynlib import export
from dynlib.errors import InputError
from dynlib.ops import LinearResize, watching
from dynlib.papers.sampling.baselines import ShrunkConv2d, shrink
from dynlib.papers.sampling.block import SampledBlock, sampled_blocks
from dynlib.papers.sampling.convert import DENSITIES
from dynlib.papers.sampling.layout import Layout, Nodes
from dynlib.papers.sampling.rows import BlockWriter
from dynlib.runtime import Deployed, Sampled

DOMAIN = "dynlib"  # of the placeholders


class _Placeholder(nn.Module):
    """Stands for a sampled block while torch exports the rest."""

    def __init__(self, number: int, shape: torch.Size):
        super().__init__()
        self.number, self.shape = number, tuple(shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        shape, attributes = (x.shape[0], *self.shape), {"number": self.number}
        return torch.onnx.ops.symbolic(f"{DOMAIN}::Block", (x,), attributes, dtype=x.dtype, shape=shape, version=1)


def deploy(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU in float32: what is not sampled is not computed.

    `example` (N, 3, H, W) has the size of the images that it will take, any N. Of a detector, deploy the backbone. The
    callable takes images and, to force them, the index of each image's density in `DENSITIES`.
    Outputs equal the module's in evaluation mode within float32 rounding, as long as no score lies so near to its draw
    that rounding decides. With `calibrate`, a few batches of images, a network without masks is in int8, see
    `dynlib.quantise`; one with masks is refused: its rows have no int8 form yet. Raises InputError naming what cannot
    be exported.
    """
    export.check(module, example, engine, threads)
    blocks = {name: module.get_submodule(name) for name in sampled_blocks(module)}
    if alien := [name for name, block in blocks.items() if not isinstance(block, SampledBlock)]:
        raise InputError(
            f"{alien[0] or 'the network'}: only the sampled blocks of ResNets have a form for inference that skips; "
            "convert at density 1 to deploy the dense network"
        )
    network = copy.deepcopy(module).eval()
    _resize_by_products(network, example)
    if not blocks:
        return export.single("sampling", network, example, engine, threads, calibrate)
    if calibrate is not None:
        raise InputError("calibrate is given, but sampled blocks stay in float32; leave it out, or deploy at density 1")
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}  # of what each block reads and yields
    with watching(blocks, lambda name, x, out: shapes.update({name: (x[0].shape, out.shape)})):
        about, _ = export.described("sampling", module, example, engine, threads)
    for number, name in enumerate(blocks):
        network.set_submodule(name, _Placeholder(number, shapes[name][1]))
    model = onnx.load_from_string(export.graph(network, example, exact=False))
    samplers = [sampler for block in blocks.values() for sampler in block.samplers]
    writers = [BlockWriter(name, block, Layout(*shapes[name][0][-2:])) for name, block in blocks.items()]
    sizes = _fill_in(model, writers)
    drawn = [(s.number, *size) for s, size in zip(samplers, sizes, strict=True) if not s.deterministic]
    about |= {"densities": DENSITIES, "seed": samplers[0].seed, "masks": drawn}
    return Sampled(about, {"network": model.SerializeToString()}, engine, threads)


def _resize_by_products(network: nn.Module, example: Tensor) -> None:
    """Let a stem that shrinks the image do so by matrix products, in place."""
    for host in network.modules():
        if isinstance(stem := getattr(host, "conv1", None), ShrunkConv2d):
            sizes = (tuple(x.shape[-2:]) for x in (example, shrink(example, stem.density)))
            stem.__class__ = nn.Conv2d
            host.conv1 = nn.Sequential(LinearResize(*sizes, True), stem)


def _fill_in(model: onnx.ModelProto, writers: list[BlockWriter]) -> list[tuple[int, int]]:
    """Write the blocks in place of their placeholders; the size of the mask of each sampler, in order."""
    graph, nodes, constants, sizes = model.graph, [], [], []
    forced = "forced_logit"
    inputs = [helper.make_tensor_value_info(forced, TensorProto.FLOAT, ["batch"])]
    rows: dict[str, str] = {}  # the rows of a map that a block has written
    read = {name for node in graph.node if node.domain != DOMAIN for name in node.input} | {
        o.name for o in graph.output
    }
    for node in graph.node:
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        writer = writers[helper.get_node_attr_value(node, "number")]
        (source,), (target,) = node.input, node.output
        entry = Nodes(f"{writer.name}_entry")
        x = rows.get(source) or entry.rows_of_map(source, writer.inp, writer.block.conv1.in_channels)
        draws = []
        for number, sampler in enumerate(writer.block.samplers):
            mask = writer.inp.strided(sampler.score.stride[0])
            sizes.append(size := (mask.height, mask.width))
            draws.append(f"{writer.name}_draw_{number}")
            if not sampler.deterministic:
                inputs.append(helper.make_tensor_value_info(draws[-1], TensorProto.FLOAT, ["batch", 1, *size]))
        rows[target], layout, channels = writer.write(x, forced, draws)
        exit_ = Nodes(f"{writer.name}_exit")
        if target in read:
            exit_.map_of_rows(rows[target], layout, channels)
            exit_.nodes[-1].output[0] = target
        for part in (entry, writer.g, exit_):
            nodes += part.nodes
            constants += part.constants
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(constants)
    del graph.value_info[:]
    opsets = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return sizes
