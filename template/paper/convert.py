"""The method: settings, the converted network, its cost in closed form, its form for inference."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynlib import export
from dynlib.cost import Cost, closed_form
from dynlib.errors import InputError
from dynlib.runtime import Deployed


@dataclass(frozen=True)
class Config:
    """Settings of a converted network; each value is checked and a bad one named."""

    strength: float = 0.5  # of the method, [0, 1]; 0 is the network itself (Sec. N)

    def __post_init__(self):
        """Refuse nonsense."""
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength is {self.strength}; it is a share from 0 to 1")


def convert(model: nn.Module, config: Config) -> nn.Module:
    """The network of the method, a copy with the model's weights; `strength = 0` is the model itself.

    Takes images (N, C, H, W). Raises InputError naming the layer that cannot be converted.
    """
    if config.strength == 0:
        return copy.deepcopy(model)
    raise NotImplementedError("convert of KEY is to be written")


def cost(module: nn.Module, input_size: int | tuple[int, int]) -> Cost:
    """Closed-form multiply-accumulates of a network from `convert`, for one image of (height, width) px."""
    return closed_form(module, input_size)  # a layer of your own that is a `cost.Costed` brings its formula


def deploy(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[torch.Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU, as one ONNX graph, see `dynlib.runtime`.

    `example` (N, C, H, W) has the size of the images that it will take, any N. With `calibrate`, a few batches of
    images, it is in int8. Raises InputError for a size that the network does not take.
    """
    return export.single("KEY", module, example, engine, threads, calibrate)
