"""What the records of sampled networks say: each order of the paper at equal cost, and the answer in words."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from dynlib.book.legacy.sampling_evidence import DATA, DENSE, FAMILIES, MAIN, METRICS, SIGMA, Exhibit, Found
from dynlib.book.legacy.student import beyond_chance, half_width
from dynlib.book.records import Record
from dynlib.papers.sampling import Config
from dynlib.papers.sampling.interpolate import reach


def score(run: Record, metric: str) -> float:
    """The figure of a run, mean over the seeds of the masks where these are random."""
    return run.metrics.get(f"{metric}_mean", run.metrics[metric])


def macs(run: Record) -> int:
    """MACs of stem and stages for one image, at the densities of the held-out images where there are masks."""
    return run.metrics["macs_backbone"]


def curve(found: Found, family: str, metric: str, seed: int) -> list[tuple[int, float]]:
    """(MACs, score) of a family's runs of one seed, up to the dense network, in which every family ends.

    A family is what the names of its runs begin with. Runs that cost more than the dense network are left out.
    """
    names = [name for name in found if name.startswith(family) or name == DENSE]
    runs = [run for name in names for run in found[name] if run.seed == seed]
    end = min((macs(run) for run in found.get(DENSE, ()) if run.seed == seed), default=math.inf)
    return sorted((macs(run), score(run, metric)) for run in runs if macs(run) <= end)


def at(points: Sequence[tuple[int, float]], cost: float) -> float | None:
    """The score of a curve at a cost, along straight lines; None beyond its ends."""
    for (low, first), (high, last) in pairwise(points):
        if low <= cost <= high:
            return last if high == low else first + (last - first) * (cost - low) / (high - low)
    return None


class Order(NamedTuple):
    """What the paper says of two ways, and by how much ours differ at equal cost."""

    claim: str
    gaps: tuple[float, ...]  # positive as the paper has it; a fraction, one a seed, mean over the runs
    by_run: dict[str, list[float] | str]  # likewise of each run, by what tells it from the others, or why there is none
    verdict: str

    @property
    def each(self) -> str:
        """The runs in words, points, where there are several."""
        told = [f"{name}: {of if isinstance(of, str) else points(of)}" for name, of in self.by_run.items()]
        return "; ".join(told) if len(told) > 1 else ""


class Claim(NamedTuple):
    """A comparison of the paper: some runs, each against the curve of a family at the run's own cost."""

    words: str
    runs: str  # how their names begin
    against: str  # the family
    better: bool | None  # whether the runs are to be the better ones; None: alike


_STOCHASTIC, _DETERMINISTIC, _UNIFORM = FAMILIES
ABOVE_UNIFORM = "stochastic above uniform"
NO_RECORD = "no record yet"
_LEARNED = (
    Claim("stochastic above deterministic", _STOCHASTIC, _DETERMINISTIC, True),
    Claim(ABOVE_UNIFORM, _STOCHASTIC, _UNIFORM, True),
    Claim("deterministic above uniform", _DETERMINISTIC, _UNIFORM, True),
)
CLAIMS = {
    "segmentation": (
        *_LEARNED,
        *(Claim(f"RBF above {kind}", kind, _STOCHASTIC, False) for kind in ("convolution", "average")),
        *(Claim(f"interpolation above {kind}", kind, _STOCHASTIC, False) for kind in ("zeros", "reuse")),
        Claim("grid or none: alike", "no grid", _STOCHASTIC, None),
        Claim("two masks above one", "one mask", _STOCHASTIC, False),
        Claim("two masks above three", "three masks", _STOCHASTIC, False),
        Claim("pruned and sampled above pruned", "sampled, pruned", "pruned", True),
    ),
    "detection": _LEARNED,
    "classification": (
        Claim("stochastic or uniform: alike", _STOCHASTIC, _UNIFORM, None),
        Claim("interpolation or none: alike", "zeros", _STOCHASTIC, None),
    ),
}


def points(gaps: Sequence[float]) -> str:
    """The mean of gaps, one a seed, in points; with a star where it is beyond chance."""
    return f"{100 * fmean(gaps):+.1f}{'*' * beyond_chance(gaps)}".replace("-", "−")


def orders(found: Found, task: str) -> list[Order]:
    """What the paper says of a task, and what our runs say of it."""
    return [_order(found, claim, METRICS[task]) for claim in CLAIMS[task]]


def _order(found: Found, claim: Claim, metric: str) -> Order:
    """Each of the claim's runs against the curve at its cost, and their mean over the runs that every seed has.

    So seeds differ by chance alone. Runs of one seed share first weights and order of the data and are no independent
    draws.
    """
    measured = {name: runs for name, runs in found.items() if name.startswith(claim.runs) and runs}
    seeds = sorted({run.seed for runs in measured.values() for run in runs})
    beside = {name: _beside(found, name, claim, metric) for name in measured}
    whole = [of for of in beside.values() if len(of) == len(seeds)]
    gaps = tuple(fmean(of[seed] for of in whole) for seed in seeds) if whole else ()
    by_run = {
        name.removeprefix(claim.runs).strip(" ,"): list(of.values()) or _why_none(found, measured[name], claim)
        for name, of in beside.items()
    }
    every = [run for runs in measured.values() for run in runs]
    told = verdict(gaps, claim.better is None) if gaps else _why_none(found, every, claim)
    return Order(claim.words, gaps, by_run, told)


