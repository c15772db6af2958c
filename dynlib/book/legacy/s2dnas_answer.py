"""Whether choosing beats simply being smaller, and what it costs: from records, in tables and words.

At one cost two networks can be compared. So the one with stages gets the cost of a rival as its budget, on held-out
images; accuracies and costs are those of the test images, one value a seed that both have.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from dynlib.book.legacy.s2dnas_evidence import FIXED, FOUND, MSDNET, STAGED, Runs, is_dynamic, rows, within
from dynlib.book.legacy.s2dnas_found import minutes
from dynlib.book.legacy.student import beyond_chance, in_points
from dynlib.book.records import Record

SPOKEN = {FOUND: "the cuts found", FIXED: "the fixed cuts"}
Table = Mapping[str, Mapping[str, Sequence]]  # by rival, see `against`


def budget_of(rival: Record) -> float:
    """MACs that a rival costs; one with exits at its own first budget, as held-out images promised."""
    return rival.metrics["rules"]["budget"][0]["held_out_macs"] if is_dynamic(rival) else rival.metrics["macs"]


def against(name: str, runs: Runs, rivals: Sequence[str] = ()) -> dict[str, dict[str, list]]:
    """A network with exits against each rival at that one's cost, against the thinned networks where none is named.

    By rival, and seed by seed: `seed`, `budget`, accuracy of the rival (`thinned`) and `ours`, the `macs` that ours
    really spent, the `gain` in top-1, and the thresholds that it was `at`. Only seeds that have both; `dear` are
    budgets that are less than our first exit costs.
    """
    keys, table = ("seed", "budget", "thinned", "ours", "macs", "gain", "at"), {}
    for other in rivals or [other for other in runs if other.startswith("thinned")]:
        row = table[other] = {key: [] for key in (*keys, "dear")}
        for run in runs.get(name, ()):
            rival = next((one for one in runs[other] if one.seed == run.seed), None)
            if rival is None:
                continue
            budget, top1 = budget_of(rival), rival.metrics["top1"]
            if (ours := within(run, budget)) is None:
                row["dear"].append(budget)
                continue
            values = (run.seed, budget, top1, ours["top1"], ours["macs"], ours["top1"] - top1, ours["thresholds"])
            for key, value in zip(keys, values, strict=True):
                row[key].append(value)
    return table


def operating_points(table: Table) -> list[list[str]]:
    """Budgets in groups: neighbours for which every seed chose the same thresholds are one operating point."""
    points: list[list[str]] = []
    for other, row in table.items():
        chosen = dict(zip(row["seed"], row["at"], strict=True))
        before = table[points[-1][-1]] if points else {"seed": (), "at": ()}
        both = [(chosen[seed], at) for seed, at in zip(before["seed"], before["at"], strict=True) if seed in chosen]
        if both and all(here == there for here, there in both):
            points[-1].append(other)
        elif chosen:
            points.append([other])
    return points


def ahead(table: Table, sign: int = 1) -> tuple[list[list[str]], int]:
    """The operating points whose gain is above 0 (below, by `sign`), and at how many of them beyond chance.

    A point of several budgets is ahead where it is so at each.
    """
    gains = {other: row["gain"] for other, row in table.items()}
    won = [point for point in operating_points(table) if all(sign * mean(gains[other]) > 0 for other in point)]
    return won, sum(all(beyond_chance(gains[other]) for other in point) for point in won)


def by_seed(table: Table) -> list[float]:
    """The mean gain over the operating points, of each seed that is in all of them: like is averaged with like."""
    points = [
        [dict(zip(table[other]["seed"], table[other]["gain"], strict=True)) for other in point]
        for point in operating_points(table)
    ]
    seeds = sorted(set.intersection(*(set(row) for point in points for row in point))) if points else []
    return [mean(mean(row[seed] for row in point) for point in points) for seed in seeds]


def verdict(name: str, table: Table) -> str:
    """One paragraph: at how many operating points the network with exits is above the thinned ones, and how surely."""
    points, dear = operating_points(table), [other for other, row in table.items() if row["dear"]]
    too_dear = f"Even its first exit costs more than all of {_widths(dear)}. " if dear else ""
    if not points:
        return f"**{name}** against uniform thinning: {too_dear}{'No other budget has a' if dear else 'no'} record yet."
    (above, clear), (below, clearly_below) = ahead(table), ahead(table, -1)
    text = (
        f"**{name}** is above uniform thinning at {_named(above, points)}, at {clear} of them beyond the 95 % bound of "
    )
    text += f"Student's t over its seeds; it is below at {_named(below, points)}, at {clearly_below} beyond it. "
    for same in points:
        if len(same) > 1:
            text += f"Within the budgets of {_widths(same)} every seed chooses the same thresholds: that is one "
            text += "operating point, above only where it is above each of these. "
    if len(points) > 1 and (means := by_seed(table)):
        text += f"On average over the operating points: {in_points(means)} (n = {len(means)}), {_bound(means)}. "
    text += too_dear
    if len(table) < 3:
        return text
    if clear >= 3:
        return text + "A lead at three was to be shown, and is."
    if len(above) >= 3:
        return text + "**A lead at three was to be shown: the means stand, but not beyond chance at three.**"
    return text + "**A lead at three was to be shown: it is not.**"


def answers(evidence: Mapping[str, Runs]) -> tuple[dict[str, dict], str]:
    """By backbone and network with stages what `against` finds, if anything; all verdicts, a paragraph each."""
    found = {f"{b}: {n}": against(n, of) for b, of in evidence.items() for n in STAGED if n in of}
    told = [verdict(name, table) for name, table in found.items()]
    told += [f"{b}. {found_against_fixed(of)}" for b, of in evidence.items() if of.keys() >= {*STAGED}]
    filled = {name: table for name, table in found.items() if any(row["gain"] for row in table.values())}
    return filled, "\n\n".join(told)


def found_against_fixed(runs: Runs) -> str:
    """One sentence: the network found against the fixed cuts, both within the cost of each thinned network."""
    budgets = {name: budget_of(of[0]) for name, of in runs.items() if name.startswith("thinned") and of}
    table = {name: {"seed": [], "gain": [], "at": []} for name in budgets}
    for ours in runs.get(FOUND, ()):
        for fixed in (run for run in runs.get(FIXED, ()) if run.seed == ours.seed):
            for name, macs in budgets.items():
                picked = within(ours, macs), within(fixed, macs)
                if None not in picked:
                    table[name]["seed"].append(ours.seed)
                    table[name]["gain"].append(picked[0]["top1"] - picked[1]["top1"])
                    table[name]["at"].append([one["thresholds"] for one in picked])
    means = by_seed(table)
    if not means:
        return "**Found against fixed cuts**: no seed has records of both yet."
    each = "; ".join(f"{_widths(point)} {in_points(table[point[0]]['gain'])}" for point in operating_points(table))
    text = f"**Found against fixed cuts**, points of top-1 within the cost of each thinned network: {each}. On average "
    return text + f"{in_points(means)} (n = {len(means)}), {_bound(means)}."


def in_short(evidence: Mapping[str, Runs], search: Record | None, timed: Mapping[str, Record | None]) -> str:
    """One paragraph on ResNet-20: whether stages beat a thinner network, and what they cost."""
    runs = evidence["ResNet-20"]
    told, losses, sure = [], [], 0
    for name in (name for name in STAGED if runs.get(name)):
        table, loss = against(name, runs), rows(runs)[name]
        (above, clear), points, means = ahead(table), operating_points(table), by_seed(table)
        text = f"with {SPOKEN[name]} at {_named(above, points)}, at {clear} of them beyond chance"
        text += f", on average by {in_points(means)} points of top-1 (n = {len(means)})" if means else ""
        dear = [other for other, row in table.items() if row["dear"]]
        told.append(text + (f", while {_widths(dear)} is cheaper than its first exit" if dear else ""))
        sure += clear
        if None not in loss["static_top1"]:
            gains = [top1 - whole for top1, whole in zip(loss["top1"], loss["static_top1"], strict=True)]
            saved = 1 - mean(loss["macs"]) / mean(loss["static_macs"])
            losses.append(f"{SPOKEN[name]} {100 * saved:.0f} % fewer MACs at {in_points(gains)} points")
    text = "**Does it beat simply a thinner network?** In ResNet-20, at no more mean MACs: "
    if told:
        text += f"beyond chance at {sure} operating points" if sure else "**not beyond chance**"
        text += f". Its mean is ahead {'; '.join(told)}. {beside(runs)}"
    else:
        text += "no record yet. "
    text += f"**What does it cost?** Beside the whole network: {'; '.join(losses)} of top-1. " if losses else ""
    if search:
        text += (
            f"The search, on a small proxy, took {minutes(search):.0f} minutes of {search.metrics['clock']} time, its "
        )
        text += "controls included. "
    speedups, ratios = ([run.metrics[of] for run in timed.values() if run] for of in ("speedup", "macs_ratio"))
    if not speedups:
        return text
    text += "Time falls less than MACs: at forced exits, by network, it is "
    text += f"{min(speedups):.1f} to {max(speedups):.1f} times as fast for "
    return text + f"{min(ratios):.1f} to {max(ratios):.1f} times fewer MACs."


def beside(runs: Runs, rival: str = MSDNET) -> str:
    """One sentence: the networks with stages at each budget of a rival with exits, on the seeds that both have."""
    told, seeds = [], set()
    for name in STAGED:
        both = [(ours, its) for ours in runs.get(name, ()) for its in runs.get(rival, ()) if ours.seed == its.seed]
        rated = [
            (within(ours, one["held_out_macs"]), one) for ours, its in both for one in its.metrics["rules"]["budget"]
        ]
        gains = [100 * (ours["top1"] - one["top1"]) for ours, one in rated if ours]
        if gains:
            low, high = (f"{gain:+.1f}".replace("-", "−") for gain in (min(gains), max(gains)))
            told.append(f"{SPOKEN[name]} {low if low == high else f'{low} to {high}'} points")
            seeds |= {its.seed for _, its in both}
    text = f"Beside {rival}, trained by the same recipe, at the cost of each of its budgets: "
    return f"{text}{', '.join(told)} (n = {len(seeds)}). " if told else ""


def speed_words(timed: Mapping[str, Record | None]) -> str:
    """One sentence: how many times as fast the timed networks are, beside how many times fewer MACs they need."""
    found = {name: run.metrics for name, run in timed.items() if run}
    each = [
        f"{n}, {m['speedup']:.2f} times as fast for {m['macs_ratio']:.2f} times fewer MACs" for n, m in found.items()
    ]
    text = "At the forced shares, beside the fastest form of the whole network: "
    return f"{text}{'; '.join(each)}." if each else "Nothing has been timed yet."


def _named(some: Sequence[Sequence[str]], points: Sequence[Sequence[str]]) -> str:
    """2 of 3 operating points (width 8, 10)."""
    text = f"{len(some)} of {len(points)} operating points"
    return f"{text} ({_widths([other for point in some for other in point])})" if some else text


def _widths(thinned: Sequence[str]) -> str:
    return f"width {', '.join(name.rpartition(' ')[2] for name in thinned)}"


def _bound(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "but one seed tells nothing of chance"
    return f"{'beyond' if beyond_chance(values) else '**within**'} the 95 % bound of Student's t"
