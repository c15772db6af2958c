"""A classifier taken apart at its last map: the tower of layers below it, and heads like the one above it.

Both are found from the graph. Reading backwards from the logits, the head is the chain of linear layers, activations
and dropout down to the first pooling or flattening of a map; everything else is the tower. A head may also be one 1 x 1
convolution in front of the pooling, as SqueezeNet's.
"""

import copy
from collections import OrderedDict
from math import ceil, prod

from torch import Tensor, fx, nn

from dynlib.backbones.thin import resize
from dynlib.errors import InputError
from dynlib.graphs import read
from dynlib.papers.wae.split import xavier
from dynlib.roles import Role, find_role

ENDS = (Role.FLATTEN, Role.GLOBAL_POOL)  # of a map


class Anatomy:
    """Where a classifier's tower ends and its head begins.

    Raises InputError where the model's output is not one linear layer's, behind a map that was pooled or flattened, nor
    the pooled map of a 1 x 1 convolution.
    """

    def __init__(self, model: nn.Module, example: Tensor | None = None):
        self.traced = read(model, example)
        nodes = list(self.traced.graph.nodes)
        chain, node = [], nodes[-1].args[0]
        while isinstance(node, fx.Node) and self._role(node) in (Role.LINEAR, Role.NORM, Role.POINTWISE, *ENDS):
            chain.append(node)
            node = node.all_input_nodes[0]
        ends = [index for index, node in enumerate(chain) if self._role(node) in ENDS]
        above = [node for node in chain[: max(ends, default=0)] if self._role(node) not in ENDS]
        self.pools_scores = ends == [*range(len(ends))] and self._makes(node, chain)
        if self.pools_scores:
            end, above = node, [*chain[len(ends) :], node]
        elif any(self._role(node) == Role.LINEAR for node in above):
            end = chain[ends[-1]]
        else:
            where = str(node.target if getattr(node, "op", None) == "call_module" else node)
            raise InputError(
                f"{type(model).__name__}: its scores come by way of {where:.60}; what can be wrapped has linear layers "
                "behind the last map, pooled or flattened, or a 1x1 convolution before the pooling"
            )
        self.last = end.all_input_nodes[0]  # the last map
        self.channels = self.last.meta["shape"][1]
        self.below, self.above = nodes[: nodes.index(self.last) + 1], above[::-1]
        grid = self.last.meta["shape"][2:] if self._role(end) == Role.FLATTEN else end.meta["shape"][2:]
        self.grid = (1, 1) if self.pools_scores else tuple(grid) or (1, 1)  # positions that the head reads

    def _role(self, node: fx.Node) -> str | None:
        return find_role(self.traced, node)

    def _makes(self, node: fx.Node | None, chain: list[fx.Node]) -> bool:
        """Whether a node is a 1 x 1 convolution to a map of scores, which `chain` turns into one score a class."""
        if not chain or not isinstance(node, fx.Node) or self._role(node) != Role.CONV:
            return False
        conv, scores = self.traced.get_submodule(node.target), chain[0].meta["shape"]
        return conv.kernel_size == (1, 1) and conv.groups == 1 and scores == node.meta["shape"][:2]

    def tower(self, image_channels: int = 3) -> nn.Module:
        """A copy of the layers below: images (N, `image_channels`, H, W) to the last map (N, `channels`, ., .).

        A pooling that ends in more than one position rounds up, as the authors' framework does: 7 px become 4, not 3.
        """
        graph, copied = fx.Graph(), {}
        for node in self.below:
            copied[node] = graph.node_copy(node, copied.__getitem__)
        graph.output(copied[self.last])
        tower = copy.deepcopy(fx.GraphModule(self.traced, graph, "Tower"))
        if prod(self.grid) > 1 and self.last.op == "call_module":
            pool = tower.get_submodule(self.last.target)
            if isinstance(pool, nn.MaxPool2d):
                pool.ceil_mode = True
        first = next(layer for layer in tower.modules() if isinstance(layer, nn.Conv2d))
        if first.in_channels != image_channels:
            resize(first, image_channels, first.out_channels)
        return tower

    def head(self, channels: int, share: float) -> nn.Module:
        """A head like the network's own for a last map of `channels` channels, hidden layers times `share`.

        It reads half the network's positions along each side: all of them at once where it pools them, 4 x 4 for 7 x 7.
        A layer whose size does not change keeps its weights.
        """
        graph, inputs = fx.Graph(), channels * prod(grid := [ceil(side / 2) for side in self.grid])
        value = graph.placeholder("features")
        for node in self.above:
            value = graph.node_copy(node, lambda _, value=value: value)
        graph.output(value)
        layers = copy.deepcopy(fx.GraphModule(self.traced, graph, "Head"))
        scoring = [node.target for node in self.above if self._role(node) in (Role.CONV, Role.LINEAR)]
        for node in self.above:
            layer = layers.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(layer, nn.Linear | nn.Conv2d):
                outputs, seen = layer.weight.shape[:2]
                wanted = outputs if node.target == scoring[-1] else max(1, round(outputs * share))
                if (seen, outputs) != (inputs, wanted):
                    resize(layer, inputs, wanted)
                    xavier(layer)
                inputs = wanted
            elif self._role(node) == Role.NORM and layer.num_features != inputs:
                resize(layer, inputs, inputs)
        pooled = {"pool": nn.AdaptiveAvgPool2d(grid), "flatten": nn.Flatten()}
        parts = {"layers": layers} | pooled if self.pools_scores else pooled | {"layers": layers}
        return nn.Sequential(OrderedDict(parts))
