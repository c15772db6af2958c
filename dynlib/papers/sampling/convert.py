"""Residual blocks of a network are replaced by sampled ones; costs, phases, figures."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from torch import nn

from dynlib import tasks
from dynlib.cost import Cost, closed_form, layer_sizes
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.papers.sampling.baselines import fits_detector, pruned, shrink_stem
from dynlib.papers.sampling.block import BLOCKS, SampledBlock, sampled_blocks
from dynlib.papers.sampling.branch import Branch, branch_of, sampled_branch
from dynlib.papers.sampling.interpolate import AVERAGE, CONVOLUTION, RBF, REUSE, ZEROS, Filler
from dynlib.papers.sampling.masks import DETERMINISTIC, STOCHASTIC, UNIFORM, grid, samplers, set_seed, tallied
from dynlib.papers.sampling.training import groups, objective, watch
from dynlib.settings import check_choice, check_number
from dynlib.tracing import copied
from dynlib.train import Phase

TASKS = ("classification", "segmentation", "detection")
SEEDS = (0, 1, 2)  # of the noise, in `evaluate`
Density = float | dict[str, float]  # one for all masks, or by the name of each sampler
DENSITIES = (0.1, 0.25, 0.5, 1.0)  # the choices whose MACs are listed, and that a deployed network can be forced to


@dataclass(frozen=True)
class Config:
    """Settings of a sampled network; each value is checked and a bad one named. R: the released configuration."""

    sampling: str = STOCHASTIC  # stochastic; deterministic: no noise; uniform: the whole network on a smaller image
    density: float | None = None  # (0, 1], at every mask instead of the learned one; of uniform, the share of pixels
    masks: int = 2  # of a block, 1 to 3; 2 is (b) in Fig. 3, R
    interpolation: str = RBF  # rbf, convolution, average (Table 1), zeros, reuse (Table 2)
    window: int = 7  # side in positions, odd, R
    sigma: float = 3.0  # of the RBF kernel at the start, in 1 / positions, R
    epsilon: float = 1e-5  # added to the sum of the weights, R; 0 is an exact mean
    grid: int | None = 11  # every so many rows and columns a position is always computed, R; None: nowhere (Table 3)
    gamma: float = 0.1  # weight of the sparse loss; R has 0.02, 0.05, 0.1, 0.2
    tau: float = 0.03  # temperature at the end of the training, (0, 1], R
    bias: float = 3.0  # of the scores at the start: pi is 0.953, R
    pruned: float = 0.0  # share of the channels inside each block that goes first, [0, 1) (Table 6)
    seed: int = 0  # of the masks in evaluation

    def __post_init__(self):
        kinds = (RBF, CONVOLUTION, AVERAGE, ZEROS, REUSE)
        samplings = (STOCHASTIC, DETERMINISTIC, UNIFORM)
        for name, allowed in (("sampling", samplings), ("interpolation", kinds), ("masks", (1, 2, 3))):
            check_choice(self, name, allowed)
        check_number(self, "density", 0, 1, above=True, optional=True)
        check_number(self, "sigma", 0, above=True)
        check_number(self, "epsilon", 0)
        check_number(self, "gamma", 0)
        check_number(self, "tau", 0, 1, above=True)
        check_number(self, "bias", -math.inf)
        check_number(self, "pruned", 0, 1, below=True)
        check_number(self, "window", 3, whole=True)
        if self.window % 2 == 0:
            raise InputError(f"window is {self.window}; it is an odd number of positions, around the one in the middle")
        check_number(self, "grid", 1, whole=True, optional=True)
        check_number(self, "seed", 0, 2**32 - 1, whole=True)
        if self.sampling == UNIFORM and self.density is None:
            raise InputError("density is None; uniform sampling needs the share of the pixels, above 0 and at most 1")
        if self.sampling == DETERMINISTIC and self.density not in (None, 1.0):
            raise InputError(
                f"density is {self.density}; deterministic sampling computes where pi is at least 0.5 and takes none"
            )


def convert(model: nn.Module, config: Config) -> nn.Module:
    """The sampled network of a residual one: a copy with the same weights under the same names, and masks beside them.

    Takes whatever holds torchvision's bottlenecks or basic blocks: ResNet, ResNeXt and Wide ResNet as classifiers, as
    backbones of its detectors, as dilated backbones of its segmentation networks; our CIFAR ResNets; and every block
    whose branch keeps the size of its map, see `branch`: inverted residuals, RegNet's, ConvNeXt's. It returns
    what the model returns; `masks.observed` sees the masks. Stem, shortcuts and heads stay dense. At density 1
    it is the model itself. Every layer keeps its mode. With `pruned`, first the channels of the smallest batch-norm
    scales go, so that needs a trained network.
    Raises InputError where there is no such block, or no stem to make the image smaller in front of.
    """
    model = copied(model)
    model = pruned(model, config.pruned) if config.pruned else model
    blocks = _blocks(model, config.masks)
    if not blocks:
        raise InputError(
            f"{type(model).__name__} has no residual block to sample; allowed are those of ResNets, and those whose "
            "forward is x + branch(x) with a branch of stride 1"
        )
    if config.density == 1:
        return model
    if config.sampling == UNIFORM:
        hosts = [part for part in model.modules() if {"conv1", "layer1"} <= dict(part.named_children()).keys()]
        if not hosts:
            raise InputError(f"{type(model).__name__} has no stem; uniform sampling needs one, conv1, to shrink before")
        if hasattr(model, "roi_heads"):
            if not fits_detector(config.density):
                raise InputError(
                    f"density is {config.density}; for a detector uniform sampling takes 1/4, 1/16, ..: its pooling "
                    "rounds the scale of its maps to a power of two"
                )
            model.roi_heads.box_roi_pool.scales = None  # found at its first images; they may have been larger
        for host in hosts:
            shrink_stem(host, config.density)
        return model
    how = {name: getattr(config, name) for name in ("window", "sigma", "epsilon", "bias", "density", "seed")}
    how |= {"kind": config.interpolation, "interval": config.grid, "deterministic": config.sampling == DETERMINISTIC}
    for index, (name, block) in enumerate(blocks.items()):
        number = index * config.masks
        if isinstance(block, Branch):
            sampled = sampled_branch(block, number, **how)
        else:
            sampled = SampledBlock(block, config.masks, number, **how)
        if not name:  # the model is one block
            return sampled
        model.set_submodule(name, sampled)
    return model


def _blocks(model: nn.Module, masks: int) -> dict[str, nn.Module | Branch]:
    """Every residual block, by its name, in order: one of `BLOCKS`, or what the graph of another says."""
    found: dict[str, nn.Module | Branch] = {}
    for name, part in model.named_modules():
        if any(not block or name.startswith(f"{block}.") for block in found):
            continue
        if isinstance(part, BLOCKS):
            found[name] = part
        elif any(part.children()) and not any(isinstance(inner, BLOCKS) for inner in part.modules()):
            branch = branch_of(part, masks)
            found |= {name: branch} if branch else {}
    return found


# ---------------------------------------------------------------------------------------------------------------- costs


def cost(module: nn.Module, input_size: int | tuple[int, int]) -> Cost:
    """*Static*: the MACs of the masked dense form, which computes everything, for one image of (height, width) px."""
    return closed_form(module, input_size)


def expected(module: nn.Module, input_size: int | tuple[int, int], density: Density) -> dict[str, float]:
    """*Expected*: the MACs of one image by layer, not rounded, when each mask computes its share of the positions.

    A convolution costs its share d; a window of positions K x K holds K^2 d samples on average, is needed at the other
    1 - d of the positions, and in front of a 1x1 convolution with the same mask it is the outputs of that one that are
    interpolated. Scores, stem, shortcuts and head are dense. The authors' formula (Sec. 4) is this one.
    `density` is one for all masks or one for each, by its sampler's name; at 1 nothing is interpolated.
    """
    return _costs(module, cost(module, input_size).by_layer, layer_sizes(module, input_size), density)


def _costs(
    module: nn.Module,
    dense: dict[str, int],
    sizes: dict[str, tuple],
    density: Density,
) -> dict[str, float]:
    """The same from what the masked dense form costs and from the shapes (C, H, W) behind its layers."""
    by_layer = dict(dense)
    for name, block in sampled_blocks(module).items():
        for conv, mask in block.masked.items():
            d = _at(density, f"{name}.samplers.{mask}")
            conv = f"{name}.{conv}"
            by_layer[conv] = dense[conv] * d  # eq-sampling-cost
        for filler, (conv, mask) in block.filled.items():
            d = _at(density, f"{name}.samplers.{mask}")
            filler = f"{name}.{filler}"
            if filler in by_layer:
                outputs = math.prod(sizes[f"{name}.{conv}"])
                window = module.get_submodule(filler).window ** 2
                by_layer[filler] = window * outputs * d * (1 - d)  # likewise
    return by_layer


def _at(density: Density, sampler: str) -> float:
    return density[sampler] if isinstance(density, dict) else density


def macs_by_choice(module: nn.Module, input_size: int | tuple[int, int]) -> dict[str, int]:
    """Expected MACs of one image at each of `DENSITIES`, the same at every mask; of a dense network, its own."""
    dense = cost(module, input_size)
    if not sampled_blocks(module):
        return {"1.0": dense.macs}
    sizes = layer_sizes(module, input_size)
    return {str(d): round(sum(_costs(module, dense.by_layer, sizes, d).values())) for d in DENSITIES}


def macs_expected(module: nn.Module, input_size: int | tuple[int, int]) -> int | None:
    """Expected MACs of one image at the density that `Config.density` gives every mask, the grid's positions included.

    None where the densities are learned: then they are a matter of the data, see `evaluate`.
    """
    if any(sampler.density is None for sampler in samplers(module).values()):
        return None
    dense, sizes = cost(module, input_size).by_layer, layer_sizes(module, input_size)
    density = {}
    for name, sampler in samplers(module).items():
        size = sizes[f"{name}.score"][1:]
        on_grid = 0.0 if sampler.interval is None else grid(*size, sampler.interval).mean().item()
        density[name] = sampler.density + (1 - sampler.density) * on_grid
    return round(sum(_costs(module, dense, sizes, density).values()))


def macs_backbone(by_layer: Mapping[str, float]) -> int:
    """The MACs of stem and stages alone, without pyramid and head: what the authors count."""
    return round(sum(macs for name, macs in by_layer.items() if re.search(r"(^|\.)(conv1|layer\d)(\.|$)", name)))


def _of_backbone(by_layer: Mapping[str, float]) -> dict[str, int]:
    return {"macs_backbone": macs} if (macs := macs_backbone(by_layer)) else {}


# ------------------------------------------------------------------------------------------------------------- training


def phases(config: Config) -> tuple[Phase, ...]:
    """Two thirds of the epochs the dense network, one for all settings; then, from its weights, the converted one."""
    dense = Phase("dense", epochs=2 / 3, settings=Config(density=1.0))
    how = {"objective": objective(config.gamma, config.tau), "groups": groups, "watch": watch}
    return dense, Phase("sampled", epochs=1 / 3, **how)


def evaluate(model: nn.Module, valid: Batches) -> dict[str, float | list[float]]:
    """What random masks do to held-out data, over `SEEDS` of their noise; the model keeps its own seed.

    `top1_by_seed`, or the metric of another task, with `_mean` and `_spread`, the sample deviation; `density_by_mask`,
    means over images and seeds, in the order of the network, and `density`, the mean of these; `undecided_by_mask`,
    shares of the positions whose probability is neither near 0 nor near 1, and `undecided`, the mean; `macs_expected`
    of what the task counts, and `macs_backbone`, of stem and stages alone; `sigma_by_mask` of the RBF, in 1 /
    positions; `empty_windows`, the share of unsampled positions without a sample in the window.
    Of a network without masks, `macs_backbone` alone, and that of ResNets only.
    """
    task = tasks.of(valid)
    part, size = task.counted(model, tuple(next(valid.epoch(None))[0].shape[-2:]))
    found = samplers(model)
    if not found:
        return _of_backbone(cost(part, size).by_layer)
    kept = next(iter(found.values())).seed
    fillers = [filler for filler in model.modules() if isinstance(filler, Filler)]  # all of one kind and window
    with tallied(part, fillers[0].window) if fillers else tallied(part) as tally:
        scores = []
        for seed in SEEDS:
            set_seed(model, seed)
            scores += task.watch(model, valid).values()
    set_seed(model, kept)
    by_layer = expected(part, size, tally.densities)
    learned = [filler for filler in fillers if filler.kind == RBF]
    sigmas = {"sigma_by_mask": [abs(filler.sigma.item()) for filler in learned]} if learned else {}
    return (
        sigmas
        | _of_backbone(by_layer)
        | {
            f"{task.metric}_by_seed": scores,
            f"{task.metric}_mean": fmean(scores),
            f"{task.metric}_spread": stdev(scores),
            "density_by_mask": list(tally.densities.values()),
            "density": fmean(tally.densities.values()),
            "macs_expected": round(sum(by_layer.values())),
            "undecided_by_mask": list(tally.undecided.values()),
            "undecided": fmean(tally.undecided.values()),
            "empty_windows": tally.empty_windows,
        }
    )
