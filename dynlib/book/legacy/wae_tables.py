"""Frames of text that the chapter shows: how pictures are split, what a wrapped network costs, errors beside claims."""

import statistics
from collections.abc import Mapping, Sequence

import pandas as pd
from torch import nn

from dynlib.book.legacy.wae_evidence import Pair, pairs, scores, test_images, told
from dynlib.book.records import Record
from dynlib.cost import closed_form, count, example
from dynlib.papers import wae

Evidence = Mapping[str, Mapping[str, Sequence[Record]]]  # network: variant: a record a seed

DASH = "–"
SPLIT = {  # figure of `watch_split`: head of its column and form of its cells
    "psnr": ("I', dB", ".2f"),
    "psnr_low_alone": ("I' from I_L, dB", ".2f"),
    "energy_low": ("mean I_L²", ".3f"),
    "energy_high": ("mean I_H²", ".2g"),
    "variance_high": ("least var. of I_H", ".2g"),
    "detail_low": ("detail of I_L", ".2f"),
    "detail_high": ("detail of I_H", ".2f"),
}
HIDING = {  # figure of `hiding`: the same
    "psnr": ("I', dB", ".2f"),
    "energy_high": ("mean I_H²", ".1e"),
    "behind_norm": ("variance behind the norm", ".4f"),
    "behind_unscaled": ("the same, ε 10⁻⁵", ".4f"),
    "slope": ("slope of the error", ".2g"),
}
PARTS = ("split", "tower", "twin", "head_low", "head_fused")


def figures(
    rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, tuple[str, str]] = SPLIT, first: str = "split"
) -> pd.DataFrame:
    """One row a name with its figures; a dash where one is missing."""
    lines = [
        [row, *(f"{of[k]:{form}}" if k in of else DASH for k, (_, form) in columns.items())] for row, of in rows.items()
    ]
    return pd.DataFrame(lines, columns=[first, *(head for head, _ in columns.values())])


