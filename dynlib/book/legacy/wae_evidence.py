"""What records say of the paper's order of variants, and the level that a linear code reaches on the same images."""

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dynlib.book.legacy.student import beyond_chance
from dynlib.book.records import Record, config_hash, environment, find
from dynlib.data import Samples
from dynlib.errors import InputError
from dynlib.papers.wae.split import pca_reference
from dynlib.paths import RESULTS

CLAIMED = {  # variant: table and row of its claimed top-5 error
    "full": ("table2", "VGG16-Net"),
    "wae": ("table2", "WAE"),
    "decomposition": ("table2", "Decomposition+CNN"),
    "low": ("table3", "I_L"),
    "wavelet": ("table2", "Wavelet+CNN"),
    "downscaled": ("table3", "I_R"),
    "approximation": ("table3", "cA"),
}
TINY = {"dataset": "tiny_imagenet100", "train_images": 10000, "epochs": 5}  # what else than the public recipe
EQUAL_COST = {"ResNet-18": 56, "VGG-16-BN": 48}  # px at which the network itself costs about what WAE does at 64
SURE = 2  # standard errors of the test images within which a gap decides nothing

Scores = Mapping[str, Mapping[int, float]]  # variant: an accuracy a seed


def recipes(public: object) -> dict[str, object]:
    """The recipes whose records stand beside the paper, by network on its data, by data set a ResNet-18."""
    return {
        "ResNet-18": public,
        "VGG-16-BN": replace(public, arch="cifar_vgg16_bn", width=16),
        "Tiny ImageNet-100": replace(public, **TINY),
    }


def at_equal_cost(public: object) -> dict[str, object]:
    """The recipes of the network itself on smaller pictures, at about the cost of WAE."""
    return {net: replace(of, size_px=EQUAL_COST[net]) for net, of in recipes(public).items() if net in EQUAL_COST}


def in_short(name: str, evidence: Mapping[str, Mapping[str, Sequence[Record]]]) -> str:
    """A sentence with the accuracies of one network of `evidence`, and their number of seeds."""
    shown = [
        f"{variant} {100 * statistics.mean(run.metrics['top1'] for run in runs):.2f} % (n = {len(runs)})"
        for variant, runs in evidence[name].items()
        if runs
    ]
    return f"{name}: {', '.join(shown) or 'no record yet'}."


def how_made(evidence: Mapping[str, Mapping[str, Sequence[Record]]]) -> list[str]:
    """Notes on records by network and variant: which are missing, what makes one."""
    lacking = {net: ", ".join(name for name, runs in of.items() if not runs) for net, of in evidence.items()}
    lacking = "; ".join(f"{net}: {names}" for net, names in lacking.items() if names) or "nothing is missing"
    command = "python -m dynlib train wae --profile public --data-root DIR --precision bf16-mixed"
    tiny = " ".join(f"-p {name}={value}" for name, value in TINY.items())
    return [
        f"n: seeds, ± their sample deviation. No record yet: {lacking}.",
        f"`{command} -p variant=wae --seed 0` makes one, with `-p arch=cifar_vgg16_bn -p width=16` of VGG-16-BN, "
        f"with `{tiny}` of Tiny ImageNet-100.",
        "Records from before commit a20132bf4569 had an epsilon of 1e-5 in front of the networks; kept are those of "
        "variants whose pictures have a variance above a hundred times that.",
    ]


def claimed_errors(claims: pd.DataFrame) -> dict[str, float]:
    """The claimed top-5 error (%) of every variant, from all claims of the paper."""
    printed = {(claim.table, claim.row): claim.value for claim in claims.query("metric == 'top5_error'").itertuples()}
    return {variant: float(printed[place]) for variant, place in CLAIMED.items()}


class Pair(NamedTuple):
    """Two variants in the paper's order."""

    better: str
    worse: str
    claimed: float  # gap of the claimed errors, points
    gap: float  # mean gap of our accuracies over the seeds that both have, as a fraction; positive in the paper's order
    error: float  # its standard error: over the seeds, or of one seed that of the test images
    seeds: int
    verdict: str  # agrees, opposes, open


def pairs(claimed: Mapping[str, float], ours: Scores, images: int) -> list[Pair]:
    """Every pair of variants with a seed in common, the better by the claimed error (%) first.

    A pair is decided where the gap exceeds two standard errors of two shares of `images` test images and, of several
    seeds, lies beyond chance by Student's t. Of one seed that speaks of these two networks, not of the variants.
    """
    known = [name for name in sorted(claimed, key=claimed.__getitem__) if ours.get(name)]
    found = []
    for better, worse in combinations(known, 2):
        if not (seeds := sorted(ours[better].keys() & ours[worse].keys())):
            continue
        gaps = [ours[better][seed] - ours[worse][seed] for seed in seeds]
        shares = [statistics.mean(ours[name][seed] for seed in seeds) for name in (better, worse)]
        gap, of_images = statistics.mean(gaps), sum(share * (1 - share) / images for share in shares) ** 0.5
        several = len(seeds) > 1
        decided = abs(gap) > SURE * of_images and (beyond_chance(gaps) or not several)
        error = statistics.stdev(gaps) / len(seeds) ** 0.5 if several else of_images
        word = "open" if not decided else "agrees" if gap > 0 else "opposes"
        found.append(Pair(better, worse, claimed[worse] - claimed[better], gap, error, len(seeds), word))
    return found


def told(pair: Pair) -> str:
    """The gap in points with its standard error, and of how many seeds."""
    text = f"{100 * pair.gap:+.2f} ± {100 * pair.error:.2f}".replace("-", "−")
    return f"{text}, n = {pair.seeds}"


