"""The rows of the paper's tables: which of our settings answers each, and what can be counted for it without data.

Values are kept ones (fractions, MACs, parameters), `{row: {metric: value or one a seed}}`, as tables take them.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import mean, stdev
from typing import TypeVar

import torch
from torch import nn

from dynlib import settings
from dynlib.backbones import build
from dynlib.book.legacy.drnet_answer import by_seed, sampling_error
from dynlib.book.legacy.drnet_spending import macs_at
from dynlib.book.records import Record
from dynlib.cost import closed_form
from dynlib.papers.drnet import Config, convert, macs_by_choice
from dynlib.papers.drnet.policies import mixtures

Recipe = TypeVar("Recipe")

NETWORKS = {"ResNet-50": "resnet50", "ResNet-101": "resnet101", "MobileNetV2": "mobilenet_v2"}
FIVE = (1, 6 / 7, 3 / 4, 1 / 2, 3 / 7)  # 224, 192, 168, 112 and 96 px

PREDICTOR = {"predictor_width": 0.125, "predictor_side": 0.5, "predictor_lr": 1.0}  # as the public profile has it
DATA = {  # what we train on at public scale, and what differs there from the profile's recipe
    "Imagenette": {},
    "Tiny ImageNet-100": {"dataset": "tiny_imagenet100", "size_px": None, "train_images": 10000},
}
PLAIN, FIRST = "plain network", "first phase alone"
SMALL = "plain network, 96 px"  # trained and tested there: three quarters of the side, as the middle candidate
MORE, MOBILE = "five candidates", "MobileNetV2"
ALPHAS = {"2.0": 0.489, "2.5": 0.611, "3.0": 0.734, "3.5": 0.856}  # GMAC, as printed: share of ResNet-50's 4.089
ETAS = (0.1, 0.5, 1.0)  # of Table 2, at alpha 3.0, beside 0.2
SETTINGS = {  # what we train at public scale: fields of Config, and what of the recipe is not the profile's
    "alpha 0.35": {"alpha": 0.35},  # below the paper's: between its two smaller sizes
    "alpha 0.35, eta 0.5": {"alpha": 0.35, "eta": 0.5},
    **{f"alpha {share:g}": {"alpha": share} for share in ALPHAS.values()},
    **{f"alpha 0.734, eta {eta:g}": {"alpha": 0.734, "eta": eta} for eta in ETAS},
    "eta 0": {"alpha": 0.611, "eta": 0.0},
    "shared batch norm": {"alpha": 0.611, "resolution_aware_bn": False},
    MORE: {"alpha": 0.611, "candidates": (1.0, 0.857142857, 0.75, 0.5, 0.428571429), "size_px": 112},
    MOBILE: {
        "alpha": 0.611,
        "arch": "mobilenet_v2",
        "width": None,
        "predictor_width": 1.0,
        "predictor_side": None,
    },
    FIRST: {"alpha": 0.611, "joint": False},
    PLAIN: {"alpha": 0.611, "candidates": (1.0,), "lr": 0.05},
    SMALL: {"alpha": 0.611, "candidates": (1.0,), "lr": 0.05, "size_px": 96},
}
TITLES = {  # of the paper's tables on our page, with what must be said of our side
    "table1": [
        "Table 1: batch norms for each resolution, and five candidates.",
        "Ours: five candidates of 112 px, so that all sides are whole; not to be compared with rows of 128.",
    ],
    "table2": ["Table 2: alpha, the target of the mean cost, and eta, the weight of the penalty."],
    "table3": ["Table 3: ResNets.", "Print leaves out the further sets of batch norms, ours counts them."],
    "table4": ["Table 4: beside pruned networks and RANet, which the paper quotes and we did not run."],
    "table5": [
        "Table 5: random against dynamic.",
        "Ours, random: equal shares, without predictor; ± over all draws of all seeds.",
    ],
    "table6": ["Table 6: MobileNetV2.", "An accuracy of DR-MobileNetV2 is its own, not that of a ResNet-18."],
}
SILENT = (PLAIN, SMALL, FIRST)  # of SETTINGS, those without a choice
APART = (MORE, MOBILE)  # of SETTINGS, those of other sizes or another network than the plain one
MAIN = "alpha 0.489"  # of SETTINGS, the paper's 2.0 G: what stands for all where one must
SWEEP = (MAIN, "alpha 0.35", "alpha 0.611", "alpha 0.734", "alpha 0.856")  # of SETTINGS, alpha alone varies
COMPARED = ("alpha 0.35", "alpha 0.489", "alpha 0.611", FIRST, PLAIN)  # of SETTINGS, on both data sets
ROWS = {  # row of the paper, or a row between its own: our setting
    "ResNet-50": PLAIN,
    **{f"DR-ResNet-50, alpha {g}": f"alpha {share:g}" for g, share in ALPHAS.items()},
    **{f"DR-ResNet-50, alpha {g}, eta 0.2": f"alpha {share:g}" for g, share in ALPHAS.items()},
    **{f"DR-ResNet-50, alpha 3.0, eta {eta:.1f}": f"alpha 0.734, eta {eta:g}" for eta in ETAS},
    "DR-ResNet-50, eta 0": "eta 0",
    "DR-ResNet-50": "eta 0",
    "DR-ResNet-50, shared batch norm": "shared batch norm",
    "DR-ResNet-50, 224/192/168/112/96 px": MORE,
    "DR-MobileNetV2": MOBILE,
}


DYNAMIC = "DR-ResNet-50, alpha"
ORDERS = {  # of the paper, in top-1: table, the row that is ahead in print, and the row behind it
    "batch norms for each resolution": ("table1", f"{DYNAMIC} 2.5, eta 0.2", "DR-ResNet-50, shared batch norm"),
    "no penalty, over the plain network": ("table1", "DR-ResNet-50, eta 0", "ResNet-50"),
    "alpha 3.0, over 2.0": ("table2", f"{DYNAMIC} 3.0, eta 0.2", f"{DYNAMIC} 2.0, eta 0.2"),
    "eta 0.2, over 1.0": ("table2", f"{DYNAMIC} 3.0, eta 0.2", f"{DYNAMIC} 3.0, eta 1.0"),
    "the predictor's choice, over a random one": ("table5", f"{DYNAMIC} 2.5", "random choice, mean"),
}


def setting(name: str, recipe: Recipe) -> tuple[Config, Recipe]:
    """One of SETTINGS: the method's, and the recipe for it, from a `recipes.Recipe` for the others."""
    values = PREDICTOR | SETTINGS[name]
    method = settings.part_of(Config, values)
    return Config(**method), replace(recipe, **{field: values[field] for field in values.keys() - method.keys()})


