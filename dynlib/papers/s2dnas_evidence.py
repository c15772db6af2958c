"""What the records of stages say: every network at its cost, and whether choosing beats simply being smaller.

Pure functions of training and search records, see `s2dnas.choose` and `s2dnas_study.search` for what these hold. All
lists have one value a run. What is picked, is picked by what held-out images of the training split promised; accuracies
and costs are those of the test images.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, stdev

from dynlib import settings
from dynlib.papers.s2dnas import NESTED, Config
from dynlib.records import Record
from dynlib.student import beyond_chance

BACKBONES = {  # what differs from the chapter's recipe
    "ResNet-20": {},
    "ResNet-56": {"arch": "cifar_resnet56", "train_images": 8000},
    "VGG16-BN": {"arch": "cifar_vgg16_bn", "train_images": 5000},
}
# Widths; 16, 16 and 64 as published.
THINNED = {"ResNet-20": (6, 8, 10, 11, 12, 13), "ResNet-56": (8, 12), "VGG16-BN": (32,)}
STATIC, FIXED, FOUND = "static", "stages, 0 2 4 8", "stages, found"
STAGED = (FOUND, FIXED)
Runs = Mapping[str, Sequence[Record]]  # of one backbone, by network


def networks(backbone: str, found: Config | None) -> dict[str, tuple[Config, dict]]:
    """Network -> settings, and what differs from the chapter's recipe; FOUND once the search has a record."""
    changes = BACKBONES[backbone]
    static = Config(cuts=((0, NESTED[0][-1]),))
    rows = {STATIC: (static, changes)}
    rows |= {f"thinned to width {width}": (static, changes | {"width": width}) for width in THINNED[backbone]}
    if backbone != "ResNet-56":
        rows[FIXED] = (Config(), changes)
    if found is not None and backbone.startswith("ResNet"):
        rows[FOUND] = (found, changes)
    if backbone == "ResNet-20":
        rows["stages, nothing reused"] = (Config(reuse=((0, 0, 0),)), changes)
        rows["exits on layers"] = (Config(form="layers"), changes)
        rows["MSDNet"] = (Config(form="msdnet"), changes)
    return rows


def arguments(config: Config, changes: Mapping) -> str:
    """What `dynlib train` is given for a network, as one writes it in a shell."""
    plain, usual = settings.plain(asdict(config)), settings.plain(asdict(Config()))
    return given({name: value for name, value in plain.items() if value != usual[name]} | dict(changes))


def given(changes: Mapping) -> str:
    """Settings that differ from a profile's, as one writes them in a shell."""
    return " ".join(f"-p {shlex.quote(f'{name}={settings.written(value)}')}" for name, value in changes.items())


def unmade(backbone: str, runs: Runs, found: Config | None, command: Callable[[str, str], str]) -> tuple[str, ...]:
    """A sentence for each network that has no record, with the `command`, of what and with what, that makes it."""
    lines = {name: command("train", arguments(*of)) for name, of in networks(backbone, found).items() if not runs[name]}
    return tuple(f"No record yet: {name}. `{line}` makes it." for name, line in lines.items())


def common(runs: Runs) -> dict[str, list[Record]]:
    """Of every network the records of those seeds that the static, thinned and staged networks with records share.

    So that means stand beside means over the same seeds. A rival with fewer seeds keeps what it has of these.
    """
    compared = [of for name, of in runs.items() if of and (_is_sized(name) or name in STAGED)]
    seeds = set.intersection(*({run.seed for run in of} for of in compared)) if compared else set()
    return {name: [run for run in of if run.seed in seeds] for name, of in runs.items()}


def is_dynamic(run: Record) -> bool:
    """Whether the run's network has more than one exit."""
    return len(run.metrics["exit_macs"]) > 1


def rows(runs: Runs) -> dict[str, dict]:
    """For every network its `kind`, `seeds`, `top1`, mean `macs`, and `static_top1` and `static_macs` of these seeds.

    Of a network with exits at the thresholds of the first budget: the cheapest that lose at most 0.2 points on held-out
    images. A run without a static one of its seed has None there.
    """
    static = {run.seed: run.metrics for run in runs[STATIC]}
    return {
        name: {
            "kind": "dynamic" if any(map(is_dynamic, of)) else "static" if of else "",
            "seeds": [run.seed for run in of],
            "top1": [run.metrics["top1"] for run in of],
            "macs": [run.metrics["expected_macs"] for run in of],
            "static_top1": [static[run.seed]["top1"] if run.seed in static else None for run in of],
            "static_macs": [static[run.seed]["macs"] if run.seed in static else None for run in of],
        }
        for name, of in runs.items()
    }


