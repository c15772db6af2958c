"""Tables of networks that choose what to compute for an image: plain values in, frames of text out, as in `tables`."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from dynlib.records import Record
from dynlib.tables import DASH, NAMES, POWER, compare, measured, spread, wide

Values = Mapping[str, Sequence[float]]


def policy_table(policies: Mapping[str, Values]) -> pd.DataFrame:
    """One line a policy: `top1`, by how many points another is ahead (`behind`), `macs`; each one value a seed."""
    lines = [
        {
            "policy": name,
            "top-1, %": spread(row["top1"], "%"),
            "dynamic choice is ahead by, points": spread(row["behind"], "points", signed=True),
            "mean MACs, M": spread(row["macs"][: None if len({*row["macs"]}) > 1 else 1], "MMAC", 1),
            "seeds": f"n = {len(row['top1'])}",
        }
        for name, row in policies.items()
    ]
    notes = ["± is the sample standard deviation over seeds; differences are taken seed by seed."]
    return _frame(lines or [dict.fromkeys(("policy", "top-1, %", "mean MACs, M", "seeds"), DASH)], notes)


def parts_table(settings: Mapping[str, Values]) -> pd.DataFrame:
    """One line a setting, its gain in points of top-1 and the parts that it is the sum of; each one value a seed."""
    lines = []
    for name, parts in settings.items():
        cells = {part: spread(values, "points", signed=True) for part, values in parts.items()}
        lines.append({"setting": name} | cells | {"seeds": f"n = {max(map(len, parts.values()))}"})
    return _frame(lines, ["± is the sample standard deviation over seeds."])


def price_table(prices: Mapping[str, Mapping]) -> pd.DataFrame:
    """One line a run: MACs aimed at (`target`), `reached`, their ratio, those `spent` in the end, and the `state`."""
    lines = [
        {
            "run": name,
            "target, M": spread([price["target"]], "MMAC", 1),
            "expected, M": spread([price["reached"]], "MMAC", 1),
            "ratio": f"{price['reached'] / price['target']:.3f}",
            "the price": price["state"],
            "at inference, M": spread([price["spent"]], "MMAC", 1),
        }
        for name, price in prices.items()
    ]
    return _frame(
        lines or [dict.fromkeys(("run", "target, M", "expected, M", "ratio", "the price", "at inference, M"), DASH)], []
    )


def sampled_table(rows: Mapping[str, Sequence[Record]], metric: str) -> pd.DataFrame:
    """Networks that compute a share of the positions, one line a run, its records one a seed; nothing is claimed.

    Scores are means over the seeds of the masks, then over those of the training. Where the masks are random, `under
    other masks` is the deviation of one trained network.
    """
    lines, notes = [], ["MACs are expected ones."]
    if any(len(runs) > 1 for runs in rows.values()):
        notes.append("± is the sample standard deviation over seeds of training.")
    for name, runs in rows.items():
        every = [run.metrics for run in runs]
        masked = [m for m in every if "density" in m]
        line = {"row": name, "claimed": DASH}
        line[f"{NAMES.get(metric, metric)}, %"] = spread([m.get(f"{metric}_mean", m[metric]) for m in every], "%")
        line["seeds"] = f"n = {len(every)}"
        line["under other masks, points"] = spread(_mean([m[f"{metric}_spread"] for m in masked]), "points")
        line["density, %"] = spread(_mean([m["density"] for m in masked]), "%", 1)
        line["MACs, M"] = spread(_mean([m.get("macs_expected", m["macs"]) for m in every]), "MMAC", 1)
        line["empty windows, %"] = spread(_mean([m["empty_windows"] for m in masked]), "%")
        lines.append(line)
    return _frame(lines, notes)


def _mean(values: Sequence[float]) -> list[float]:
    """The mean alone, without a spread; nothing of nothing."""
    return [sum(values) / len(values)] if values else []


def pruned_table(rows: Mapping[str, tuple[float, int]], metric: str) -> pd.DataFrame:
    """(score, MACs) of pruned networks, with sampling on top and without, one line a network; nothing is claimed."""
    lines = [
        {"row": name, "claimed": DASH, f"{NAMES.get(metric, metric)}, %": spread([score], "%")}
        | {"expected MACs, M": spread([macs], "MMAC", 1)}
        for name, (score, macs) in rows.items()
    ]
    return _frame(lines, [])


def order_table(orders: Sequence[tuple]) -> pd.DataFrame:
    """(claim, gaps, verdict) a line; gaps are kept fractions, one a seed, at equal cost."""
    lines = [
        {"the paper": claim, "gap at equal cost, points": spread(gaps, "points", signed=True)}
        | {"seeds": f"n = {len(gaps)}", "ours": verdict}
        for claim, gaps, verdict in orders
    ]
    return _frame(lines, ["± is the sample standard deviation over seeds of training."])


def mixture_table(claimed: pd.DataFrame, allowed: Callable[[str, float], Mapping], ours: Mapping) -> pd.DataFrame:
    """What claimed mean costs leave open: for each candidate the least and largest share of the images, in %.

    `allowed(row, macs)` gives these by candidate, `ours` the shares that our own runs chose, one list a run, by row.
    """
    lines, heads = [], {}
    for claim in claimed.itertuples():
        bounds = allowed(claim.row, float(claim.value) / 10.0 ** POWER[claim.unit])
        heads |= dict.fromkeys(sorted(bounds, key=int, reverse=True))
        cells = {f"{px} px": f"{100 * low:.0f}–{100 * high:.0f}" for px, (low, high) in bounds.items()}
        means = [sum(shares) / len(shares) for shares in zip(*ours.get(claim.row, ()), strict=True)]
        text = " / ".join(f"{100 * share:.0f}" for share in means) or DASH
        lines.append({"row": claim.row, "claimed": f"{claim.value} {claim.unit[0]}"} | cells | {"ours": text})
    order = ["row", "claimed", *(f"{px} px" for px in sorted(heads, key=int, reverse=True)), "ours"]
    return _frame(pd.DataFrame(lines)[order].fillna(DASH), ["Shares in %; a dash in the middle: no candidate there."])


def paper_table(claimed: pd.DataFrame, ours: Mapping[str, Mapping], also: Sequence[str] = (), **how) -> pd.DataFrame:
    """A table of the paper, one line a row, with what of ours it has a column for; `also` are rows of ours alone.

    Reductions of MACs are left out: they follow from the MACs.
    `ours` is {scale: {row: {metric: values}}}, see `tables.measured`; `how` is for `tables.compare`.
    """
    claimed = claimed[claimed.metric != "macs_reduction"]
    wanted, metrics, parts = {*claimed.row, *also}, set(claimed.metric), []
    for scale, rows in ours.items():
        kept = {row: {m: v for m, v in of.items() if m in metrics} for row, of in rows.items() if row in wanted}
        parts.append(measured(kept, scale))
    return wide(compare(claimed, pd.concat(parts), **how))


def _frame(lines: Sequence[Mapping] | pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(lines)
    frame.attrs["notes"] = tuple(notes)
    return frame
