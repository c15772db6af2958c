"""How much accuracy a method keeps, over what it still costs: ours on common ground, and apart from it as published."""

import math
from pathlib import Path

import pandas as pd

from dynlib import settings
from dynlib.book.report.claims import POWER, claims, read
from dynlib.book.report.compare import paired
from dynlib.book.report.frame import latencies, rows, trainings
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.paths import COMMON, PUBLISHED

STUDY = "applied resnet20, 2 epochs"  # a study of this name, of any paper, joins the comparison
PLAIN = "octconv", "vanilla"  # the row of it that is the network itself
NETWORK, SIZE = "cifar_resnet20", 32
ROWS = ["key", "row", "label", "side"]
COLUMNS = ["name", "network", "key", "table", "metric", "method", "plain"]


def kept(path: Path = COMMON) -> pd.DataFrame:
    """A line a row of the studies `STUDY` that has records: one network, one data set, as many epochs, as many seeds.

    Columns: key, row, its `label` and `side` (`method`, or what one would try first: `control`), as the file at `path`
    has them; `points` of top-1 above the plain network, a fraction, paired by seed, its 95 % interval `low` to `high`,
    and the `verdict` on "loses nothing": supported where the interval lies above 0, contradicted below; `seeds`;
    `macs`, the share of the plain network's that the mean image costs; `ms`, where the row's setting was timed on this
    network, one picture on one thread, else NaN. Raises InputError for a row that no study has.
    """
    plain, lines = _top1(*PLAIN), []
    for asked in read(path, ROWS).itertuples(index=False):
        row = next((row for row in rows(asked.key, STUDY) if row.name == asked.row), None)
        if row is None:
            raise InputError(f"{path.name}: {asked.row!r} is no row of {STUDY!r} of {asked.key}")
        found = _top1(row.key, row.name)
        seeds = plain.index.intersection(found.index)
        if seeds.empty:
            continue
        of = paired((found.top1 - plain.top1)[seeds])
        line = asked._asdict() | {"points": of.mean, "low": of.low, "high": of.high, "verdict": of.verdict}
        lines.append(line | {"seeds": of.seeds, "macs": found.cost.mean() / plain.cost.mean(), "ms": _ms(row)})
    return pd.DataFrame(lines)


def plain_ms() -> float:
    """Milliseconds of the plain network of `kept` in its fastest form; NaN where no record has timed it."""
    times = [run.static_ms for key in METHODS for run in _timed(key, SIZE).itertuples()]
    return min(times, default=math.nan)


def published(path: Path = PUBLISHED) -> pd.DataFrame:
    """What papers print of the same: name, network, key, metric; `points` above their plain network, a fraction, and
    `macs`, the share of its cost, both as printed.
    """
    frame = read(path, COLUMNS)
    lines = []
    for line in frame.itertuples(index=False):
        printed = claims(line.key, line.table)
        printed = printed[printed.value != ""].set_index(["row", "metric"])
        ours, base = (
            {
                name: float(printed.value[row, name]) / 10 ** POWER[printed.unit[row, name]]
                for name in (line.metric, "macs")
            }
            for row in (line.method, line.plain)
        )
        sign = -1 if line.metric.endswith("error") else 1
        points = sign * (ours[line.metric] - base[line.metric])
        lines.append({"name": line.name, "network": line.network, "key": line.key, "metric": line.metric})
        lines[-1] |= {"points": points, "macs": ours["macs"] / base["macs"]}
    return pd.DataFrame(lines)


def _top1(key: str, name: str) -> pd.DataFrame:
    """top1 and cost by seed of one row of the common study."""
    frame = trainings(key)
    return frame[(frame.study == STUDY) & (frame.row == name)].set_index("seed")[["top1", "cost"]]


def _timed(key: str, size: int) -> pd.DataFrame:
    frame = latencies(key)
    return frame[(frame.arch == NETWORK) & (frame["size"] == size) & (frame.batch == 1)]


def _ms(row) -> float:
    """Of the method at the row's setting; NaN where it was not timed, or where the time hangs on what it chooses."""
    size = row.recipe.size_px or SIZE
    for run in _timed(row.key, size).itertuples():
        if run.record.config["method"] == settings.described(row.config) and "shares" not in run.record.config:
            return run.method_ms
    return math.nan
