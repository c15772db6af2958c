"""Which networks every method converts, and why not the rest: torchvision's classifiers, and timm's where it is there.

What came of it lies in data/surveys/coverage.csv, so that a page need not wait. `write` makes it anew, in some minutes:

    python -m dynlib.book.zoo.coverage

A network is tried without weights or values, on the meta device: it counts where `convert` gives a network that then
runs on an image's shape.
"""

import contextlib
import csv
import importlib.util
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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
SIDES = {"squeezenet1_0": 229, "squeezenet1_1": 225}  # px, where octaves have no form at 224
SETTINGS = {"drnet": {"predictor_width": 0.125}, "sampling": {"density": 0.25}}  # besides each method's own
TIMM = (
    *("resnet50", "resnet50d", "resnext50_32x4d", "seresnet50", "ecaresnet26t", "skresnet18", "res2net50_26w_4s"),
    *("vgg11_bn", "densenet121", "dla34", "hrnet_w18_small", "xception41", "inception_v3", "darknet53", "cspresnet50"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "fbnetc_100", "efficientnet_b0", "efficientnet_lite0"),
    *("mixnet_s", "ghostnet_100", "rexnet_100", "regnetx_004", "regnety_004", "repvgg_a0", "gernet_s", "convnext_atto"),
)


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
        network = _on_meta(lambda name=name: build(name))
        if sum(p.numel() for p in network.parameters()) <= MOST_PARAMS:
            yield "torchvision", name, network
    if importlib.util.find_spec("timm") is not None:
        import timm

        for name in TIMM:
            yield "timm", name, _on_meta(lambda name=name: timm.create_model(name, pretrained=False))


def _on_meta(builder) -> nn.Module:
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
    return Finding(library, name, params, key, refusal)


def as_csv(findings: Iterable[Finding]) -> str:
    """One line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Finding._fields)
    writer.writerows(findings)
    return text.getvalue()


def write(path: Path = PATH) -> None:
    """Try every network with every method and write what came of it."""
    found = [tried(*network, key) for network in networks() for key in papers.METHODS]
    write_atomically(path, as_csv(found))


if __name__ == "__main__":
    write()
