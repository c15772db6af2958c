"""Which of torchvision's classifiers have an octave form: one list, tried by the tests and shown in the book.

What came of it lies in data/surveys/octconv.csv, so that a page need not wait; a test keeps that file equal to what the
library finds, and `write` makes it anew: python -c "from dynlib.book.zoo import octconv_survey as s; s.write()".
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dynlib.backbones import build
from dynlib.book.zoo.coverage import on_meta
from dynlib.cost import example
from dynlib.errors import InputError
from dynlib.papers.octconv import Config, convert, cost
from dynlib.paths import SURVEYS, write_atomically

_IMAGE = (224, 224)
_CLIP = (16, 112, 112)

TRIED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2"), _IMAGE),
    **dict.fromkeys(("vgg11", "vgg11_bn", "vgg16_bn", "densenet121", "googlenet"), _IMAGE),
    "squeezenet1_0": (229, 229),  # its unpadded layers make even maps of few sizes, and none of 224
    "squeezenet1_1": (225, 225),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_3"), _IMAGE),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s"), _IMAGE),
    **dict.fromkeys(("regnet_x_400mf", "regnet_y_400mf"), _IMAGE),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), _CLIP),
    "s3d": (16, *_IMAGE),
    **dict.fromkeys(("alexnet", "shufflenet_v2_x0_5", "convnext_tiny", "swin_t", "vit_b_16"), _IMAGE),
    "inception_v3": (299, 299),
    "mvit_v1_b": (16, *_IMAGE),
}
"""Name -> size it is tried at, (height, width) or (frames, height, width)."""


class Finding(NamedTuple):
    """What came of one architecture; without an octave form it has a refusal, else the costs of one image or clip."""

    arch: str
    size: str  # 224x224, or 16x112x112 of a clip
    refusal: str | None = None
    params: int | None = None
    macs_static: int | None = None
    macs: int | None = None


def survey(arch: str) -> Finding:
    """Try an architecture of `TRIED` at alpha 0.5, without computing anything."""
    plain, size = on_meta(lambda: build(arch)), TRIED[arch]
    words = "x".join(map(str, size))
    try:
        octave = convert(plain, Config(alpha=0.5), example(size).to("meta"))
    except InputError as error:
        return Finding(arch, words, refusal=str(error).partition("; the closest known are")[0])
    static, ours = (cost(network, size) for network in (plain, octave))
    return Finding(arch, words, None, ours.params, static.macs, ours.macs)


def write(path: Path = SURVEYS / "octconv.csv") -> None:
    """Try every architecture of `TRIED` and write what came of it, one line each."""
    write_atomically(path, pd.DataFrame(map(survey, TRIED), dtype=object).to_csv(index=False))