def _beside(found: Found, name: str, claim: Claim, metric: str) -> dict[int, float]:
    """By seed, how far a run lies from the other side's curve at its cost, where that reaches; as the paper has it.

    The curve holds what has every seed of the run.
    """
    seeds = {run.seed for run in found[name]}
    known = {other: runs for other, runs in found.items() if seeds <= {run.seed for run in runs}}
    levels = {run.seed: at(curve(known, claim.against, metric, run.seed), macs(run)) for run in found[name]}
    sign = -1 if claim.better is False else 1
    scores = {run.seed: score(run, metric) for run in found[name]}
    return {seed: sign * (scores[seed] - level) for seed, level in levels.items() if level is not None}


def _why_none(found: Found, runs: Sequence[Record], claim: Claim) -> str:
    """Why runs cannot be compared with the other side of a claim."""
    others = [run for name, of in found.items() if name.startswith(claim.against) for run in of]
    limit = max(map(macs, found.get(DENSE, ())), default=math.inf)
    sides = {claim.runs: runs, claim.against: others}
    for who, side in sides.items():
        if not side:
            return f"{NO_RECORD} of {who}"
    for who, side in sides.items():
        if min(map(macs, side)) > limit:
            return f"{who} costs more than the dense network"
    if max(map(macs, runs)) < min(map(macs, others)):
        return f"{claim.runs} costs less than all of {claim.against}"
    return "no cost that every seed of both sides reaches"


def verdict(gaps: Sequence[float], alike: bool = False) -> str:
    """What gaps decide, one a seed: a mean beyond chance, which takes two at least; or that the sides are `alike`."""
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


def beside_smaller(found: Mapping[str, Found]) -> str:
    """Whether stochastic sampling holds its accuracy, price by price; a sentence for each task that has runs."""
    told = []
    for task in ("segmentation", "detection"):
        (order,) = [of for of in orders(found[task], task) if of.claim == ABOVE_UNIFORM]
        known = {price: gaps for price, gaps in order.by_run.items() if not isinstance(gaps, str)}
        if known and found[task][DENSE]:
            sure = [fmean(gaps) > 0 for gaps in known.values() if beyond_chance(gaps)]
            dense = fmean(map(macs, found[task][DENSE]))
            costs = {price: fmean(map(macs, found[task][f"{_STOCHASTIC}, {price}"])) for price in known}
            gaps = ", ".join(f"{points(of)} at {100 * costs[price] / dense:.0f} %" for price, of in known.items())
            seeds = max(map(len, known.values()))
            words = f"at {len(known)} prices **above beyond chance at {sum(sure)}, below at {len(sure) - sum(sure)}**"
            words = words if seeds > 1 else "one seed, which decides nothing"
            told.append(f"On {DATA[task]}, {words}: by share of the dense cost {gaps} (points, n = {seeds}).")
    text = " ".join(told) or "Accuracy: no record yet."
    return text + " A star: beyond chance." * ("* at" in text)


def released_words(printed: Mapping[str, Mapping[str, float]]) -> str:
    """The same of the released models, by row their `macs` (G) and `map` (%) as printed."""
    uniform = sorted((of["macs"], of["map"]) for row, of in printed.items() if "gamma" not in row)
    sampled = {row.rpartition(", ")[2]: of for row, of in printed.items() if "gamma" in row}
    gaps = {price: of["map"] - at(uniform, of["macs"]) for price, of in sampled.items()}
    told = ", ".join(f"{gap:+.1f} points ({price})" for price, gap in gaps.items())
    return f"Claimed, stochastic above uniform sampling at equal cost, on straight lines between the sizes: {told}."


def summary(found: Mapping[str, Found]) -> str:
    """The orders of every task by what became of them, as a list."""
    lines = []
    for task, of in found.items():
        kinds: dict[str, list[str]] = {}
        for order in orders(of, task):
            became = NO_RECORD if order.verdict.startswith(NO_RECORD) else order.verdict
            kinds.setdefault(became, []).append(order.claim)
        told = "; ".join(f"**{verdict}**: {', '.join(claims)}" for verdict, claims in kinds.items())
        lines.append(f"- {DATA[task]}, {task}. {told}.")
    return "\n".join(lines)


def plane(found: Found, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Figure 4: for each way of sampling its points (MACs, score), means over seeds, up to the dense network."""
    points = {
        name: (fmean(macs(run) for run in runs), fmean(score(run, metric) for run in runs))
        for name, runs in found.items()
        if runs
    }
    dense = [points[DENSE]] if DENSE in points else []
    families = {of: [point for name, point in points.items() if name.startswith(of)] for of in FAMILIES}
    first, *rest = ((of, [*line, *dense] if line else []) for of, line in families.items())
    return dict([first, (DENSE, dense), *rest])


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
