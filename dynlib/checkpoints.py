"""Tensors in safetensors files that know their checksum, written whole or not at all; checkpoints are such files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.paths import write_atomically

# Some versions of safetensors raise RuntimeError for a missing file.
UNREADABLE = (OSError, RuntimeError, ValueError, safetensors.SafetensorError)


@dataclass
class State:
    """What a checkpoint holds besides the weights."""

    run: str  # what the checkpoint belongs to
    curve: list[dict] = field(default_factory=list)


def write(path: Path, tensors: Mapping[str, Tensor], **about: str) -> Path:
    """Write tensors by name; the header has what is said `about` them and a checksum of everything."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = about | {"sha256": _checksum(tensors, about)}
    return write_atomically(path, safetensors.torch.save(tensors, header))


def read(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and what its header says about them.

    Files from before there was a checksum are read without. Raises InputError naming the file, which is not `what` it
    should be, where it cannot be read or does not fit its checksum.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except UNREADABLE as error:
        raise InputError(f"{path} is not {what} ({str(error).partition(chr(10))[0]:.150})") from error
    stated = about.pop("sha256", None)
    if stated not in (None, _checksum(tensors, about)):
        raise InputError(f"{path} is not {what} (it is damaged: its tensors do not fit their checksum)")
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def save(path: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint: weights, optimizer state, and the rest as JSON in its header."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    write(path, tensors, state=json.dumps(asdict(state)))


def epochs_done(path: Path) -> int:
    """Epochs that lie behind a checkpoint; 0 where there is none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return len(json.loads(file.metadata()["state"])["curve"])
    except (*UNREADABLE, KeyError, TypeError):
        return 0


def restore(path: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill state, model and optimizer from a checkpoint of the same run.

    Raises InputError naming the file where it is damaged, belongs to another run, or has tensors of other shapes.
    """
    tensors, about = read(path, "a checkpoint; remove it to start anew")
    try:
        found = State(**json.loads(about["state"]))
        if not isinstance(found.curve, list):
            raise TypeError(f"its curve is {found.curve!r:.60}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a checkpoint ({error}); remove it to start anew") from error
    if found.run != state.run:
        raise InputError(f"{path} belongs to another run ({found.run}); remove it, or give another path")
    content = optimizer.state_dict()
    learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            index, _, entry = name.removeprefix("optimizer.").partition(".")
            owner = learnt[int(index)] if index.isdecimal() and int(index) < len(learnt) else None
            if owner is None or (tensor.ndim and tensor.shape != owner.shape):
                raise InputError(f"{path}: {name} has the shape {tuple(tensor.shape)} of no parameter; remove the file")
            content["state"].setdefault(int(index), {})[entry] = tensor
    try:
        model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        )
    except RuntimeError as error:
        raise InputError(f"{path} has the weights of another network; remove it to start anew") from error
    optimizer.load_state_dict(content)
    state.curve = found.curve