def within(run: Record, macs: float) -> dict | None:
    """Of the whole front of thresholds the most accurate that cost at most `macs`, both on held-out images.

    None where even the first exit costs more.
    """
    allowed = [one for one in run.metrics["rules"]["front"] if one["held_out_macs"] <= macs]
    return max(allowed, key=lambda one: one["held_out_top1"], default=None)


def against_thinned(name: str, runs: Runs) -> dict[str, dict[str, list[float]]]:
    """A network with exits against each thinned one at that one's cost, seed by seed: `seed`, `budget`, `thinned`,
    `ours`, `macs` that ours really spent, and the `gain` in top-1. Only seeds that have both; `dear` are budgets that
    are less than our first exit costs.
    """
    keys, table = ("seed", "budget", "thinned", "ours", "macs", "gain"), {}
    for other, of in runs.items():
        if not other.startswith("thinned"):
            continue
        row = table[other] = {key: [] for key in (*keys, "dear")}
        for run in runs.get(name, ()):
            rival = next((one.metrics for one in of if one.seed == run.seed), None)
            if rival is None:
                continue
            if (ours := within(run, rival["macs"])) is None:
                row["dear"].append(rival["macs"])
                continue
            gain = ours["top1"] - rival["top1"]
            values = (run.seed, rival["macs"], rival["top1"], ours["top1"], ours["macs"], gain)
            for key, value in zip(keys, values, strict=True):
                row[key].append(value)
    return table


