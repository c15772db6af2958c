"""Modules of torch as ONNX graphs: the one way in which the papers' networks are deployed.

`graph` exports a module for batches of any number, runs what came out beside the module and compares the two. What
cannot be exported is refused with the operator's and the layer's name, not written wrongly.
"""

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynlib import __version__
from dynlib.engines import Part, check_engine, check_threads
from dynlib.errors import InputError
from dynlib.ops import evaluating
from dynlib.quantise import int8
from dynlib.runtime import TENSOR, Deployed

OPSET = 20
CLOSE = 1e-4  # largest difference to the module, as a share of its largest value, that rounding explains
_MODAL = ("batch_norm", "dropout", "feature_dropout", "alpha_dropout")  # operators that know a training mode
_RANDOM = ("bernoulli", "rand", "normal", "multinomial", "uniform", "exponential", "poisson")  # that draw


def check(module: nn.Module, example: Tensor, engine: str, threads: int | None) -> None:
    """Raise InputError for weights or images that a deployed network cannot have, and what it cannot run on."""
    check_engine(engine)
    if threads is not None:
        check_threads(threads)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and (tensor.dtype, tensor.device.type) != (torch.float32, "cpu"):
            raise InputError(
                f"{name} is {tensor.dtype} on {tensor.device}; deployed networks are float32 on the CPU: "
                "model.float().cpu()"
            )
    if not isinstance(example, Tensor):
        raise InputError(f"example is of type {type(example).__name__}; allowed: a tensor of images (N, C, H, W)")
    if example.ndim != 4 or (example.dtype, example.device.type) != (torch.float32, "cpu") or not len(example):
        raise InputError(
            f"example is {example.dtype} {tuple(example.shape)} on {example.device}; "
            "allowed: float32 images (N, C, H, W) on the CPU, not clips"
        )


def graph(
    module: nn.Module,
    *inputs: Tensor,
    engine: str = "onnxruntime",
    exact: bool = True,
    calibrate: Iterable[Sequence[Tensor]] | None = None,
) -> bytes:
    """The module in evaluation mode as the content of an ONNX file, for any number of images.

    `inputs` (N, ...) are an example of each input; all of them have the batch first. The graph yields the tensors that
    the module returns, in the order of torch's pytree. `exact`: compare it with the module on the example, in the
    `engine` that it is for. With `calibrate`, tensors for the inputs a batch, it is quantised, see `dynlib.quantise`.
    Raises InputError naming operator and layer for what cannot be exported or would come out different.
    """
    with evaluating(module), torch.no_grad(), _quiet():
        pair = tuple(_three(value) for value in inputs)  # a batch of one would be taken for the only one there is
        dynamic = tuple({0: torch.export.Dim("batch", min=1)} for _ in pair)
        flat = _Flat(module)
        try:
            program = torch.export.export(flat, pair, dynamic_shapes=(dynamic,), strict=False)
            _refuse_random(program)
            found = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=True, verbose=False)
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, AssertionError) as error:
            raise InputError(f"{type(module).__name__} cannot be exported: {_reason(error)}") from error
        content = _bare(found.model_proto).SerializeToString()
        if exact:
            _compare(module, content, flat(*pair), pair, engine)
        if calibrate is None:
            return content
        return int8(content, ([value.detach().numpy() for value in values] for values in calibrate))


