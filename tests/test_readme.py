"""The results in the README are those of the records, and its example runs."""

import re

import torch

from dynlib.backbones import build
from dynlib.book import paperscale, recipes, records, runs
from dynlib.book.zoo.authors_count import AUTHORS
from dynlib.cost import count, example
from dynlib.papers import octconv
from dynlib.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
HALF = octconv.Config(alpha=0.5)


def row(start: str) -> str:
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {start}")]
    return line


def timing(batch: int) -> dict:
    described = paperscale.describe_latency(HALF, "resnet50", (224, 224), batch, 1)
    return records.lookup("octconv", "latency", "paper", described, 0).metrics


def test_the_counts_in_the_readme_are_what_is_counted():
    with torch.device("meta"):
        network, image = build("preact_resnet50"), example(224).to("meta")
    ours, plain = (
        count(octconv.convert(network, c), image, formulas=AUTHORS).macs for c in (HALF, octconv.Config(alpha=0))
    )
    assert f"{ours / 1e9:.3f} G of {plain / 1e9:.3f}" in row("ResNet-50 at 224 px")


def test_the_speed_ups_in_the_readme_are_those_of_the_records():
    one, eight = timing(1), timing(8)
    assert f"{one['speedup']:.2f} (the MACs promise {one['macs_ratio']:.2f})" in row("its speed-up")
    assert f"| {eight['speedup']:.2f} |" in row("the same at batch 8")


def test_the_accuracy_in_the_readme_is_that_of_the_records():
    recipe = recipes.profile_recipe("02_octconv", "public")
    top1 = [
        runs.recorded("octconv", config, recipe, profile="public", seed=0).metrics["top1"]
        for config in (octconv.Config(alpha=0), HALF)
    ]
    assert f"{100 * (top1[1] - top1[0]):+.2f}" in row("ResNet-20 on CIFAR-10")
    assert recipe.epochs == 4 and "four epochs, one seed" in README


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
