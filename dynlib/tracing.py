"""How a model becomes a graph: torch.fx, with what it would get wrong in silence put right or refused by name.

torch.fx keeps the branches and modes of the moment, forgets that `b += c` writes into what `b` names, and sees through
every layer that does not lie in torch.nn. Here a model is followed in both modes, which must agree; writing is noted as
writing, and who reads the tensor afterwards reads what was written; and a batch norm stays one whatever its class adds.
"""

import copy
import inspect
import operator
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from dynlib.errors import InputError
from dynlib.networks import Network
from dynlib.ops import in_mode

_WRITES = ("iadd", "isub", "imul", "itruediv", "ipow")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FUSED = {_BatchNorm: "batch_norm", nn.Linear: "linear"}  # layers that libraries subclass, and what they call
# What may yield its input itself, or a view of it.
_VIEWS = ("contiguous", "flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "detach", "chunk")
_VIEWS += (torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.chunk, operator.getitem)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a model, to be rewritten. Raises InputError for layers of which a part would be lost by it."""
    for path, part in model.named_modules():
        where = f"{path or 'the network'} ({type(part).__name__})"
        if isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod"):
            raise InputError(f"{where}: is a compiled program; convert the network that it was compiled from")
        if any(map(is_lazy, part.parameters(recurse=False))):
            raise InputError(f"{where}: is lazy and has no size yet; run it on an image once")
        if parametrize.is_parametrized(part):
            name = next(iter(part.parametrizations))
            raise InputError(
                f"{where}: its {name} is parametrised, which no copy would keep; first make it plain: "
                f"torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r})"
            )
        if any(getattr(part, kind) for kind in _HOOKS):
            raise InputError(
                f"{where}: has a hook, which would be lost; remove it, of a pruned layer by prune.remove(layer, name), "
                "and register it on the converted network"
            )
        if "forward" in vars(part):
            raise InputError(f"{where}: its forward was replaced on the object; write it in a class of its own")
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{type(model).__name__} cannot be copied: {reason:.200}") from error


def follow(model: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> fx.GraphModule:
    """The graph of a model for its first argument, others at their defaults; modules are shared, `is_leaf` ones whole.

    Every `F.dropout` is a module. Raises InputError where torch.fx cannot follow it, or where it computes something
    else in training than in evaluation mode, naming the first such layer.
    """
    name, place = type(model).__name__, next(iter(model.parameters()), None)
    if isinstance(model, Network) and model.settings():
        raise InputError(f"{name}: was converted already; of the methods drnet alone goes around another one")
    graphs = []
    for training in (False, True):
        tracer = _Tracer(is_leaf)
        try:
            with in_mode(model, training):
                graph = tracer.trace(model)
        except InputError:
            raise
        except Exception as error:  # of the model's own code, which meets stand-ins in place of tensors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = next(reversed(tracer.module_stack), "it")  # left there by what was raised
            raise InputError(
                f"{name}: torch.fx cannot trace {where} ({reason:.120}); allowed are models without branches on data"
            ) from error
        graphs.append(graph)
    drops = _agreeing(name, *graphs)
    traced = Network(model, graphs[0], class_name=name)
    for path, twin in tracer.twins.items():
        _set_apart(traced, path, twin)
    for node, p in drops.items():
        layer = f"functional_{node.name}"
        traced.add_submodule(layer, nn.Dropout(p).to(getattr(place, "device", None)))
        node.op, node.target, node.args, node.kwargs = "call_module", layer, (node.all_input_nodes[0],), {}
    _sweep(traced.graph)
    traced.recompile()
    return traced


class _Proxy(fx.Proxy):
    """A stand-in that is written into by `+=` and its kin, as a tensor is; torch's takes them for `+`."""


def _writing(name: str) -> Callable:
    function = getattr(operator, name)
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _name in _WRITES:
    setattr(_Proxy, f"__{_name}__", _writing(_name))


class _Tracer(fx.Tracer):
    """Follows one argument, keeps leaves whole, and sees layers of torch in their subclasses."""

    def __init__(self, is_leaf: Callable[[nn.Module], bool]):
        super().__init__()
        self._is_leaf = is_leaf
        self.twins: dict[str, nn.Module] = {}  # plain layers, for those whose class does more

    def proxy(self, node):
        return _Proxy(node, self)

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        _, first, *_ = inspect.signature(root_fn).parameters.values()
        named = first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
        return root_fn, [self.root, self.create_proxy("placeholder", first.name if named else "images", (), {})]

    def is_leaf_module(self, module, qualified_name):
        return self._is_leaf(module) or super().is_leaf_module(module, qualified_name)

    def call_module(self, m, forward, args, kwargs):
        path = self.path_of_module(m)
        kind = next((kind for kind in _FUSED if isinstance(m, kind)), None)
        if kind is None or self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)

        def whole(x, state, *rest, **more):
            own = (
                state is m.running_mean if kind is _BatchNorm else getattr(state, "node", m).target == f"{path}.weight"
            )
            if not own or path in self.twins:
                raise InputError(
                    f"{path} ({type(m).__name__}): computes otherwise than {_FUSED[kind]} with its own state"
                )
            self.twins[path] = plain(m)
            return self.create_proxy("call_module", path, (x,), {})

        unchecked = mock.patch.object(type(m), "_check_input_dim", lambda self, x: None, create=True)
        tracked = getattr(m, "num_batches_tracked", None)
        count = None if tracked is None else tracked.clone()
        with mock.patch.object(F, _FUSED[kind], whole), unchecked:
            found = super().call_module(m, forward, args, kwargs)
        if tracked is not None:  # in training mode it was counted up
            tracked.copy_(count)
        return found


