"""Checkpoints: one safetensors file with weights, optimizer state and the curve so far, written whole or not at all."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.paths import write_atomically


@dataclass
class State:
    """What a checkpoint holds besides the weights."""

    run: str  # what the checkpoint belongs to
    curve: list[dict] = field(default_factory=list)


def save(path: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint: weights, optimizer state, and the rest as JSON in its header."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(tensors, {"state": json.dumps(asdict(state))}))


def epochs_done(path: Path) -> int:
    """Epochs that lie behind a checkpoint; 0 where there is none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return len(json.loads(file.metadata()["state"])["curve"])
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError, KeyError, TypeError):
        return 0  # some versions of safetensors raise RuntimeError for a missing file


def restore(path: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill state, model and optimizer from a checkpoint of the same run.

    Raises InputError naming the file where it is damaged, belongs to another run, or has tensors of other shapes.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            found = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a checkpoint ({error}); remove it to start anew") from error
    if found["run"] != state.run:
        raise InputError(f"{path} belongs to another run ({found['run']}); remove it, or give another path")
    content = optimizer.state_dict()
    learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            if tensor.ndim and (int(index) >= len(learnt) or tensor.shape != learnt[int(index)].shape):
                raise InputError(f"{path}: {name} has the shape {tuple(tensor.shape)} of no parameter; remove the file")
            content["state"].setdefault(int(index), {})[entry] = tensor
    try:
        model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        )
    except RuntimeError as error:
        raise InputError(f"{path} has the weights of another network; remove it to start anew") from error
    optimizer.load_state_dict(content)
    state.curve = found["curve"]