def steps(network: nn.Module, wrapped: nn.Module, size: int) -> pd.DataFrame:
    """From the printed way of counting to all that runs: MACs of a wrapped network and of its network, their ratio."""
    macs, convolutions = wae.macs_by_part(wrapped, size), wae.conv_macs(network, size)
    whole = count(network, _like(network, size)).macs
    towers = sum(wae.conv_macs(part, size // 2) for part in (wrapped.tower, wrapped.twin))
    rows = {"convolutions of tower and twin, as in the equation": (towers, convolutions)}
    rows["and the fusion head, as in Table 1"] = (towers + macs["head_fused"], convolutions)
    rows["and the low head"] = (towers + macs["head_fused"] + macs["head_low"], whole)
    rows["and the encoder: all that runs"] = (sum(macs.values()), whole)
    lines = [[row, f"{ours / 1e9:.4f}", f"{of / 1e9:.4f}", f"{of / ours:.2f}"] for row, (ours, of) in rows.items()]
    return pd.DataFrame(lines, columns=["what is counted", "wrapped, GMACs", "network, GMACs", "ratio"])


def parts(networks: Mapping[str, tuple[nn.Module, nn.Module]], size: int) -> pd.DataFrame:
    """Where the cost of wrapped networks is: GMACs by part, one column a (network, wrapped network)."""
    columns = {}
    for name, (network, wrapped) in networks.items():
        macs, whole = wae.macs_by_part(wrapped, size), count(network, _like(network, size)).macs
        ours = sum(macs.values())
        cells = {part: macs[part] for part in PARTS} | {"all parts": ours, "the network alone": whole}
        columns[name] = {part: f"{value / 1e9:.4f}" for part, value in cells.items()} | {"ratio": f"{whole / ours:.2f}"}
    return pd.DataFrame(columns).rename_axis("GMACs of").reset_index()


def as_printed(network: nn.Module, half: nn.Module, wrapped: nn.Module, size: int) -> dict[str, tuple[int, str]]:
    """MACs of the three rows of Table 1, each by what its print counts, and what that is."""
    by_layer = closed_form(network, size).by_layer
    layers = [layer for layer in by_layer if isinstance(network.get_submodule(layer), nn.Conv2d)]
    biases = sum(by_layer[layer] // network.get_submodule(layer).weight[0].numel() for layer in layers)
    macs = wae.macs_by_part(wrapped, size)
    return {
        "VGG16 (224)": (wae.conv_macs(network, size) + biases, "convolutions and their biases"),
        "VGG16 (112)": (wae.cost(half, size).macs, "convolutions and linear layers"),
        "WAE": (macs["tower"] + macs["twin"] + macs["head_fused"], "neither encoder nor low head"),
    }


def printed_costs(
    claims: pd.DataFrame, network: nn.Module, half: nn.Module, wrapped: nn.Module, size: int
) -> pd.DataFrame:
    """The costs of Table 1 as printed, counted by the rule of each row, and all that runs, with the ratio of the last.

    All that runs is the closed form, and what the counter finds, to the last digit.
    """
    printed = claims.query("metric == 'macs'").set_index("row")["value"]
    macs = [closed_form(network, size).macs, *(wae.cost(model, size).macs for model in (half, wrapped))]
    counted = [count(model, _like(model, size)).macs for model in (network, half, wrapped)]
    assert macs == counted, f"closed form {macs}, counted {counted}"
    lines = [
        [row, printed[row], f"{by_rule / 1e9:.2f}", rule, f"{whole:,}", f"{macs[0] / whole:.2f}"]
        for (row, (by_rule, rule)), whole in zip(as_printed(network, half, wrapped, size).items(), macs, strict=True)
    ]
    return pd.DataFrame(lines, columns=["row", "claimed, G", "so counted, G", "which counts", "all that runs", "ratio"])


def accuracies(evidence: Evidence) -> pd.DataFrame:
    """Our top-1 accuracy (%) of every variant in every network, with deviation and number of seeds; its MACs (M)."""
    frame = {"variant": list(wae.VARIANTS)}
    for net, of in evidence.items():
        runs = [of[variant] for variant in wae.VARIANTS]
        means = [[100 * run.metrics["top1"] for run in each] for each in runs]
        frame[f"{net}, %"] = [f"{spread(each)} (n = {len(each)})" if each else DASH for each in means]
        frame[f"{net}, M"] = [f"{each[0].metrics['macs'] / 1e6:.1f}" if each else DASH for each in runs]
    return pd.DataFrame(frame)


def against(
    claims: pd.DataFrame,
    metrics: Sequence[str],
    evidence: Evidence,
    rows: Mapping[str, tuple[str, str]],
) -> pd.DataFrame:
    """The rows of a table with some claimed metrics as printed, then the top-1 errors of our networks.

    `rows` tells the variant and the accuracy of its records that stand for a row; one that nobody claimed comes last.
    """
    printed = {(claim.row, claim.metric): claim.value for claim in claims.itertuples()}
    units = {claim.metric: claim.unit for claim in claims.itertuples()}
    frame = {"row": list(dict.fromkeys([*claims.row, *rows]))}
    for metric in metrics:
        words = (
            metric.replace("_", " ")
            .replace("top5", "top-5")
            .replace("cpu", "CPU")
            .replace("gpu", "GPU")
            .replace("speedup", "speed-up")
        )
        frame[f"claimed {words}, {units[metric]}"] = [printed.get((row, metric)) or DASH for row in frame["row"]]
    for net, of in evidence.items():
        cells = [error(_values(of, *rows[row])) if row in rows else DASH for row in frame["row"]]
        frame[f"our {net}, top-1 error, %"] = cells
    return pd.DataFrame(frame)


def _values(of: Mapping[str, Sequence[Record]], variant: str, metric: str) -> list[float]:
    return [run.metrics[metric] for run in of[variant]]


def error(accuracies: Sequence[float]) -> str:
    """The mean error in percent, with the deviation over seeds where there are several; a dash where there is none."""
    return spread([100 * (1 - accuracy) for accuracy in accuracies]) if accuracies else DASH


def spread(values: Sequence[float]) -> str:
    """Their mean, and the sample deviation of several."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def resnet50(
    claims: pd.DataFrame,
    evidence: Mapping[str, Sequence[Record]],
    timings: Mapping[str, Record],
    ratios: Mapping[str, str],
) -> pd.DataFrame:
    """What is known of the ResNet-50 table, and ours: accuracy lost by a ResNet, speed-ups and MAC ratios by name.

    The loss is the gap of `pairs`, by seed.
    """
    printed = claims.set_index("metric")["value"]
    lost = pairs({"full": 0.0, "wae": 1.0}, scores(evidence), test_images(evidence))
    lines = [
        ["accuracy lost, points", printed["error_increase"], told(lost[0]) if lost else DASH],
        ["speed-up", printed["speedup"], "by batch, below"],
    ]
    lines += [[row, DASH, f"{run.metrics['speedup']:.2f}" if run else DASH] for row, run in timings.items()]
    lines += [[row, DASH, ratio] for row, ratio in ratios.items()]
    return pd.DataFrame(lines, columns=["ResNet-50", "claimed", "ours"])


def points(values: Mapping[str, tuple[float, float]], y: str = "top1") -> pd.DataFrame:
    """{variant: (MACs, accuracy)} as `plots.tradeoff` takes it, each variant a series of its own."""
    lines = [(variant, variant, "", *value) for variant, value in values.items()]
    return pd.DataFrame(lines, columns=["row", "series", "knob", "macs", y])


def order(found: Mapping[str, Sequence[Pair]], claimed: Mapping[str, float]) -> pd.DataFrame:
    """Every pair of the paper's order, and what each of our networks says of it: {head: pairs}."""
    names, lines = sorted(claimed, key=claimed.__getitem__), []
    for index, better in enumerate(names):
        for worse in names[index + 1 :]:
            lines.append([f"{better} before {worse}", f"{claimed[worse] - claimed[better]:.2f}"])
            for pairs_ in found.values():
                ours = [p for p in pairs_ if (p.better, p.worse) == (better, worse)]
                lines[-1].append(f"{told(ours[0])}: {ours[0].verdict}" if ours else DASH)
    return pd.DataFrame(lines, columns=["the paper's order", "claimed gap, points", *found])


def _like(network: nn.Module, size: int):
    return example(size).to(next(network.parameters()).device)


def linear_weights(networks: Mapping[str, nn.Module]) -> str:
    """What the weights of the linear layers of each network take in float32."""
    weights = {
        name: sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))
        for name, network in networks.items()
    }
    return ", ".join(f"{name} {4 * count / 1e6:.0f} MB" for name, count in weights.items())


def beside_codes(figures: Mapping[str, Mapping[str, float]], levels: Mapping[str, float]) -> str:
    """Which rows restore more than the best linear codes: I' than 6 numbers of 12, I_L alone than 3; else nothing."""
    if not levels or not any(figures.values()):
        return ""
    above = {
        name: [row for row, of in figures.items() if of and of[name] > levels[level]]
        for name, level in {"psnr": "psnr_6_of_12", "psnr_low_alone": "psnr_3_of_12"}.items()
    }
    part = "{} is above the best linear code of {} of 12 ({:.2f} dB) for {}"
    both = (("I'", 6, "psnr"), ("I_L alone", 3, "psnr_low_alone"))
    words = [part.format(what, n, levels[f"psnr_{n}_of_12"], "; ".join(above[of]) or "none") for what, n, of in both]
    return f"{', '.join(words)}."
