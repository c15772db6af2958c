"""Octave networks as one ONNX graph.

The two paths into a band add up before its batch norm, so no runtime can fold that into a convolution. Here it is
folded into the layer's kernel, which is one tensor of the vanilla shape, whatever the split.
"""

import copy
from collections import Counter

from torch import fx, nn

from dynlib import ops
from dynlib.papers.octconv.ops import OctBatchNorm2d, OctConv2d


def folded(network: fx.GraphModule) -> fx.GraphModule:
    """The network with each batch norm behind an octave convolution folded into it; shares the rest."""
    new = fx.GraphModule(network, copy.deepcopy(network.graph), class_name=type(network).__name__)
    calls = Counter(node.target for node in new.graph.nodes if node.op == "call_module")
    for node in list(new.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not node.op == source.op == "call_module":
            continue
        norm, conv = new.get_submodule(node.target), new.get_submodule(source.target)
        is_norm = type(norm) in (OctBatchNorm2d, nn.BatchNorm2d) and norm.running_var is not None
        known = is_norm and isinstance(conv, OctConv2d)
        if not known or len(source.users) > 1 or calls[node.target] > 1 or calls[source.target] > 1:
            continue
        new.set_submodule(source.target, _folded(conv, norm))
        node.replace_all_uses_with(source)
        new.graph.erase_node(node)
    new.graph.lint()
    new.recompile()
    return new


def _folded(conv: OctConv2d, norm: nn.BatchNorm2d) -> OctConv2d:
    layer = copy.copy(conv)
    layer._parameters = dict(conv._parameters)
    layer.weight, layer.bias = map(nn.Parameter, ops.fused(conv, norm))
    return layer