def single(
    method: str,
    module: nn.Module,
    example: Tensor,
    engine: str,
    threads: int | None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """A network of one graph, for images of the size of `example` (N, C, H, W); with `calibrate` in int8."""
    about, batches = described(method, module, example, engine, threads, calibrate)
    content = graph(module, example, engine=engine, calibrate=batches and [(batch,) for batch in batches])
    return Deployed(about, {"network": content}, engine, threads)


def described(
    method: str,
    module: nn.Module,
    example: Tensor,
    engine: str,
    threads: int | None,
    calibrate: Iterable[Tensor] | None = None,
) -> tuple[dict[str, Any], list[Tensor] | None]:
    """What a deployed network says of itself, and the batches that int8 is calibrated with; what `check` says holds."""
    check(module, example, engine, threads)
    returns, batches = returned(_answer(module, example)), _calibration(calibrate, example)
    versions = {name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime")} | {"dynlib": __version__}
    about = {"method": method, "dtype": "float32" if batches is None else "int8", "image": list(example.shape[1:])}
    return about | {"returns": returns, "versions": versions}, batches


def _calibration(batches: Iterable[Tensor] | None, example: Tensor) -> list[Tensor] | None:
    """The batches that int8 is calibrated with.

    Raises InputError where there is none, or one that is empty, unlike the example or not finite.
    """
    if batches is None:
        return None
    found = list(batches) if isinstance(batches, Iterable) else []
    if not found:
        raise InputError("calibrate has no batch; allowed: some batches of images, of the kind that will be classified")
    allowed = f"float32 images (N, {str(tuple(example.shape[1:]))[1:]}"
    for batch in found:
        if not isinstance(batch, Tensor):
            raise InputError(f"calibrate holds {type(batch).__name__}; allowed: {allowed}, without targets")
        if batch.dtype != torch.float32 or batch.shape[1:] != example.shape[1:] or not len(batch):
            raise InputError(f"calibrate holds {batch.dtype} {tuple(batch.shape)}; allowed: {allowed}, N from 1 up")
        if not batch.isfinite().all():
            raise InputError(f"calibrate holds images with NaN or infinity; allowed: {allowed}, all finite")
    return found


def returned(value: Any) -> Any:
    """A description of what a network returns, for `Deployed.about`: tensors, and the tuples and dicts around them."""
    if isinstance(value, Tensor):
        return TENSOR
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {type(value).__name__: {name: returned(part) for name, part in value._asdict().items()}}
    if isinstance(value, Mapping):
        return {"dict": {str(name): returned(part) for name, part in value.items()}}
    if isinstance(value, list | tuple):
        return [returned(part) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise InputError(f"the network returns a {type(value).__name__}; allowed: tensors, in tuples or dicts with names")


@torch.no_grad()
def _answer(module: nn.Module, example: Tensor) -> Any:
    """What the module returns in evaluation mode for an example; errors of torch become InputError."""
    with evaluating(module):
        try:
            return module(example)
        except RuntimeError as error:
            shape, reason = tuple(example.shape), str(error).strip().splitlines()[0]
            raise InputError(f"{type(module).__name__} does not run on images {shape}: {reason}") from error


class _Flat(nn.Module):
    """The module with its tensors as one flat list: names and nothings stay behind."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        own = [value.clone() for value in inputs]  # what is written over them is not written to the caller's
        return [value for value in pytree.tree_leaves(self.module(*own)) if isinstance(value, Tensor)]


def _three(value: Tensor) -> Tensor:
    """Three different images, or maps, like the first."""
    first = value[:1].detach()
    return torch.cat([first, 0.5 * first, first.flip(-1)]) if first.is_floating_point() else first.repeat(3)


def _refuse_random(program: torch.export.ExportedProgram) -> None:
    """Raise InputError naming the layer of an operator that draws, or that learns while it is asked."""
    for node in program.graph.nodes:
        name = str(getattr(node.target, "_opname", "")).rstrip("_")
        if name in _MODAL:
            if _is_training(node):
                raise InputError(f"{_layer(node)}: {name} as if in training mode; allowed: the mode of self.training")
        elif name.startswith(_RANDOM):
            raise InputError(f"{_layer(node)}: {name} draws random numbers; a deployed network repeats itself")


def _is_training(node: torch.fx.Node) -> bool:
    """Whether a dropout or batch norm runs in training mode."""
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return bool(given.get("train", given.get("training", False)))


def _layer(node: torch.fx.Node) -> str:
    """The name of the layer that an operator belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return re.sub(r"^L\['self'\]\.?|^module\.?", "", str(path)) or "the network itself"


def _reason(error: BaseException) -> str:
    """One line: the operator that has no ONNX form with its layer, or what torch says first."""
    causes, at = [], error
    while at is not None:
        causes.append(at)
        at = at.__cause__
    texts = "\n".join(str(cause) for cause in causes)
    if missing := re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", texts):
        stack = re.search(r"nn_module_stack[^\n]*?'([\w.]+)'", texts)
        return f"operator {missing[1]} has no ONNX form{f', in {stack[1]}' if stack else ''}"
    lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
    return lines[0] if lines else type(causes[-1]).__name__


def difference(found: Any, expected: Any) -> float:
    """The largest difference between two answers' tensors, as a share of the largest value of each; NaNs must agree.

    Raises InputError where they differ in number or shape.
    """
    shares = [0.0]
    mine, right = (
        [value.detach().double() for value in pytree.tree_leaves(answer) if isinstance(value, Tensor)]
        for answer in (found, expected)
    )
    if [value.shape for value in mine] != [value.shape for value in right]:
        shapes = " and ".join(str([tuple(value.shape) for value in of]) for of in (mine, right))
        raise InputError(f"the answers have different shapes: {shapes}")
    for a, b in zip(mine, right, strict=True):
        if a.numel():
            apart = torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs()).nan_to_num(torch.inf, torch.inf)
            scale = b.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp(min=1e-12)
            shares.append(float(apart.max() / scale))
    return max(shares)


def _compare(
    module: nn.Module, content: bytes, expected: Sequence[Tensor], inputs: Sequence[Tensor], engine: str
) -> None:
    """Raise InputError where the graph yields something else than the module, on the engine that it is for."""
    name = type(module).__name__
    found = Part(name, content, engine, 1)(*(value.numpy() for value in inputs))
    if (share := difference([torch.from_numpy(value) for value in found], expected)) > CLOSE:
        raise InputError(
            f"{name}: what was exported differs by {share:.0e} of the largest value; it cannot be deployed on {engine}"
        )


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without notes on which line of which file a node came from."""
    model.ClearField("metadata_props")
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and warnings, which are about its own insides."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
