"""What the records of stages say: every network at its cost, and whether choosing beats simply being smaller.

Pure functions of training and search records, see `s2dnas.choose` and `s2dnas_study.search` for what these hold. All
lists have one value a run. What is picked, is picked by what held-out images of the training split promised; accuracies
and costs are those of the test images.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev

from dynlib.papers.s2dnas import NESTED, Config
from dynlib.papers.s2dnas_owners import edges, is_read
from dynlib.records import Record
from dynlib.student import beyond_chance

BACKBONES = {  # what differs from the chapter's recipe
    "ResNet-20": {},
    "ResNet-56": {"arch": "cifar_resnet56", "train_images": 8000},
    "VGG16-BN": {"arch": "cifar_vgg16_bn", "train_images": 5000},
}
THINNED = {"ResNet-20": (6, 8, 10, 12), "ResNet-56": (8, 12), "VGG16-BN": (32,)}  # widths; 16, 16 and 64 as published
TWO_STAGES = {  # what differs from the chapter's search: a space small enough to be ranked to the end
    "search_stages": 2,
    "search_groups": 4,
    "candidates": 40,
    "omegas": (),
    "ranked": 216,
}
STATIC, FIXED, FOUND = "static", "stages, 0 2 4 8", "stages, found"
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


def found_by(search: Record | None) -> Config | None:
    """The network that a search ended with."""
    return None if search is None else Config(search.metrics["found"]["cuts"], search.metrics["found"]["reuse"])


def is_dynamic(run: Record) -> bool:
    """Whether the run's network has more than one exit."""
    return len(run.metrics["exit_macs"]) > 1


def rows(runs: Runs) -> dict[str, dict]:
    """For every network its `kind`, `top1`, mean `macs`, and `static_top1` and `static_macs` of the same seeds.

    Of a network with exits at the thresholds of the first budget: the cheapest that lose at most 0.2 points on held-out
    images. A run without a static one of its seed has None there.
    """
    static = {run.seed: run.metrics for run in runs[STATIC]}
    return {
        name: {
            "kind": "dynamic" if any(map(is_dynamic, of)) else "static" if of else "",
            "top1": [run.metrics["top1"] for run in of],
            "macs": [run.metrics["expected_macs"] for run in of],
            "static_top1": [static[run.seed]["top1"] if run.seed in static else None for run in of],
            "static_macs": [static[run.seed]["macs"] if run.seed in static else None for run in of],
        }
        for name, of in runs.items()
    }


def within(run: Record, macs: float) -> dict | None:
    """Of all thresholds that any rule found, the most accurate that cost at most `macs`, both on held-out images.

    Of equally accurate ones the cheapest; None where even the first exit costs more.
    """
    allowed = [one for rule in run.metrics["rules"].values() for one in rule if one["held_out_macs"] <= macs]
    return max(allowed, key=lambda one: (one["held_out_top1"], -one["held_out_macs"]), default=None)


def against_thinned(name: str, runs: Runs) -> dict[str, dict[str, list[float]]]:
    """A network with exits against each thinned one at that one's cost, seed by seed: `budget`, `thinned`, `ours`,
    `macs` that ours really spent, and the `gain` in top-1. Only seeds that have both; `dear` are budgets that are less
    than our first exit costs.
    """
    keys, table = ("budget", "thinned", "ours", "macs", "gain"), {}
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
            values = (rival["macs"], rival["top1"], ours["top1"], ours["macs"], ours["top1"] - rival["top1"])
            for key, value in zip(keys, values, strict=True):
                row[key].append(value)
    return table


