"""Sampled networks for inference on a CPU: what is not sampled is not computed.

Every residual block of the network is replaced: a sampled one by its skipping form (`sparse.py`), a plain one
by its frozen form (`dynlib.fusion`), as is the stem. The rest of the host stays what it is.
"""

import copy
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from dynlib.errors import InputError
from dynlib.fusion import freeze
from dynlib.ops import evaluating
from dynlib.papers.sampling.baselines import Shrink, ShrunkConv2d, shrink
from dynlib.papers.sampling.block import BLOCKS, SampledBlock, sampled_blocks
from dynlib.papers.sampling.gather import Workspace
from dynlib.papers.sampling.interpolate import REUSE
from dynlib.papers.sampling.masks import bernoulli_mask
from dynlib.papers.sampling.sparse import SparseBlock

_TRIED = (0.25, 0.75)  # densities at which both forms of a block are timed
_TIMES = 2  # the fastest of so many


class Deployed(nn.Module):
    """A network whose blocks skip: inference only, float32, CPU, one call at a time. Made by `deploy`."""

    def __init__(self, network: nn.Module, workspace: Workspace, densities: tuple[float, ...]):
        super().__init__()
        self.network, self.workspace, self.densities = network, workspace, densities

    @torch.inference_mode()
    def forward(self, images: Tensor, choices: Tensor | None = None) -> object:
        """Images (N, 3, H, W) to what the network returns.

        With `choices` (N,), indices into `densities`, every mask of an image has that density; its scores are computed
        all the same. Raises InputError for other choices.
        """
        if choices is None:
            return self.network(images.contiguous(memory_format=torch.channels_last))
        if choices.shape != images.shape[:1] or not ((choices >= 0) & (choices < len(self.densities))).all():
            raise InputError(
                f"choices are {choices.tolist()}; allowed is one for each of {len(images)} images, from 0 to "
                f"{len(self.densities) - 1}: an index into {self.densities}"
            )
        self.workspace.density = torch.tensor(self.densities)[choices]
        try:
            return self.network(images.contiguous(memory_format=torch.channels_last))
        finally:
            self.workspace.density = None


@torch.inference_mode()
def deployed(
    module: nn.Module, example: Tensor, densities: tuple[float, ...], break_even: float | None = None
) -> Deployed:
    """The deployed form of a network; `break_even` is each block's, None measures it on blocks of equal shape."""
    network = copy.deepcopy(module).eval()
    _thaw(network)
    for name, block in sampled_blocks(network).items():
        if len(block.samplers) == 3 and block.kind == REUSE:
            raise InputError(f"{name}: three masks that reuse features have no deployed form; allowed are 1 and 2")
    for host in [part for part in network.modules() if {"conv1", "bn1", "layer1"} <= part._modules.keys()]:
        _freeze_stem(host, example)
    workspace, measured = Workspace(), {}
    for name, shape in _input_shapes(network, example).items():
        part, inputs = network.get_submodule(name), torch.randn(shape).to(memory_format=torch.channels_last)
        if isinstance(part, BLOCKS):
            network.set_submodule(name, freeze(part, inputs))
            continue
        own = name.rpartition(".")[2] != "0"  # what comes before in its stage has no other reader
        sparse = SparseBlock(part, inputs, workspace, own and part.downsample is None)
        alike = (shape, str(part))
        if break_even is None and alike not in measured:
            measured[alike] = _break_even(sparse, inputs)
        sparse.break_even = measured.get(alike, break_even)
        network.set_submodule(name, sparse)
    return Deployed(network, workspace, densities)


def _thaw(network: nn.Module) -> None:
    """Write frozen batch norms, which detectors have, as ordinary ones in evaluation mode."""
    for name, part in list(network.named_modules()):
        if isinstance(part, FrozenBatchNorm2d):
            norm = nn.BatchNorm2d(len(part.weight), eps=part.eps).eval()
            norm.load_state_dict(part.state_dict() | {"num_batches_tracked": torch.tensor(0)})
            network.set_submodule(name, norm)


def _input_shapes(network: nn.Module, example: Tensor) -> dict[str, torch.Size]:
    """The shape of what each residual block reads when the network runs on the example."""
    shapes, hooks = {}, []
    for name, part in network.named_modules():
        if isinstance(part, (SampledBlock, *BLOCKS)):
            keep = lambda module, args, name=name: shapes.update({name: args[0].shape})  # noqa: E731
            hooks.append(part.register_forward_pre_hook(keep))
    with evaluating(network):
        network(example)
    for hook in hooks:
        hook.remove()
    return shapes


def _freeze_stem(host: nn.Module, example: Tensor) -> None:
    """Fold the stem's batch norm and ReLU into its convolution."""
    stem = host.conv1
    plain = nn.Sequential(copy.copy(stem), host.bn1, nn.ReLU())
    if isinstance(stem, ShrunkConv2d):
        plain[0].__class__ = nn.Conv2d
        host.conv1 = nn.Sequential(Shrink(stem.density), freeze(plain, shrink(example, stem.density)))
    else:
        host.conv1 = freeze(plain, example)
    host.bn1 = nn.Identity()


def _break_even(block: SparseBlock, inputs: Tensor) -> float:
    """The density at which skipping takes as long as computing everything, by a straight line through two."""
    late = []
    for density in _TRIED:
        generator = torch.Generator().manual_seed(0)
        masks = [bernoulli_mask(torch.full_like(mask, density), generator) for mask in block.masks(inputs)]
        times = []
        for block.break_even in (1.0, 0.0):
            runs = []
            for _ in range(_TIMES):
                began = perf_counter()
                block.masked(inputs, masks)
                runs.append(perf_counter() - began)
            times.append(min(runs))
        late.append(times[0] - times[1])
    slope = (late[1] - late[0]) / (_TRIED[1] - _TRIED[0])
    if slope <= 0:
        return 1.0 if late[1] < 0 else 0.0
    return min(1.0, max(0.0, _TRIED[0] - late[0] / slope))
