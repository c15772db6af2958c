"""The results in the README are those of the records, and its example runs."""

import re

import pytest
import torch

from dynlib.book import report
from dynlib.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEEDS = {
    "wavelet-like auto-encoder, VGG16": ("wae", "variant == 'wae' and arch == 'vgg16' and batch == 1"),
    "wavelet-like auto-encoder, ResNet-50": ("wae", "variant == 'wae' and arch == 'resnet50' and batch == 1"),
    "octaves, alpha 0.5": ("octconv", "alpha == 0.5 and arch == 'resnet50' and batch == 1"),
    "stages of S2DNAS": ("s2dnas", "arch == 'cifar_vgg16_bn' and batch == 1"),
    "dynamic resolution": ("drnet", "arch == 'resnet50' and batch == 1 and macs_ratio > 1"),
}


@pytest.mark.parametrize("start", SPEEDS)
def test_the_speed_ups_in_the_readme_are_those_of_the_records(start):
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {start}")]
    key, wanted = SPEEDS[start]
    (found,) = report.latencies(key).query(wanted).itertuples()
    assert line.endswith(f"| {found.macs_ratio:.2f} | {found.speedup:.2f} |")


def test_the_example_in_the_readme_runs():
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    small = (
        source.replace('resnet50(weights="DEFAULT")', "resnet18()")
        .replace("resnet50", "resnet18")
        .replace("224, 224", "64, 64")
    )
    assert small.count("resnet18") == 2
    scope: dict = {}
    exec(small, scope)
    torch.testing.assert_close(scope["logits"], scope["octave"](scope["example"]), rtol=1e-4, atol=1e-4)
