"""The networks whose records the chapter reads, and what these say of each: at what cost, exit by exit, in the plane.

Pure functions of training records, see `s2dnas.choose` for what these hold. All lists have one value a run. Accuracies
and costs are those of the test images.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, stdev

from dynlib import settings
from dynlib.book.records import Record
from dynlib.papers.s2dnas import NESTED, Config

BACKBONES = {  # what differs from the chapter's recipe
    "ResNet-20": {},
    "ResNet-56": {"arch": "cifar_resnet56", "train_images": 8000},
    "VGG16-BN": {"arch": "cifar_vgg16_bn", "train_images": 5000},
}
# Widths; 16, 16 and 64 as published.
THINNED = {"ResNet-20": (6, 8, 10, 11, 12, 13), "ResNet-56": (8, 12), "VGG16-BN": (32,)}
STATIC, FIXED, FOUND = "static", "stages, 0 2 4 8", "stages, found"
STAGED = (FOUND, FIXED)
BUDGETS = 12  # of a curve
APART, LAYERS, MSDNET = RIVALS = ("stages, nothing reused", "exits on layers", "MSDNet")
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
        rows[APART] = (Config(reuse=((0, 0, 0),)), changes)
        rows[LAYERS] = (Config(form="layers"), changes)
        rows[MSDNET] = (Config(form="msdnet"), changes)
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


def within(run: Record, macs: float) -> dict | None:
    """Of the whole front of thresholds the most accurate that cost at most `macs`, both on held-out images.

    None where even the first exit costs more.
    """
    allowed = [one for one in run.metrics["rules"]["front"] if one["held_out_macs"] <= macs]
    return max(allowed, key=lambda one: one["held_out_top1"], default=None)


Point = tuple[float, float, float]  # mean MACs, top-1, and its sample deviation over seeds, 0 for one


def curve(runs: Sequence[Record]) -> list[Point]:
    """What a network with exits does on test images `within` BUDGETS budgets, from its cheapest to its dearest."""
    if not runs:
        return []
    fronts = [[one["held_out_macs"] for one in run.metrics["rules"]["front"]] for run in runs]
    low, high = max(map(min, fronts)), max(map(max, fronts))
    steps = [low + (high - low) * step / (BUDGETS - 1) for step in range(BUDGETS)]
    return [_point([within(run, budget) for run in runs]) for budget in steps]


def plane(runs: Runs) -> dict[str, list[Point]]:
    """Families for a figure, by one rule for all that have exits. One with fewer seeds than the static one says so."""
    sized = [_point([run.metrics for run in of]) for name, of in runs.items() if _is_sized(name) and of]
    drawn = {"static, thinned": sized}
    for name in (FOUND, FIXED, *RIVALS):
        found = runs.get(name, ())
        few = f" (seed {found[0].seed})" if len(found) == 1 < len(runs[STATIC]) else ""
        drawn[name + few] = curve(found)
    return drawn


def _point(outcomes: Sequence[Mapping]) -> Point:
    top1 = [one["top1"] for one in outcomes]
    return mean(one["macs"] for one in outcomes), mean(top1), stdev(top1) if len(top1) > 1 else 0.0


def _is_sized(name: str) -> bool:
    return name == STATIC or name.startswith("thinned")
