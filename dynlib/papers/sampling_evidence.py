"""What the chapter compares on real data: which runs there are, how each is made, and what their records say."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from dynlib.papers.sampling import Config
from dynlib.papers.sampling_interpolate import reach
from dynlib.records import Record
from dynlib.student import beyond_chance, half_width
from dynlib.tasks import TASKS

GAMMA = 1.0  # of the profile, and of every run that does not name another
GAMMAS = (0.3, GAMMA, 3.0)
SIGMA = 1.0  # likewise; the released start, 3, hardly moves in a few hundred steps
# What a task changes in the recipe of the profile, which is that of segmentation.
RECIPES = {
    "segmentation": {},
    "detection": {
        "dataset": "bccd",
        "size_px": 128,
        "batch_size": 4,
        "epochs": 8,
        "lr": 0.005,  # at 0.02 the loss of the dense detector is soon no number
        "warmup_epochs": 1.0,
    },
    "classification": {
        "dataset": "imagenette224",
        "train_images": 2000,
        "size_px": 64,
        "batch_size": 25,
    },
}
DENSE = "dense"
FAMILIES = ("stochastic", "deterministic", "uniform")  # in the paper's order
# By name, the fields of the method that differ from the profile's.
RUNS: dict[str, dict] = {DENSE: {"density": 1.0}}
RUNS |= {f"uniform, density {d}": {"sampling": "uniform", "density": d} for d in (0.25, 0.5)}
RUNS |= {f"deterministic, gamma {g}": {"sampling": "deterministic", "gamma": g} for g in GAMMAS}
RUNS |= {f"stochastic, gamma {g}": {"gamma": g} for g in GAMMAS}
RUNS |= {kind: {"interpolation": kind} for kind in ("convolution", "average", "zeros", "reuse")}
RUNS |= {
    "rbf, sigma 3": {"sigma": 3.0},
    "no grid": {"grid": None},
    "one mask": {"masks": 1},
    "three masks": {"masks": 3},
}
for share in (0.25, 0.5):
    RUNS |= {f"pruned {share}": {"pruned": share, "density": 1.0}, f"sampled, pruned {share}": {"pruned": share}}
MAIN = f"stochastic, gamma {GAMMA}"  # the default of everything: RBF, two masks, grid
ASKED = {  # the runs of each task that the chapter asks for
    "segmentation": tuple(RUNS),
    # Of uniform sampling a quarter: what a detector can take, see sampling_uniform.shrink_stem.
    "detection": (DENSE, "uniform, density 0.25", f"deterministic, gamma {GAMMA}", MAIN),
    "classification": (DENSE, "uniform, density 0.5", MAIN, "zeros"),
}


class Exhibit(NamedTuple):
    """A table of the paper from our records."""

    task: str
    title: str
    rows: dict[str, str]  # its words for a row, and the name of our run
    said: str  # of the paper's numbers, which could not be obtained


EXHIBITS = (
    Exhibit(
        "segmentation",
        "Figure 4 as a table, CamVid",
        {name: name for name in RUNS if name == DENSE or name.partition(",")[0] in FAMILIES},
        "a clear gain over deterministic and a very clear one over uniform sampling at every cost",
    ),
    Exhibit("detection", "Figure 4 as a table, BCCD", {name: name for name in ASKED["detection"]}, "the same"),
    Exhibit(
        "segmentation",
        "Table 1: the interpolation, CamVid",
        {"RBF from sigma 1, ours": MAIN, "RBF from sigma 3, released": "rbf, sigma 3"}
        | {"plain convolution": "convolution", "average pooling": "average"},
        "at comparable accuracy the RBF needs less computation than the other two",
    ),
    Exhibit(
        "segmentation",
        "Table 2: no interpolation, CamVid",
        {"interpolation, default": MAIN, "fill zeros": "zeros", "reuse features": "reuse"},
        "both replacements are clearly worse",
    ),
    Exhibit(
        "segmentation",
        "Table 3: the grid prior, CamVid",
        {"with, default": MAIN, "without": "no grid"},
        "accuracy changes little, training becomes more stable",
    ),
    Exhibit(
        "segmentation",
        "Figure 3: the integrations, CamVid",
        {"one mask": "one mask", "two masks (b), default": MAIN, "three masks": "three masks"},
        "one mask saves most and is least accurate; (b) is best",
    ),
    Exhibit(
        "classification",
        "Table 4: classification, Imagenette",
        {"dense": DENSE, "uniform": "uniform, density 0.5", "sampled": MAIN, "without interpolation": "zeros"},
        "no significant advantage on classification, and removing the interpolation changes little",
    ),
    Exhibit(
        "segmentation",
        "Table 6: pruning, and sampling on top, CamVid",
        {"dense": DENSE, "sampled": MAIN}
        | {f"{share:.0%} pruned": f"pruned {share}" for share in (0.25, 0.5)}
        | {f"{share:.0%} pruned, sampled": f"sampled, pruned {share}" for share in (0.25, 0.5)},
        "with sampling it is better than pruning alone at every ratio tried",
    ),
)


def configs(task: str) -> dict[str, Config]:
    """The settings of every run that a task is asked for, by name."""
    return {name: Config(**{"gamma": GAMMA, "sigma": SIGMA} | RUNS[name]) for name in ASKED[task]}


def command(task: str, run: str, seed: int = 0) -> str:
    """What makes a record."""
    given = RECIPES[task] | RUNS[run]
    values = (f" -p {name}={'null' if value is None else value}" for name, value in given.items())
    return f"python -m dynlib train sampling --profile public --data-root DIR{''.join(values)} --seed {seed}"


# ------------------------------------------------------------------------------------------------- what the records say

METRICS = {task: TASKS[task].metric for task in RECIPES}
Found = Mapping[str, Sequence[Record]]  # records of a task by the name of the run, one a seed


def score(run: Record, metric: str) -> float:
    """The figure of a run, mean over the seeds of the masks where these are random."""
    return run.metrics.get(f"{metric}_mean", run.metrics[metric])


def macs(run: Record) -> int:
    """MACs of stem and stages for one image, at the densities of the held-out images where there are masks."""
    return run.metrics["macs_backbone"]


def curve(found: Found, family: str, metric: str, seed: int, end: str | None = DENSE) -> list[tuple[int, float]]:
    """(MACs, score) of a family's runs of one seed, and of the dense network that every family ends in.

    A family is what the names of its runs begin with. Without an `end`, its runs alone.
    """
    names = [name for name in found if name.startswith(family) or name == end]
    return sorted((macs(run), score(run, metric)) for name in names for run in found[name] if run.seed == seed)


def at(points: Sequence[tuple[int, float]], cost: float) -> float | None:
    """The score of a curve at a cost, along straight lines; None beyond its ends."""
    for (low, first), (high, last) in pairwise(points):
        if low <= cost <= high:
            return last if high == low else first + (last - first) * (cost - low) / (high - low)
    return None


class Order(NamedTuple):
    """What the paper says of two ways, and by how much ours differ at equal cost."""

    claim: str
    gaps: tuple[float, ...]  # positive as the paper has it; a fraction, one a seed
    verdict: str


class Claim(NamedTuple):
    """A comparison of the paper: some runs, each against the curve of a family at the run's own cost."""

    words: str
    runs: str  # how their names begin
    against: str  # the family
    better: bool | None  # whether the runs are to be the better ones; None: alike