def gather(lookup: Callable[[Config, Recipe], list[Record]], recipe: Recipe) -> dict[str, dict[str, list[Record]]]:
    """Records by DATA and SETTINGS, empty where there are none; `lookup` has those of a run, one a seed."""
    recipes = {name: replace(recipe, **changed) for name, changed in DATA.items()}
    return {data: {name: lookup(*setting(name, of)) for name in SETTINGS} for data, of in recipes.items()}


def choosing(evidence: Mapping[str, Mapping[str, list[Record]]]) -> dict[str, dict[str, list[Record]]]:
    """Of `gather`'s records those of one network and three sizes whose predictor has learnt; no empty ones."""
    left = {*SILENT, *APART}
    return {data: {name: of for name, of in e.items() if of and name not in left} for data, e in evidence.items()}


def silent(of: Mapping[str, list[Record]]) -> list[dict[int, Record]]:
    """Of the records of one data set those of SILENT, each by seed."""
    return [by_seed(of[name]) for name in SILENT]


def rivals(of: Mapping[str, list[Record]]) -> dict[str, tuple]:
    """What `drnet_answer` compares, for each setting that chooses: its runs, and by seed those of PLAIN and SMALL.

    APART has no rivals of its own kind.
    """
    plain, small, _ = silent(of)
    names = [name for name, runs in of.items() if runs and name not in SILENT]
    return {name: (of[name], *(({}, {}) if name in APART else (plain, small))) for name in names}


def sweep(of: Mapping[str, list[Record]]) -> dict[str, list[Record]]:
    """Of the records of one data set those in which alpha alone varies, MAIN first; empty where there are none."""
    return {name: of.get(name, []) for name in SWEEP}


def unmade(evidence: Mapping[str, Mapping[str, list[Record]]]) -> str:
    """The lines that make what has no record, as a Markdown list."""
    missing = [(data, name) for data, of in evidence.items() for name in of if not of[name]]
    asked = [one for one in missing if one[0] == "Imagenette" or one[1] in COMPARED]
    lines = [f"- {data}, {name}: `{command(name, data)}`" for data, name in asked]
    return "\n".join(["Each of these lines trains one:\n", *lines]) if asked else "Every setting has its record."


def command(name: str, dataset: str = "Imagenette", seed: int = 0) -> str:
    """The line that makes the record of one of SETTINGS on one of DATA."""
    given = settings.plain(DATA[dataset] | SETTINGS[name])
    fields = " ".join(f"-p {shlex.quote(f'{field}={settings.written(value)}')}" for field, value in given.items())
    return f"python -m dynlib train drnet --profile public --data-root DIR {fields} --seed {seed}"


@cache
def networks(candidates: tuple[float, ...] = Config().candidates) -> dict[str, nn.Module]:
    """The paper's networks with resolutions, on the meta device: shapes are enough to count."""
    with torch.device("meta"):
        return {name: convert(build(arch), Config(candidates=candidates)) for name, arch in NETWORKS.items()}