def verdict(name: str, table: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One paragraph: at how many budgets the network with exits is above the thinned one, and by how much."""
    gains = {other: row["gain"] for other, row in table.items() if row["gain"]}
    dear = [other for other, row in table.items() if row["dear"]]
    if not gains and not dear:
        return f"**{name}** against uniform thinning: no record yet."
    above = [other for other, values in gains.items() if mean(values) > 0]
    clear = [other for other in above if beyond_chance(gains[other])]
    text = f"**{name}** is above uniform thinning at {len(above)} of {len(gains)} budgets, at {len(clear)} of them "
    text += "beyond the 95 % bound of Student's t over its seeds. "
    if gains:
        each = "; ".join(f"{other} {in_points(values)} (n = {len(values)})" for other, values in gains.items())
        text += f"Gains in points of top-1, at the thinned network's cost: {each}. "
    if dear:
        text += f"Even its first exit costs more than these: {', '.join(dear)}. "
    wanted = "That is what was to be shown." if len(clear) >= 3 else "**Three budgets were to be shown: they are not.**"
    return text + (wanted if len(table) >= 3 else "")


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
    """Families of (mean MACs, top-1) for a figure: curves of the quota rule, the rest at the first budget."""
    sized = [(mean(row["macs"]), mean(row["top1"])) for n, row in rows(runs).items() if _is_sized(n) and row["top1"]]
    reused = runs.get("stages, nothing reused", ())
    return {
        FOUND: curve(runs.get(FOUND, ())),
        "nothing reused, at its budgets": curve(reused, "budget"),
        "static, thinned": sized,
        FIXED: curve(runs.get(FIXED, ())),
        "exits on layers, at its budgets": curve(runs.get("exits on layers", ()), "budget"),
        "MSDNet, at its budgets": curve(runs.get("MSDNet", ()), "budget"),
    }


def _is_sized(name: str) -> bool:
    return name == STATIC or name.startswith("thinned")


def rewards(search: Record | None) -> tuple[dict[str, list[float]], tuple[str, float] | None]:
    """Rewards draw by draw at the main omega, and the best of all architectures that cut every map size alike."""
    if search is None:
        return {}, None
    of = search.metrics["searches"][0]["rewards"]
    drawn = {"controller": of["policy"], "random": of["random"]}
    return drawn, ("best of those alike at all sizes", max(of["alike"]))


def omega_plane(search: Record | None) -> dict[str, dict[str, tuple[float, float]]]:
    """(mean MACs, top-1) on held-out images of the best candidate for each omega, by who drew it."""
    plane = {"controller": {}, "random": {}}
    for of in [] if search is None else search.metrics["searches"]:
        for who, by in (("controller", "policy"), ("random", "random")):
            plane[who][f"ω = {of['omega']:g}".replace("-", "−")] = (of["best"][by]["macs"], of["best"][by]["top1"])
    return plane


def drawn(config: Config | None, widths: Mapping[str, int]) -> tuple[dict[str, tuple[int, ...]], list[list[tuple]]]:
    """What `plots_choices.drawn_network` draws of a network with these channels by map size; nothing without one."""
    if config is None:
        return {}, []
    cuts, reuse = config.for_groups(len(widths))
    edge = {size: edges(width, row) for (size, width), row in zip(widths.items(), cuts, strict=True)}
    stages = range(config.stages)
    return edge, [[(i, j) for j in stages for i in range(j) if is_read(bits, i, j, len(stages))] for bits in reuse]


def search_words(search: Record | None) -> str:
    """One paragraph on a search: its time, the controller beside random draws, the agreement of short and long."""
    if search is None:
        return "The search has no record yet."
    m = search.metrics
    drawn = m["searches"][0]["rewards"]["policy"]
    best = {name: max(rewards) for name, rewards in m["searches"][0]["rewards"].items()}
    ahead = best["policy"] - best["random"]
    spent = m["weights_s"] + m["candidates_s"] + m["retraining_s"]
    text = f"The search took {spent / 60:.1f} minutes of {m['clock']} time on {search.environment['threads']} thread: "
    text += f"{m['weights_s']:.0f} s for the shared weights, "
    text += f"{m['candidates_s']:.0f} s for {m['measured']} candidates ({m['seconds_a_candidate']:.2f} s each), "
    text += f"{m['retraining_s']:.0f} s for {len(m['retrained'])} trainings alone. "
    text += f"The best reward of the controller is {best['policy']:.4f}, of as many random draws {best['random']:.4f}: "
    error = sqrt(m["found"]["top1"] * (1 - m["found"]["top1"]) / search.config["proxy_held_out_images"])
    if ahead <= 0:
        text += "**the controller is not ahead.** "
    else:
        text += "the controller is ahead. " if ahead > 2 * error else "**the two cannot be told apart.** "
    text += f"(The accuracy in a reward has a standard error of {100 * error:.1f} points.) "
    quarter = -(-len(drawn) // 4)
    text += f"Mean reward of the first quarter of its draws: {mean(drawn[:quarter]):.4f}, of the last: "
    text += f"{mean(drawn[-quarter:]):.4f}. "
    text += (
        f"Of the network found, trained alone, {100 * m['found']['shares'][-1]:.0f} % of the held-out images take the "
    )
    text += "last exit. "
    tau = m["kendall_tau"]
    if tau is None:
        return text + "Short and longer training cannot be ranked against each other. "
    text += (
        f"Kendall's tau between the reward under shared weights and that after training alone is {tau:+.2f}, of only "
    )
    return text + f"{len(m['retrained'])} candidates, half of which were picked as the best. "


def in_points(values: Sequence[float]) -> str:
    """+1.23 ± 0.45, in percent of the images."""
    text = f"{100 * mean(values):+.2f}".replace("-", "−")
    return text + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")