_STOCHASTIC, _DETERMINISTIC, _UNIFORM = FAMILIES
_LEARNED = (
    Claim("stochastic above deterministic", _DETERMINISTIC, _STOCHASTIC, False),
    Claim("stochastic above uniform", _STOCHASTIC, _UNIFORM, True),
    Claim("deterministic above uniform", _DETERMINISTIC, _UNIFORM, True),
)
CLAIMS = {
    "segmentation": (
        *_LEARNED,
        *(Claim(f"RBF above {kind}", kind, _STOCHASTIC, False) for kind in ("convolution", "average")),
        *(Claim(f"interpolation above {kind}", kind, _STOCHASTIC, False) for kind in ("zeros", "reuse")),
        Claim("grid or none: alike", "no grid", _STOCHASTIC, None),
        *(Claim(f"two masks above {count}", f"{count} mask", _STOCHASTIC, False) for count in ("one", "three")),
        Claim("pruned and sampled above pruned", "sampled, pruned", "pruned", True),
    ),
    "detection": _LEARNED,
    "classification": (
        Claim("stochastic or uniform: alike", _STOCHASTIC, _UNIFORM, None),
        Claim("interpolation or none: alike", "zeros", _STOCHASTIC, None),
    ),
}


def orders(found: Found, task: str) -> list[Order]:
    """What the paper says of a task, and what our runs say of it."""
    gaps = [(claim, tuple(_gaps(found, claim, METRICS[task]))) for claim in CLAIMS[task]]
    return [Order(claim.words, of, verdict(of, claim.better is None)) for claim, of in gaps]


