"""One comparison for the whole book: is A above B, at equal cost, beyond what the seeds explain?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from dynlib.book.report.claims import orders, parts
from dynlib.book.report.frame import rows, trainings
from dynlib.errors import InputError

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"
FEWEST = 3  # seeds for a verdict
LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """How far A lies above B, over the seeds that both have; differences in the metric's kept unit (fractions)."""

    verdict: str  # supported: the interval lies above 0; contradicted: below; undecided: across; not tested: few seeds
    seeds: int
    mean: float  # NaN where no seed has both
    low: float  # of the 95 % interval of the mean; infinite for fewer than two seeds
    high: float


def paired(differences: Sequence[float]) -> Comparison:
    """The verdict on differences, one a seed: Student's t, two-sided 95 %; those that are NaN do not count."""
    found = np.array([value for value in differences if not math.isnan(value)], dtype=float)
    if len(found) < 2:
        return Comparison(NOT_TESTED, len(found), found.mean() if len(found) else math.nan, -math.inf, math.inf)
    reach = stats.t.ppf((1 + LEVEL) / 2, len(found) - 1) * stats.sem(found)
    low, high = found.mean() - reach, found.mean() + reach
    verdict = SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED
    return Comparison(NOT_TESTED if len(found) < FEWEST else verdict, len(found), found.mean(), low, high)


def compare(key: str, above: str, below: str, metric: str = "top1", cost: str = "") -> Comparison:
    """Whether `above` lies above `below`, seed by seed; both are written as in `claims.orders`.

    Without `cost` the two are one point each. With `macs`, the curve of one is read at the costs of the other's points,
    by linear interpolation between its own and nowhere outside of them, and a seed's difference is the mean over these:
    at the points of the side that has fewer. Raises InputError for a row that no study has, and for several points
    without a cost.
    """
    sides = [_points(key, side, metric) for side in (above, below)]
    differences = []
    for seed in sorted(set(sides[0]) & set(sides[1])):
        a, b = (side[seed] for side in sides)
        if not cost and len(a) + len(b) > 2:
            raise InputError(f"{above!r} against {below!r}: a side of several points is compared over their cost")
        if not cost:
            differences.append(a[0][1] - b[0][1])
        elif len(a) <= len(b):
            differences.append(_mean_gap(a, b))
        else:
            differences.append(-_mean_gap(b, a))
    return paired(differences)


def _points(key: str, side: str, metric: str) -> dict[int, list[tuple[float, float]]]:
    """Of each seed the (cost, metric) of all points of a side; seeds that lack one of its rows are left out."""
    frame, known = trainings(key), {f"{row.study}/{row.name}" for row in rows(key)}
    found: list[dict[int, list[tuple[float, float]]]] = []
    for name, other, front in parts(side):
        if name not in known:
            raise InputError(f"{name!r} is no row of a study of {key}; allowed: {'; '.join(sorted(known))}")
        lines = frame[frame.study + "/" + frame.row == name]
        of = {}
        for line in lines.itertuples():
            if front:
                of[line.seed] = [(point["macs"], point[metric]) for point in line.record.metrics["rules"][front]]
            else:
                of[line.seed] = [(line.cost, getattr(line, other or metric))]
        found.append(of)
    common = set.intersection(*(set(of) for of in found))
    return {seed: sorted(point for of in found for point in of[seed]) for seed in common}


def _mean_gap(points: Sequence[tuple[float, float]], curve: Sequence[tuple[float, float]]) -> float:
    """How far points lie above a curve, on average over those within its costs; NaN where none is."""
    xs, ys = np.array(curve).T
    gaps = [y - np.interp(x, xs, ys, left=math.nan, right=math.nan) for x, y in points]
    return float(np.nanmean(gaps)) if not np.isnan(gaps).all() else math.nan


def verdicts(key: str | None = None) -> pd.DataFrame:
    """Every order that a paper claims, or of one paper: id, claim, source, verdict, seeds, mean, low, high."""
    lines = []
    for order in orders(key).itertuples(index=False):
        found = compare(order.key, order.above, order.below, order.metric, order.cost)
        lines.append({name: getattr(order, name) for name in ("id", "key", "claim", "source")} | asdict(found))
    return pd.DataFrame(lines)


def expect(words: str, holds: bool) -> None:
    """Stop the page where what its words say no longer holds; `words` is what they say."""
    if not holds:
        raise InputError(f"the page says {words!r}, which the records no longer bear out: rewrite the sentence")