def ranked(names: Iterable[str], ours: Scores) -> list[str]:
    """Those of the names that have values, the largest mean first."""
    return sorted((name for name in names if ours.get(name)), key=lambda name: -statistics.mean(ours[name].values()))


def agreement(found: Sequence[Pair]) -> str:
    """How many of the pairs agree, in words."""
    if not found:
        return "no pair of variants has records yet"
    counts = Counter((pair.verdict, pair.seeds > 1) for pair in found)
    text = f"of {len(found)} pairs {counts['agrees', True]} decided over seeds as in the paper, "
    text += f"{counts['opposes', True]} the other way round"
    if single := (counts["agrees", False], counts["opposes", False]) != (0, 0):
        text += (
            f"; of one seed each, {counts['agrees', False]} lie as in the paper by more than the test images' error, "
        )
        text += f"{counts['opposes', False]} the other way round"
    return text + f"{';' if single else ','} {counts['open', True] + counts['open', False]} open"


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
    levels = {f"psnr_{kept}_of_12": level for kept, level in pca_reference(test.images / 255, config["kept"]).items()}
    return _record("reference", config, train, test, levels, profile=profile, wall_s=time.perf_counter() - began)


def split_config(dataset: str, size_px: int | None, lam: float, steps: int) -> dict:
    """What the record of an auto-encoder that learned alone is found by."""
    return {"dataset": dataset, "size_px": size_px, "lam": float(lam), "steps": steps}


def splits(config: dict, folder: Path = RESULTS) -> list[Record]:
    """The records of a `split_config`, in the order of their seeds."""
    found = find("wae", "split", "public", folder)
    return sorted((run for run in found if run.config == config), key=lambda run: run.seed)


def split(train: Samples, test: Samples, config: dict, figures: Mapping[str, object], curve: list, **run) -> Record:
    """The record, unsaved, of an auto-encoder that learned alone (`book.demos.wae_alone.learn`).

    `config` is from `split_config`; `figures` are those of `watch_split` on the test images and, under `spectra`, the
    radial power of I, I_L and I_H by name; `run` tells profile, seed, threads and wall_s.
    """
    return _record("split", config, train, test, figures, curve, **run)


def _record(
    kind: str,
    config: dict,
    train: Samples,
    test: Samples,
    metrics: Mapping[str, object],
    curve: Sequence[dict] = (),
    *,
    profile: str,
    wall_s: float,
    seed: int = 0,
    threads: int | None = None,
) -> Record:
    return Record(
        key="wae",
        kind=kind,
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
        seed=seed,
        metrics=dict(metrics),
        curve=list(curve),
        environment=environment(threads=threads),
        wall_s=round(wall_s, 1),
    )


def scores(found: Mapping[str, Sequence[Record]]) -> dict[str, dict[int, float]]:
    """Top-1 of each variant's records by seed; variants without any are left out."""
    return {name: {run.seed: run.metrics["top1"] for run in runs} for name, runs in found.items() if runs}


def test_images(found: Mapping[str, Sequence[Record]]) -> int:
    """Images that the records were tested on, the same for all of them; 1 where there is none."""
    return max((run.dataset["test_images"] for runs in found.values() for run in runs), default=1)


def heads(found: Iterable[Record]) -> str:
    """In how many of the records of two heads the fusion head alone is more accurate than the summed score."""
    two = [run.metrics for run in found if "top1_fused" in run.metrics]
    better = sum(of["top1_fused"] > of["top1"] for of in two)
    return (
        f"In {better} of {len(two)} records of two heads the fusion head alone is more accurate than the summed score"
    )


def answer(
    name: str, claimed: Mapping[str, float], found: Mapping[str, Sequence[Record]], rivals: Sequence[Record] = ()
) -> str:
    """One paragraph on a network: the order of its variants, its agreement with the claimed errors, WAE's place.

    `rivals` are records of the network itself on smaller pictures, at about the cost of WAE.
    """
    top1, images = scores(found), test_images(found)
    if not top1:
        return f"**{name}**: no record yet."
    order = ", ".join(ranked(claimed, top1)) or "–"
    text = f"**{name}**, best first: {order}; {agreement(pairs(claimed, top1, images))}."
    text = f"{text} {verdict(found, images)}" if found.get("wae") else f"{text} No record of WAE yet."
    if not rivals:
        return text
    top1 = 100 * statistics.mean(run.metrics["top1"] for run in rivals)
    size, macs = rivals[0].metrics["size_px"], rivals[0].metrics["macs"] / 1e6
    return f"{text}\n\nThe network itself on pictures of {size} px: {top1:.2f} % at {macs:.1f} M, n = {len(rivals)}."


def verdict(found: Mapping[str, Sequence[Record]], images: int) -> str:
    """A list in Markdown from the records of each variant: which others WAE is above, below, and not told apart from.

    By the rule of `pairs`, with gaps in points and the cost of each; WAE itself has records.
    """
    top1 = scores(found)
    macs = {name: f"{found[name][0].metrics['macs'] / 1e6:.1f} M" for name in top1}
    groups: dict[str, list[str]] = {"agrees": [], "opposes": [], "open": []}
    for other in sorted(top1.keys() - {"wae"}, key=lambda name: found[name][0].metrics["macs"]):
        for pair in pairs({"wae": 0.0, other: 1.0}, top1, images):
            groups[pair.verdict].append(f"*{other}* ({macs[other]}: {told(pair)})")
    words = {"agrees": "more accurate than", "opposes": "less accurate than", "open": "not told apart from"}
    parts = [f"{words[group]} {', '.join(others)}" for group, others in groups.items() if others]
    start = f"WAE, at {macs['wae']} multiply-accumulates, is"
    return (
        "\n".join([f"{start}\n", *(f"- {part}" for part in parts)]) if parts else f"{start} alone with its seeds so far"
    )
