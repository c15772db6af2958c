"""Graphs as networks that can be saved whole, and weights that know the settings they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from dynlib.errors import InputError


@dataclass(frozen=True)
class _Ref:
    """A node of a graph that is written to a file, by name."""

    name: str


class Settled(nn.Module):
    """Its weights know the settings that they belong to: `state_dict` says so, and those of others are refused."""

    def settings(self) -> str | None:
        """What the weights belong to, in words; None where that does not matter."""
        raise NotImplementedError

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["settings"] = self.settings()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        given, own = local_metadata.get("settings"), self.settings()
        if given and own and given != own:
            raise InputError(f"the weights are those of {given:.100}, this network has {own:.100}; convert it alike")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class Network(Settled, fx.GraphModule):
    """A graph that can be saved whole, with what its nodes know; `meta["settings"]` are those of `Settled`."""

    def settings(self) -> str | None:
        """What a method noted."""
        return self.meta.get("settings")

    def __reduce__(self):
        name = lambda node: _Ref(node.name)  # noqa: E731
        nodes = [
            (n.op, n.name, n.target, fx.node.map_arg(n.args, name), fx.node.map_arg(n.kwargs, name), dict(n.meta))
            for n in self.graph.nodes
        ]
        for *_, meta in nodes:
            meta.pop("nn_module_stack", None)
        held = {key: value for key, value in vars(self).items() if key not in ("_graph", "_code")}
        return _revived, (type(self).__name__, held, nodes)


def _revived(name: str, held: Mapping[str, Any], nodes: list) -> Network:
    """The network whose parts `Network.__reduce__` gave."""
    holder, graph, made = nn.Module(), fx.Graph(), {}
    vars(holder).update({key: value for key, value in held.items() if key in ("_parameters", "_buffers", "_modules")})
    for op, node, target, args, kwargs, meta in nodes:
        args, kwargs = (
            fx.node.map_aggregate(value, lambda leaf: made[leaf.name] if isinstance(leaf, _Ref) else leaf)
            for value in (args, kwargs)
        )
        made[node] = graph.create_node(op, target, args, kwargs, name=node)
        made[node].meta.update(meta)
    network = Network(holder, graph, class_name=name)
    vars(network).update({key: value for key, value in held.items() if key != "_modules"})
    network._modules.update(held["_modules"])
    return network
