"""Speed on the reader's machine: a stage of a ResNet that skips against the same stage that computes everything."""

from collections.abc import Mapping, Sequence

import torch

from dynlib.backbones import build
from dynlib.book.records import Record
from dynlib.cost import count, example
from dynlib.latency import Latency, compare, macs_ratio
from dynlib.papers import sampling

READS = {1: (248, 416), 2: (248, 416), 3: (124, 208), 4: (62, 104)}  # px of what each stage reads at 992 x 1664
DENSITIES = (0.1, 0.25, 0.5)
# Table 5 at the paper's scale, by row: network, image, density.
CASES = {f"whole, density {d}": ("resnet101", (992, 1664), d) for d in DENSITIES}
CASES |= {f"stage {n}, density {d}": (f"resnet101_stage{n}", size, d) for n, size in READS.items() for d in DENSITIES}


def here(
    arch: str, size: tuple[int, int], densities: Sequence[float] = DENSITIES, repeats: int = 3
) -> dict[float, tuple[float, Latency]]:
    """By density: the ratio of MACs, all to expected, and what this process measures now at its number of threads.

    The other side is the network deployed whole. A glance: not alone on the machine, and beside this one dense form.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network, images = build(arch).eval(), example(size)
        dense = sampling.deploy(sampling.convert(network, sampling.Config(density=1.0)), images)
        found = {}
        for density in densities:
            model = sampling.convert(network, sampling.Config(density=density)).eval()
            ratio = macs_ratio(count(network, images).macs, sampling.macs_expected(model, size))
            fast = sampling.deploy(model, images)
            found[density] = (ratio, compare({"dense": dense}, fast, images, repeats=repeats, min_seconds=0.05))
    return found


def words(timed: Mapping[str, Record | None], density: float = 0.25) -> str:
    """One sentence: where skipping is faster than the fastest dense form, by the quartiles of the rounds.

    In brackets the speed-up, and the one that the saved operations promise.
    """
    kinds: dict[str, list[str]] = {"faster": [], "slower": [], "as fast": []}
    without = []
    for part in ("whole", *(f"stage {number}" for number in READS)):
        where = "the whole network" if part == "whole" else part
        if run := timed.get(f"{part}, density {density}"):
            low, high = run.metrics["speedup_iqr"]
            gained = f"{run.metrics['speedup']:.2f} times, {run.metrics['macs_ratio']:.2f} by operations"
            kinds["faster" if low > 1 else "slower" if high < 1 else "as fast"].append(f"{where} ({gained})")
        else:
            without.append(where)
    found = "; ".join(f"{kind} in {', '.join(parts)}" for kind, parts in kinds.items() if parts)
    told = [f"At density {density} skipping is {found}."] * bool(found)
    return " ".join([*told, *[f"Speed at density {density}, no record yet: {', '.join(without)}."] * bool(without)])
