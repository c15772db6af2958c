"""Tables of networks that choose what to compute for an image: plain values in, frames of text out, as in `tables`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from dynlib.book.legacy.tables import DASH, NAMES, POWER, compare, measured, spread, wide
from dynlib.book.records import Record

Values = Mapping[str, Sequence[float]]
NO_TABLE = "Claimed: the paper's table could not be obtained."


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


def sizes_table(networks: Mapping[str, Values]) -> pd.DataFrame:
    """One line a network, its top-1 with every image at one size, from the largest; each one value a seed."""
    sides = sorted({side for of in networks.values() for side in of}, key=lambda side: -int(side.split()[0]))
    lines = [
        {"network": name}
        | {f"{side}, %": spread(of.get(side, []), "%") for side in sides}
        | {"seeds": f"n = {max(map(len, of.values()), default=0)}"}
        for name, of in networks.items()
    ]
    return _frame(lines, ["± is the sample standard deviation over seeds."])


def held_out_table(runs: Sequence[Record]) -> pd.DataFrame:
    """Short runs judged on held-out training images, a line each, by network, learning rates and score."""
    lines = []
    for run in sorted(runs, key=lambda run: (len(run.config["method"]["candidates"]), run.config["recipe"]["lr"])):
        m, method, recipe = run.metrics, run.config["method"], run.config["recipe"]
        several, shares = len(method["candidates"]) > 1, m.get("shares", [])
        error = 100 * (m["top1"] * (1 - m["top1"]) / recipe["held_out_images"]) ** 0.5
        sides = zip(m.get("sides_px", []), shares, strict=True)
        sent = {f"sent to {side} px, %": f"{100 * share:.0f}" for side, share in sides}
        lines.append(
            {
                "network": "dynamic" if several else "plain",
                "learning rate": f"{recipe['lr']:g}",
                "predictor's": f"{recipe['lr'] * method['predictor_lr']:g}" if several else DASH,
                "top-1, %": f"{100 * m['top1']:.1f} ± {error:.1f}",
            }
            | sent
        )
    return _frame(pd.DataFrame(lines).fillna(DASH), ["± is the binomial standard error."])


def parts_table(settings: Mapping[str, Values], macs: Mapping[str, Values] | None = None) -> pd.DataFrame:
    """One line a setting, gains in points of top-1 by their names, and MACs by whose they are; one value a seed."""
    lines = []
    for name, parts in settings.items():
        cells = {part: spread(values, "points", signed=True) for part, values in parts.items()}
        cost = {
            f"{whose}, MACs, M": spread(of[: None if len({*of}) > 1 else 1], "MMAC", 1)
            for whose, of in (macs or {}).get(name, {}).items()
        }
        lines.append({"setting": name} | cells | cost | {"seeds": f"n = {max(map(len, parts.values()), default=0)}"})
    return _frame(lines or [{"setting": DASH}], ["± is the sample standard deviation over seeds."])


def penalty_table(penalties: Mapping[str, Mapping]) -> pd.DataFrame:
    """One line a run: MACs aimed at (`target`), `reached`, their ratio, if `held` or None, `state`, those `spent`."""
    lines = [
        {
            "run": name,
            "target, M": spread([one["target"]], "MMAC", 1),
            "expected, M": spread([one["reached"]], "MMAC", 1),
            "ratio": f"{one['reached'] / one['target']:.3f}",
            "within 5 %": {True: "yes", False: "no", None: DASH}[one["held"]],
            "the penalty is": one["state"],
            "at inference, M": spread([one["spent"]], "MMAC", 1),
        }
        for name, one in penalties.items()
    ]
    heads = ("run", "target, M", "expected, M", "ratio", "within 5 %", "the penalty is", "at inference, M")
    return _frame(lines or [dict.fromkeys(heads, DASH)], [])


def resolution_table(costs: Mapping[str, Mapping[str, int]], counted: Sequence[int]) -> pd.DataFrame:
    """MACs of networks at each side, by px, and of their predictors (`predictor`, last); one line a side.

    `counted` are those of the first network as the counter finds them, in the same order; of the others in M.
    """
    first, three = next(iter(costs)), ("224", "168", "112")
    frame = pd.DataFrame(costs).map(lambda macs: f"{macs / 1e6:,.1f}").rename_axis("side, px").reset_index()
    frame[first] = [f"{macs:,}" for macs in costs[first].values()]
    frame.insert(1, f"{first}, counted", [f"{macs:,}" for macs in counted])
    frame.insert(3, "share, %", [f"{100 * macs / counted[0]:.1f}" for macs in counted])
    random = [f"{name} {sum(of[px] for px in three) / 3e9:.3f} G" for name, of in costs.items()]
    pays = [f"{name} {100 * of['predictor'] / (of['224'] - of['112']):.1f} %" for name, of in costs.items()]
    notes = [f"Random choice of 224, 168 or 112 px: {', '.join(random)}."]
    return _frame(frame, [*notes, f"Break-even, share at 112 px: {', '.join(pays)}."])


FULL, EMPTY = 0.9, 0.05  # densities of masks that leave hardly a choice: one starts at 0.953; the grid alone has 0.02


def sampled_table(
    rows: Mapping[str, Sequence[Record]], metric: str, levels: Mapping[str, Sequence[float]], windows: bool = False
) -> pd.DataFrame:
    """Networks that compute a share of the positions, one line a run, its records one a seed; no number is claimed.

    Scores are means over the seeds of the masks, then over those of the training; the largest deviation over masks is
    a note. `levels` is what uniform sampling reaches at the cost of a row. With `windows`, a column more: the unsampled
    positions without a sample to be interpolated from.
    """
    lines, notes = [], ["± is the sample standard deviation over seeds of training."]
    for name, runs in rows.items():
        every = [run.metrics for run in runs]
        masked = [m for m in every if "density" in m]
        masks = [m["density_by_mask"] for m in masked]
        full = _mean([sum(density > FULL for density in of) for of in masks])
        empty = _mean([sum(density < EMPTY for density in of) for of in masks])
        line = {"row": name, "claimed": DASH}
        line[f"{NAMES.get(metric, metric)}, %"] = spread([m.get(f"{metric}_mean", m[metric]) for m in every], "%")
        line["uniform there, %"] = spread(_mean(levels[name]), "%")
        line["MACs, M"] = spread(_mean([m["macs_backbone"] for m in every]), "MMAC", 1)
        line["seeds"] = f"n = {len(every)}"
        line["density, %"] = spread(_mean([m["density"] for m in masked]), "%", 1)
        line["full, empty masks"] = f"{full[0]:.0f}, {empty[0]:.0f}" if masks else DASH
        if windows:
            line["empty windows, %"] = spread(_mean([m["empty_windows"] for m in masked]), "%")
        lines.append(line)
    deviations = [of.metrics[f"{metric}_spread"] for runs in rows.values() for of in runs if "density" in of.metrics]
    if deviations:
        most = spread([max(deviations)], "points")
        notes.append(f"Over its lots the score of one network deviates by {most} points at most.")
    return _frame(lines, notes)


def _mean(values: Sequence[float]) -> list[float]:
    """The mean alone, without a spread; nothing of nothing."""
    return [sum(values) / len(values)] if values else []


def order_table(orders: Sequence) -> pd.DataFrame:
    """A line each, with its `claim`, `verdict`, `each` of its runs in words, and `gaps`.

    Gaps are kept fractions, one a seed, at equal cost.
    """
    lines = [
        {"the paper": of.claim, "ours": of.verdict, "gap at equal cost, points": spread(of.gaps, "points", signed=True)}
        | {"run by run": of.each or DASH, "seeds": f"n = {len(of.gaps)}"}
        for of in orders
    ]
    notes = ["± is the sample standard deviation over seeds of training."]
    notes += ["* beyond the 95 % bound, for this run alone."] * any("*" in of.each for of in orders)
    return _frame(lines, notes)


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


def acceleration_table(rows: Mapping[str, Mapping]) -> pd.DataFrame:
    """One line a network: `top1`, its gain over `static_top1`, mean `macs`, the share of `static_macs` saved, `seeds`.

    Values are lists, one a seed; where no static network of a seed is known (None), nothing is compared for it.
    """
    lines = []
    for name, row in rows.items():
        pairs = zip(row["top1"], row["static_top1"], strict=True)
        gains = [top1 - static for top1, static in pairs if static is not None]
        saved = [1 - m / s for m, s in zip(row["macs"], row["static_macs"], strict=True) if s is not None]
        lines.append(
            {
                "network": name,
                "kind": row["kind"] or DASH,
                "claimed top-1, %": DASH,
                "top-1, %": spread(row["top1"], "%"),
                "over static, points": spread(gains, "points", signed=True),
                "mean MACs, M": spread(row["macs"][: None if len({*row["macs"]}) > 1 else 1], "MMAC", 1),
                "MACs saved, %": spread(saved[: None if len({*saved}) > 1 else 1], "%", 1),
                "seeds": ", ".join(map(str, row["seeds"])) or DASH,
            }
        )
    return _frame(
        lines, ["± is the sample standard deviation over seeds; differences are taken seed by seed.", NO_TABLE]
    )


def budget_table(rows: Mapping[str, Values]) -> pd.DataFrame:
    """One line a rival: its cost (`budget`) and accuracy (`thinned`), then `ours`, the `macs` it spent, its `gain`."""
    lines = [
        {
            "at the cost of": name,
            "budget, M": spread(row["budget"][:1], "MMAC", 1),
            "its top-1, %": spread(row["thinned"], "%"),
            "ours, %": spread(row["ours"], "%"),
            "mean MACs, M": spread(row["macs"], "MMAC", 1),
            "gain, points": spread(row["gain"], "points", signed=True),
            "seeds": f"n = {len(row['gain'])}",
        }
        for name, row in rows.items()
    ]
    return _frame(lines, ["± is the sample standard deviation over seeds; gains are taken seed by seed."])


def stage_table(rows: Mapping[str, Values]) -> pd.DataFrame:
    """One line an exit: accuracy over `all` images and its `leavers`, the `share` that leaves, cumulative `macs`."""
    heads = ("exit", "claimed top-1, %", "top-1 of all, %", "of those that leave, %", "share, %", "cumulative MACs, M")
    lines = []
    for name, row in rows.items():
        cells = (spread(row[key], "%", digits) for key, digits in (("all", 2), ("leavers", 2), ("share", 1)))
        macs = spread(row["macs"][: None if len({*row["macs"]}) > 1 else 1], "MMAC", 2)
        lines.append(dict(zip(heads, (name, DASH, *cells, macs), strict=True)))
    return _frame(lines or [dict.fromkeys(heads, DASH)], ["± is the sample standard deviation over seeds.", NO_TABLE])


def retrained_table(candidates: Sequence[Mapping]) -> pd.DataFrame:
    """One line a candidate of a search: its reward under shared weights, and what it is worth once trained alone."""
    heads = ("drawn by", "cuts", "reused", "reward, shared", "reward, alone", "top-1, %, alone", "MACs, M, alone")
    lines = []
    for one in candidates:
        alone = one["alone"]
        cuts = " / ".join(" ".join(map(str, row[1:-1])) for row in one["cuts"])
        line = [one["by"], cuts, " / ".join("".join(map(str, row)) for row in one["reuse"])]
        line += [f"{of['reward']:.4f}" for of in (one, alone)]
        lines.append(
            dict(zip(heads, [*line, spread([alone["top1"]], "%"), spread([alone["macs"]], "MMAC")], strict=True))
        )
    groups = {str(one["cuts"][0][-1]) for one in candidates}
    notes = [f"Cuts between 0 and {', '.join(groups)} channel groups, and the bits, by map size, from the largest."]
    return _frame(lines or [dict.fromkeys(heads, DASH)], notes * bool(lines))


def waiting_table(times: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """One line a network: mean, median, 95th percentile and worst of its times for single images, in ms."""
    lines = []
    for name, found in times.items():
        figures = (np.mean(found), *np.percentile(found, [50, 95, 100]))
        heads = ("mean, ms", "median, ms", "95 %, ms", "worst, ms")
        lines.append({"network": name} | {head: f"{value:.2f}" for head, value in zip(heads, figures, strict=True)})
    return _frame(lines, [])


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
    """The lines with their notes; what ± means is told where one stands."""
    frame = pd.DataFrame(lines)
    spreads = any("±" in str(cell) for cell in frame.to_numpy().flat)
    frame.attrs["notes"] = tuple(note for note in notes if spreads or not note.startswith("±"))
    return frame