def verdict(name: str, table: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One paragraph: at how many budgets the network with exits is above the thinned one, and by how much."""
    gains = {other: row["gain"] for other, row in table.items() if row["gain"]}
    dear = [other for other, row in table.items() if row["dear"]]
    if not gains and not dear:
        return f"**{name}** against uniform thinning: no record yet."
    if not gains:
        return (
            f"**{name}**: even its first exit costs more than these: {', '.join(dear)}. No other budget has a record."
        )
    above = [other for other, values in gains.items() if mean(values) > 0]
    below, clear = (
        [other for other, values in gains.items() if sign * mean(values) > 0 and beyond_chance(values)]
        for sign in (-1, 1)
    )
    text = f"**{name}** is above uniform thinning at {len(above)} of {len(gains)} budgets, at {len(clear)} of them "
    text += "beyond the 95 % bound of Student's t over its seeds"
    text += f"; it is below at {len(gains) - len(above)}, at {len(below)} of them beyond that bound. "
    each = "; ".join(f"{other} {in_points(values)} (n = {len(values)})" for other, values in gains.items())
    text += f"Gains in points of top-1 (± the deviation over seeds), at the thinned network's cost: {each}. "
    if len(gains) > 1 and (means := _by_seed(table.values())):
        text += f"On average over the budgets: {in_points(means)} (n = {len(means)}), {_bound(means)}. "
    if dear:
        text += f"Even its first exit costs more than these: {', '.join(dear)}. "
    if len(table) < 3:
        return text
    if len(clear) >= 3:
        return text + "Three budgets were to be shown, and are."
    if len(above) >= 3:
        return text + "**Three budgets were to be shown: so the means stand, but not beyond chance at three.**"
    return text + "**Three budgets were to be shown: they are not.**"


def answers(evidence: Mapping[str, Runs]) -> tuple[dict[str, dict], str]:
    """By backbone and network with stages what `against_thinned` finds, if anything; all verdicts, a paragraph each."""
    found = {f"{b}: {n}": against_thinned(n, of) for b, of in evidence.items() for n in STAGED if n in of}
    told = [verdict(name, table) for name, table in found.items()]
    told += [f"{b}. {found_against_fixed(of)}" for b, of in evidence.items() if of.keys() >= {*STAGED}]
    filled = {name: table for name, table in found.items() if any(row["gain"] for row in table.values())}
    return filled, "\n\n".join(told)


def found_against_fixed(runs: Runs) -> str:
    """One sentence: the network found against the fixed cuts, both within the cost of each thinned network."""
    budgets = {name: of[0].metrics["macs"] for name, of in runs.items() if name.startswith("thinned") and of}
    rows = {name: {"seed": [], "gain": []} for name in budgets}
    for ours in runs.get(FOUND, ()):
        for fixed in (run for run in runs.get(FIXED, ()) if run.seed == ours.seed):
            for name, macs in budgets.items():
                picked = within(ours, macs), within(fixed, macs)
                if None not in picked:
                    rows[name]["seed"].append(ours.seed)
                    rows[name]["gain"].append(picked[0]["top1"] - picked[1]["top1"])
    means = _by_seed(rows.values())
    if not means:
        return "**Found against fixed cuts**: no seed has records of both yet."
    each = "; ".join(f"{name} {in_points(row['gain'])}" for name, row in rows.items() if row["gain"])
    text = f"**Found against fixed cuts**, points of top-1 within the cost of each thinned network: {each}. On average "
    return text + f"{in_points(means)} (n = {len(means)}), {_bound(means)}."


def _by_seed(rows: Iterable[Mapping[str, Sequence[float]]]) -> list[float]:
    """The mean gain over the rows with gains, of each seed that is in all of them: like is averaged with like."""
    gains: dict[int, list[float]] = {}
    for row in (filled := [row for row in rows if row["gain"]]):
        for seed, gain in zip(row["seed"], row["gain"], strict=True):
            gains.setdefault(seed, []).append(gain)
    return [mean(values) for values in gains.values() if len(values) == len(filled)]


def _bound(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "but one seed tells nothing of chance"
    return f"{'beyond' if beyond_chance(values) else '**within**'} the 95 % bound of Student's t"


def staged(evidence: Mapping[str, Runs]) -> dict[str, Sequence[Record]]:
    """Records of the network with stages that has the most, of each backbone that has any; the found one of equals."""
    most = {b: max((n for n in STAGED if n in of), key=lambda name: len(of[name])) for b, of in evidence.items()}
    return {f"{b}, {name}": evidence[b][name] for b, name in most.items() if evidence[b][name]}


def stage_rows(runs: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """For each exit `all` and `leavers`, the accuracy over these, `share`, `macs`; in the end the whole network."""
    if not runs:
        return {}
    table, m = {}, [run.metrics for run in runs]
    for exit in range(len(m[0]["exit_macs"])):
        left = [of["leaver_top1"][exit] for of in m if of["leaver_top1"][exit] is not None]
        here = {key: [of[name][exit] for of in m] for key, name in (("all", "exit_top1"), ("share", "exit_share"))}
        table[f"exit {exit + 1}"] = here | {"leavers": left, "macs": [of["exit_macs"][exit] for of in m]}
    whole = {"all": [of["top1"] for of in m], "leavers": [], "share": []}
    return table | {"together": whole | {"macs": [of["expected_macs"] for of in m]}}


def curve(runs: Sequence[Record], rule: str = "quota") -> list[tuple[float, float]]:
    """(mean MACs, top-1) on the test images for each setting of a rule, means over the runs."""
    per_run = [[(one["macs"], one["top1"]) for one in run.metrics["rules"][rule]] for run in runs]
    return [tuple(map(mean, zip(*same, strict=True))) for same in zip(*per_run, strict=True)]


def plane(runs: Runs) -> dict[str, list[tuple[float, float]]]:
    """Families of (mean MACs, top-1) for a figure: curves of the quota rule, the rest at its budgets.

    A family with fewer seeds than the static network says so.
    """
    sized = [(mean(row["macs"]), mean(row["top1"])) for n, row in rows(runs).items() if _is_sized(n) and row["top1"]]
    families = {FOUND: (FOUND, "quota"), "nothing reused, at its budgets": ("stages, nothing reused", "budget")}
    families |= {"static, thinned": None, FIXED: (FIXED, "quota")}
    families |= {f"{name}, at its budgets": (name, "budget") for name in ("exits on layers", "MSDNet")}
    drawn = {}
    for label, of in families.items():
        found = runs.get(of[0], ()) if of else ()
        few = f" (seed {found[0].seed})" if len(found) == 1 < len(runs[STATIC]) else ""
        drawn[label + few] = curve(found, of[1]) if of else sized
    return drawn


def _is_sized(name: str) -> bool:
    return name == STATIC or name.startswith("thinned")


def in_points(values: Sequence[float]) -> str:
    """+1.23 ± 0.45, in percent of the images."""
    text = f"{100 * mean(values):+.2f}".replace("-", "−")
    return text + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")