def _gaps(found: Found, claim: Claim, metric: str) -> list[float]:
    """One a seed: each of the claim's runs against the curve at its cost, where that reaches; their mean.

    Only what every seed of the claim's runs has is compared, so that seeds differ by chance alone. Runs of one seed
    share first weights and order of the data and are no independent draws.
    """
    seeds = {run.seed for name, runs in found.items() if name.startswith(claim.runs) for run in runs}
    whole = {name: runs for name, runs in found.items() if seeds <= {run.seed for run in runs}}
    result = []
    for seed in sorted(seeds):
        points, line = curve(whole, claim.runs, metric, seed, end=None), curve(whole, claim.against, metric, seed)
        levels = [(reached, at(line, cost)) for cost, reached in points]
        gaps = [reached - level for reached, level in levels if level is not None]
        result += [fmean(gaps) * (-1 if claim.better is False else 1)] if gaps else []
    return result


def verdict(gaps: Sequence[float], alike: bool = False) -> str:
    """What gaps decide, one a seed: a mean beyond chance, which takes two at least; or that the sides are `alike`."""
    if not gaps:
        return "no runs at a cost that both sides reach"
    if len(gaps) == 1:
        return "one seed, undecided"
    if not beyond_chance(gaps):
        return f"no difference beyond {100 * half_width(gaps):.1f} points seen" if alike else "undecided"
    if alike:
        return "not confirmed: they differ"
    return "confirmed" if fmean(gaps) > 0 else "not confirmed: the reverse"


def levels(found: Found, exhibit: Exhibit) -> dict[str, list[float]]:
    """What uniform sampling reaches at the cost of each run with masks, by row, on the curve of the run's seed."""

    def reached(run: Record) -> float | None:
        at_cost = at(curve(found, _UNIFORM, METRICS[exhibit.task], run.seed), macs(run))
        return at_cost if "density" in run.metrics else None

    rows = exhibit.rows.items()
    return {row: [value for run in found[name] if (value := reached(run)) is not None] for row, name in rows}


def against_uniform(found: Found, task: str) -> str:
    """By how many points the stochastic runs, a price each, lie from what uniform sampling reaches at their cost."""
    told = []
    for name in (name for name in found if name.startswith(_STOCHASTIC) and found[name]):
        exhibit = Exhibit(task, "", {name: name}, "")
        reached = levels(found, exhibit)[name]
        if len(reached) == len(found[name]):
            gap = 100 * (fmean(score(run, METRICS[task]) for run in found[name]) - fmean(reached))
            told.append(f"{name.partition(', ')[2]}: {gap:+.1f} points (n = {len(reached)})".replace("-", "−"))
    return f"Stochastic sampling beside a smaller image of the same cost, by price: {', '.join(told)}." if told else ""


def plane(found: Found, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Figure 4: for each way of sampling its points (MACs, score), means over seeds; the dense network apart."""
    points = {
        name: (fmean(macs(run) for run in runs), fmean(score(run, metric) for run in runs))
        for name, runs in found.items()
        if runs
    }
    first, *rest = ([point for name, point in points.items() if name.startswith(family)] for family in FAMILIES)
    families = {FAMILIES[0]: first, DENSE: [points[DENSE]] if DENSE in points else []}
    return families | dict(zip(FAMILIES[1:], rest, strict=True))


def sigma_words(runs: Sequence[Record]) -> str:
    """What the RBF has learned, over all masks of some runs of `SIGMA` at the start; nothing where there are none."""
    sigmas = [sigma for run in runs for sigma in run.metrics["sigma_by_mask"]]
    if not sigmas:
        return ""
    low, high = min(sigmas), max(sigmas)
    default = Config()
    far, near = (reach(sigma, default.window, default.epsilon) for sigma in (low, high))
    counted = f"{near}" if near == far else f"{near} to {far}"
    return (
        f"The sigmas of {MAIN}, {SIGMA:g} at the start, ended between {low:.2f} and {high:.2f}. "
        f"So a lone sample reaches {counted} positions along a row, of {default.window // 2} in the window."
    )


def notes(found: Found, exhibit: Exhibit) -> list[str]:
    """What the paper says of a table; and, for each of its runs that has no record, what makes it."""
    without = [name for name in exhibit.rows.values() if not found[name]]
    lacking = [f"No record yet of {name}: `{command(exhibit.task, name)}`." for name in without]
    return [f"Claimed: no numbers could be obtained; in words: {exhibit.said}.", *lacking]
