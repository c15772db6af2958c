"""Which networks every method converts, and why not the rest: torchvision's classifiers, and timm's where it is there.

What came of it lies in data/surveys, so that a page need not wait: coverage.csv, a line a network and method, and two
tables of the same, how many convert and what stops the others. `write` makes them anew, in some minutes:

    python -m dynlib.book.zoo.coverage

A network is tried without weights or values, on the meta device: it counts where `convert` gives a network that then
runs on an image's shape.
"""

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torchvision import models

from dynlib import papers
from dynlib.backbones import build
from dynlib.cost import example
from dynlib.errors import InputError
from dynlib.ops import evaluating
from dynlib.papers import method
from dynlib.paths import SURVEYS, write_atomically

PATH = SURVEYS / "coverage.csv"
MOST_PARAMS = 90_000_000  # what has more is left out of torchvision's list
SIDES = {"alexnet": 247, "squeezenet1_0": 229, "squeezenet1_1": 225}  # px, where octaves have no form at 224
SETTINGS = {"drnet": {"predictor_width": 0.125}, "sampling": {"density": 0.25}}  # besides each method's own
TIMM = (
    *("resnet50", "resnet50d", "resnext50_32x4d", "seresnet50", "ecaresnet26t", "skresnet18", "res2net50_26w_4s"),
    *("vgg11_bn", "densenet121", "dla34", "hrnet_w18_small", "xception41", "inception_v3", "darknet53", "cspresnet50"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "fbnetc_100", "efficientnet_b0", "efficientnet_lite0"),
    *("mixnet_s", "ghostnet_100", "rexnet_100", "regnetx_004", "regnety_004", "repvgg_a0", "gernet_s", "convnext_atto"),
)
REASONS = {  # part of a refusal -> the same in a few words, for a table
    "has no batch norm": "no batch norm",
    "has no residual block": "no known residual block",
    "differs in training mode": "another forward in training",
    "ends in one linear layer": "another kind of head",
    "its scores come by way of": "another kind of head",
    "in equal numbers by equal layers": "parts of unequal layers",
    "mixes channels": "channels in another order",
    "maps that divide the image": "maps that do not divide the image",
    "torch.fx cannot trace": "branches on data",
    "used twice": "a layer used twice",
    "are of different channels": "sums of different channels",
    "does not take": "maps whose sizes do not meet",
    "is its only convolution": "one convolution",
    "norms over all channels": "layer norm",
}


class Finding(NamedTuple):
    """What came of one network and one method; without a converted form it has a refusal."""

    library: str
    network: str
    params: int
    method: str
    refusal: str


def networks() -> Iterator[tuple[str, str, nn.Module]]:
    """Library, name and network on the meta device, one after another."""
    for name in models.list_models(module=models):
        network = on_meta(lambda name=name: build(name))
        if sum(p.numel() for p in network.parameters()) <= MOST_PARAMS:
            yield "torchvision", name, network
    if importlib.util.find_spec("timm") is not None:
        import timm

        for name in TIMM:
            yield "timm", name, on_meta(lambda name=name: timm.create_model(name, pretrained=False))


def on_meta(builder) -> nn.Module:
    """The network without memory or values; a builder that computes its widths with tensors needs some."""
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        return builder().eval()
    return builder().to("meta").eval()


@torch.no_grad()
def tried(library: str, name: str, network: nn.Module, key: str) -> Finding:
    """Convert one network and run the result on the shape of an image."""
    offered = method(key)
    side = SIDES.get(name, 224) if key == "octconv" else 224
    images = example(side).to("meta")
    told = {} if side == 224 else {"example": images}
    params, refusal = sum(p.numel() for p in network.parameters()), ""
    try:
        converted = offered.convert(network, offered.Config(**SETTINGS.get(key, {})), **told).to("meta")
        with evaluating(converted):
            converted(images)
    except InputError as error:
        refusal = str(error).partition("; the closest known are")[0]
    except RuntimeError as error:  # torch's own words
        reason = str(error).partition("\n")[0]
        refusal = f"{type(network).__name__}: what it becomes does not take {side} px: {reason:.200}"
    return Finding(library, name, params, key, refusal)


def reason(refusal: str) -> str:
    """A refusal in a few words, the same for all networks that it stops: the operation, where that is it."""
    if operation := re.search(r"no rule for the operation ([\w.]+)", refusal):
        return operation[1].rpartition(".")[2]
    return next((words for part, words in REASONS.items() if part in refusal), refusal)


def read(path: Path = PATH) -> list[Finding]:
    """What `write` wrote."""
    return [Finding(*line) for line in pd.read_csv(path, keep_default_na=False).itertuples(index=False)]


def write(folder: Path = SURVEYS) -> None:
    """Try every network with every method and write what came of it."""
    tables(folder, [tried(*network, key) for network in networks() for key in papers.METHODS])


def tables(folder: Path, findings: Sequence[Finding]) -> None:
    """Write the findings, how many networks of a library each method converts, and what stops it at the others."""
    found = pd.DataFrame(findings)
    found["converts"], found["why"] = found.refusal == "", found.refusal.map(reason).replace("", "converts")
    counted = found.pivot_table("converts", "library", "method", "sum", sort=False)
    counted.insert(0, "networks", found.groupby("library").network.nunique())
    names = ["network", "library"]
    stopped = found.pivot(index=names, columns="method", values="why")[[*papers.METHODS]]
    stopped = found[names].drop_duplicates().join(stopped, on=names)
    write_atomically(folder / PATH.name, found.to_csv(columns=Finding._fields, index=False))
    write_atomically(folder / "coverage_counted.csv", counted.to_csv())
    write_atomically(folder / "coverage_stopped.csv", stopped.to_csv(index=False))


if __name__ == "__main__":
    write()