def plain(layer: nn.Module) -> nn.Module:
    """The layer of torch that one of a subclass is, with its very parameters and buffers."""
    kind = next(base for base in type(layer).__mro__ if base.__module__.startswith("torch.nn."))
    twin = kind.__new__(kind)
    vars(twin).update(vars(layer), _modules={})
    return twin


def _set_apart(traced: fx.GraphModule, path: str, twin: nn.Module) -> None:
    """Put the plain layer in the place of one that does more, and beside it the layers that lay in it."""
    whole = traced.get_submodule(path)
    for node in traced.graph.nodes:
        if node.op == "call_module" and node.target.startswith(f"{path}."):
            inner = node.target.removeprefix(f"{path}.")
            node.target = f"{path}_{inner.replace('.', '_')}"
            traced.add_submodule(node.target, whole.get_submodule(inner))
    traced.set_submodule(path, twin)


def _agreeing(name: str, evaluation: fx.Graph, training: fx.Graph) -> dict[fx.Node, float]:
    """Every F.dropout of the first graph with its probability; the graphs must agree in all else."""
    drops = {}
    for one, two in zip(evaluation.nodes, training.nodes, strict=False):
        where = f"{name}: {lies_in(one)}"
        if one.target is two.target is F.dropout:
            off, on = (_argument(node, 2, "training", True) for node in (one, two))
            if off:
                raise InputError(f"{where}: F.dropout drops in evaluation mode too; give it training=self.training")
            drops[one] = _argument(one, 1, "p", 0.5) if on else 0.0
        elif _written(one) != _written(two):
            raise InputError(
                f"{where}: differs in training mode, which a graph cannot keep; take self.training out of forward, and "
                "auxiliary heads out of the network"
            )
    if len(evaluation.nodes) != len(training.nodes):
        raise InputError(f"{name}: has more layers in one mode than in the other, which a graph cannot keep")
    return drops


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _written(node: fx.Node) -> tuple:
    words = (node.target, node.args, node.kwargs) if node.op != "call_function" else (node.args, node.kwargs)
    constant = re.compile(r"_tensor_constant\d+")  # numbered anew each time
    return node.op, node.target if node.op == "call_function" else "", *(constant.sub("", str(word)) for word in words)


def lies_in(node: fx.Node) -> str:
    """The layer in whose forward a node lies, and the node."""
    path = next(reversed(node.meta.get("nn_module_stack") or {"": ""}))
    return f"{path}, {node.name:.60}" if path else f"{node.name:.60}"


def _sweep(graph: fx.Graph) -> None:
    """Remove checks that only stop, and what nobody reads and does nothing."""
    for node in reversed(list(graph.nodes)):
        idle = node.op == "get_attr" or node.target in (getattr, operator.eq, operator.getitem)
        if node.target is torch._assert or (idle and not node.users):
            graph.erase_node(node)


def read_what_was_written(traced: fx.GraphModule) -> None:
    """Let whoever reads a tensor after it was written into read what the writing yields, in place; needs shapes.

    A tensor that was read before is not written into any more, so that readers may move. Then nothing depends on
    whether a rewritten operation still writes. Raises InputError where the tensor is read
    afterwards by another name, which only writing keeps up to date.
    """
    order = {node: number for number, node in enumerate(traced.graph.nodes)}
    origin: dict[fx.Node, fx.Node] = {}  # the first name of the same memory
    for node in list(traced.graph.nodes):
        if node.target is operator.getitem and node.meta["shape"] == node.args[0].meta["shape"] is not None:
            node.replace_all_uses_with(node.args[0])  # a slice that takes everything
            traced.graph.erase_node(node)
    for node in traced.graph.nodes:
        writes = _is_written(traced, node) and node.meta.get("shape") is not None
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        shares = source is not None and (writes or _may_view(traced, node))
        origin[node] = origin[source] if shares else node
        if not writes:
            continue
        for user in [user for user in source.users if order[user] > order[node]]:
            user.replace_input_with(source, node)
        if len(source.users) > 1:
            _write_elsewhere(traced, node)
        for other, first in list(origin.items()):
            late = [user for user in other.users if order[user] > order[node]]
            if first is origin[node] and other not in (source, node) and late:
                raise InputError(
                    f"{node.name:.60}: writes into a tensor that {late[0].name:.60} reads by another name, "
                    f"{other.name:.60}; write out of place: y = y + x in place of y += x, ReLU(inplace=False)"
                )
    traced.recompile()


def _is_written(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node writes into its first input."""
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(node.target), "inplace", False))
    if node.op == "call_method":
        return node.target.endswith("_") and not node.target.endswith("__")
    name = getattr(node.target, "__name__", "")
    written = name in _WRITES and node.target is getattr(operator, name)
    return node.op == "call_function" and (
        written or (name.endswith("_") and not name.startswith("_")) or bool(node.kwargs.get("inplace"))
    )


def _write_elsewhere(traced: fx.GraphModule, node: fx.Node) -> None:
    """Let a node that writes into its input make a new tensor."""
    if node.op == "call_module":
        traced.get_submodule(node.target).inplace = False
    elif node.op == "call_method":
        node.target = node.target.removesuffix("_")
    elif node.kwargs.get("inplace"):
        node.kwargs = dict(node.kwargs) | {"inplace": False}
    elif node.target.__name__ in _WRITES:
        node.target = getattr(operator, node.target.__name__.removeprefix("i"))
    else:
        home = torch if hasattr(torch, node.target.__name__) else F
        node.target = getattr(home, node.target.__name__.removesuffix("_"))


def _may_view(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(node.target), nn.Identity | nn.Flatten | nn.modules.dropout._DropoutNd)
    return node.target in _VIEWS