def costs(candidates: tuple[float, ...]) -> dict[str, dict[str, int]]:
    """MACs of the paper's networks at each candidate of 224 px, by px, and of their predictors."""
    return {name: macs_by_choice(model, (224, 224)) for name, model in networks(candidates).items()}


def counted() -> dict[str, dict[str, float]]:
    """Parameters of every network of the tables that we can build, and the costs of those without choices."""
    with torch.device("meta"):
        plain = {name: build(arch) for name, arch in NETWORKS.items()}
        thin = build("mobilenet_v2", width_mult=0.75)
    at = {name: (net, 224, name) for name, net in plain.items()}
    at |= {f"{name}, 192 px": (plain[name], 192, name) for name in ("ResNet-50", "MobileNetV2")}
    at |= {f"RS-ResNet-50, {side} px": (plain["ResNet-50"], side, "ResNet-50") for side in (160, 128)}
    at |= {"0.75 MobileNetV2": (thin, 224, "MobileNetV2")}
    rows: dict[str, dict[str, float]] = {}
    for row, (network, side, base) in at.items():
        cost = closed_form(network, side)
        rows[row] = {"params": cost.params, "macs": cost.macs}
        if row != base:
            rows[row]["macs_reduction"] = 1 - cost.macs / rows[base]["macs"]
    for name, network in networks().items():
        rows[f"DR-{name}"] = {"params": sum(p.numel() for p in network.parameters())}
    *three, _ = macs_by_choice(networks()["ResNet-50"], (224, 224)).values()
    rows["random choice, mean"] = {"macs": sum(three) / len(three)}
    return rows | {f"DR-ResNet-50, alpha {g}": rows["DR-ResNet-50"] for g in ALPHAS}


def trained(evidence: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, list[float]]]:
    """Accuracies of our runs, and their histograms at the costs of the paper's networks, by the paper's rows.

    `evidence` has the runs of each of SETTINGS.
    """
    printed, rows = costs(Config().candidates), {}
    for row, name in ROWS.items():
        runs, macs = evidence.get(name, ()), printed["MobileNetV2" if name == MOBILE else "ResNet-50"]
        macs = costs(FIVE)["ResNet-50"] if name == MORE else macs
        rows[row] = {key: [run.metrics[key] for run in runs if key in run.metrics] for key in ("top1", "top5")}
        spent = [macs_at(run, macs) for run in runs if "shares" in run.metrics]
        rows[row] |= {"macs": spent, "macs_reduction": [1 - mean / macs["224"] for mean in spent]}
    draws = [run.metrics["uniform_top1"] for run in evidence.get("alpha 0.611", ())]
    rows["random choice, mean"] = {"top1": [top1 for of in draws for top1 in of], "top1_std": list(map(stdev, draws))}
    return {row: {key: found for key, found in of.items() if found} for row, of in rows.items()}


def orders(claimed: Mapping[tuple[str, str], str], evidence: Mapping[str, Sequence[Record]]) -> str:
    """The orders of ORDERS as a Markdown list: gaps in points of top-1, `claimed` by table and row, and ours.

    Ours decides where it exceeds two standard errors of a difference of two scores that the test images leave.
    """
    ours, lines = {row: of["top1"] for row, of in trained(evidence).items() if "top1" in of}, []
    for words, (table, row, other) in ORDERS.items():
        if row in ours and other in ours:
            printed = float(claimed[table, row]) - float(claimed[table, other])
            gap, bound = 100 * (mean(ours[row]) - mean(ours[other])), 200 * 2**0.5 * sampling_error(evidence[ROWS[row]])
            told = "undecided" if abs(gap) <= bound else "as printed" if gap * printed > 0 else "**the reverse**"
            counts = (
                f"n = {len(ours[row])} and {len(evidence[ROWS[other]])}" if other in ROWS else f"n = {len(ours[row])}"
            )
            lines.append(f"- {words}: claimed {_signed(printed)}, ours {_signed(gap)} ({counts}; ±{bound:.1f}), {told}")
    return "\n".join(lines) or "No record yet."


def open_shares(row: str, macs: float) -> dict[str, tuple[float, float]]:
    """Between which shares of the images each candidate can lie, by px, where a row prints a mean of `macs`."""
    name = row.split(",")[0].removeprefix("DR-")
    of = macs_by_choice(networks(FIVE if "192" in row else Config().candidates)[name], (224, 224))
    predictor = of.pop("predictor")
    return dict(zip(of, mixtures(macs - predictor, list(of.values())), strict=True))


def chosen_shares(evidence: Mapping[str, Sequence[Record]]) -> dict[str, list[list[float]]]:
    """The shares that the predictors of our runs chose, by the paper's rows; of runs that choose."""
    of = {row: [run.metrics.get("shares") for run in evidence.get(name, ())] for row, name in ROWS.items()}
    return {row: shares for row, shares in of.items() if all(shares)}


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")
