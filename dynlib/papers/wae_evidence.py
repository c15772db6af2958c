"""What records say of the paper's order of variants, and the level that a linear code reaches on the same images."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from dynlib.data import Samples
from dynlib.errors import InputError
from dynlib.papers.wae_split import pca_reference
from dynlib.records import Record, config_hash, environment

CLAIMED = {  # variant: table and row of its claimed top-5 error
    "full": ("table2", "VGG16-Net"),
    "wae": ("table2", "WAE"),
    "decomposition": ("table2", "Decomposition+CNN"),
    "low": ("table3", "I_L"),
    "wavelet": ("table2", "Wavelet+CNN"),
    "downscaled": ("table3", "I_R"),
    "approximation": ("table3", "cA"),
}
SURE = 2  # standard errors beyond which a gap decides something


def claimed_errors(claims: pd.DataFrame) -> dict[str, float]:
    """The claimed top-5 error (%) of every variant, from all claims of the paper."""
    printed = {(claim.table, claim.row): claim.value for claim in claims.query("metric == 'top5_error'").itertuples()}
    return {variant: float(printed[place]) for variant, place in CLAIMED.items()}


class Pair(NamedTuple):
    """Two variants in the paper's order."""

    better: str
    worse: str
    claimed: float  # gap of the claimed errors, points
    gap: float  # gap of our accuracies, as a fraction; positive in the paper's order
    error: float  # its standard error
    verdict: str  # agrees, opposes, undecided


def pairs(claimed: Mapping[str, float], ours: Mapping[str, Sequence[float]], images: int) -> list[Pair]:
    """Every pair of variants that both sides have, the better by the claimed error (%) first.

    `ours` has an accuracy for each seed. The standard error is that of two shares of `images` test images, and of the
    means over seeds where there are several; of one seed the spread over seeds is unknown, and not in it.
    """
    known = [name for name in sorted(claimed, key=claimed.__getitem__) if ours.get(name)]
    mean = {name: statistics.mean(ours[name]) for name in known}
    variance = {name: mean[name] * (1 - mean[name]) / images + _of_mean(ours[name]) for name in known}
    found = []
    for better, worse in combinations(known, 2):
        gap, error = mean[better] - mean[worse], (variance[better] + variance[worse]) ** 0.5
        verdict = "undecided" if abs(gap) <= SURE * error else "agrees" if gap > 0 else "opposes"
        found.append(Pair(better, worse, claimed[worse] - claimed[better], gap, error, verdict))
    return found


def ranked(names: Iterable[str], ours: Mapping[str, Sequence[float]]) -> list[str]:
    """Those of the names that have values, the largest mean first."""
    return sorted((name for name in names if ours.get(name)), key=lambda name: -statistics.mean(ours[name]))


def _of_mean(values: Sequence[float]) -> float:
    return statistics.variance(values) / len(values) if len(values) > 1 else 0.0


def agreement(found: Sequence[Pair]) -> str:
    """How many of the pairs agree, in words."""
    if not found:
        return "no pair of variants has records yet"
    counts = {verdict: sum(pair.verdict == verdict for pair in found) for verdict in ("agrees", "opposes", "undecided")}
    return (
        f"of {len(found)} pairs {counts['agrees']} lie as in the paper and {counts['opposes']} the other way round; "
        f"{counts['undecided']} are nearer than {SURE} standard errors and decide nothing"
    )


def reference_config(dataset: str, size_px: int | None) -> dict:
    """What the record of a reference level is found by."""
    return {"dataset": dataset, "size_px": size_px, "kept": [6, 3]}


def reference(train: Samples, test: Samples, size_px: int | None, profile: str) -> Record:
    """The PSNR of the best linear codes on the test images, unsaved: `psnr_6_of_12` and `psnr_3_of_12`.

    Raises InputError for images of different sizes.
    """
    began = time.perf_counter()
    if isinstance(test.images, list):
        raise InputError(f"{test.name}/{test.split} holds images of different sizes; load it with size_px")
    config = reference_config(test.name, size_px)
    levels = pca_reference(test.images / 255, config["kept"])
    return Record(
        key="wae",
        kind="reference",
        profile=profile,
        config=config,
        config_hash=config_hash(config),
        dataset={
            "name": test.name,
            "train_images": len(train),
            "test_images": len(test),
            "train_sha256": train.checksum,
            "test_sha256": test.checksum,
        },
        seed=0,
        metrics={f"psnr_{kept}_of_12": level for kept, level in levels.items()},
        curve=[],
        environment=environment(),
        wall_s=round(time.perf_counter() - began, 1),
    )


def verdict(found: Mapping[str, Sequence[Record]], images: int) -> str:
    """One sentence from the records of each variant: how far WAE stands from the others in points, and what each costs.

    The errors are as in `pairs`.
    """
    if not found.get("wae"):
        return "no record of WAE yet"
    top1 = {name: [run.metrics["top1"] for run in runs] for name, runs in found.items() if runs}
    macs = {name: f"{found[name][0].metrics['macs'] / 1e6:.1f} M" for name in top1}
    gaps = []
    for other in sorted(top1.keys() - {"wae"}, key=lambda name: found[name][0].metrics["macs"]):
        (pair,) = pairs({"wae": 0.0, other: 1.0}, top1, images)
        told = f"{100 * pair.gap:+.2f} ± {100 * pair.error:.2f}".replace("-", "−")
        gaps.append(f"{told} points from *{other}* ({macs[other]})")
    return f"WAE, at {macs['wae']} multiply-accumulates, stands {', '.join(gaps)}; seeds: {len(top1['wae'])}"
