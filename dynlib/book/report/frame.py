"""All records of a paper as one table, read once; each training is named by the study and the row that asked for it."""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from dynlib.book import campaign, records
from dynlib.errors import InputError
from dynlib.paths import RESULTS

COSTS = ("macs_expected", "expected_macs", "macs")  # of the mean image: the first that a record has


@lru_cache
def trainings(key: str) -> pd.DataFrame:
    """A line a training record of one paper that a study asks for.

    Columns: study, row, seed, every metric that is one number (accuracies are fractions, costs integer MACs), `cost`,
    the multiply-accumulates of the mean image, `path` of the record's file, and `record` itself. A record that no study
    names is not there. Where studies share a configuration, its records stand under each of them.
    """
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in rows(key):
        asked.setdefault(row.digest, []).append((row.study, row.name))
    lines = []
    for record in records.find(key, "training", campaign.PROFILE):
        single = {name: value for name, value in record.metrics.items() if isinstance(value, int | float)}
        cost = next(record.metrics[name] for name in COSTS if name in record.metrics)
        rest = {"seed": record.seed, "cost": cost, "path": records.path_of(record), "record": record}
        lines += [{"study": study, "row": name, **single, **rest} for study, name in asked.get(record.config_hash, ())]
    return pd.DataFrame(lines, columns=None if lines else ["study", "row", "seed", "cost", "path", "record"])


@lru_cache
def latencies(key: str, dtype: str = "float32", threads: int = 1, folder: Path = RESULTS) -> pd.DataFrame:
    """A line a latency record of one paper: arch, size, batch, threads, shares, octaves, metrics, device, path, record.

    Those of one number format and so many threads. Every setting of the method stands under its own name.
    """
    lines = []
    for record in records.find(key, "latency", folder=folder):
        if (record.metrics["dtype"], record.metrics["threads"]) != (dtype, threads):
            continue
        asked = {name: value for name, value in record.config.items() if name != "method"}
        rest = {"device": record.environment["device"], "path": records.path_of(record, folder), "record": record}
        lines.append({"octaves": 0.0} | record.config["method"] | asked | record.metrics | rest)
    return pd.DataFrame(lines)


@lru_cache
def _all_rows() -> tuple[campaign.Row, ...]:
    return tuple(campaign.rows())


def rows(key: str, study: str | None = None) -> list[campaign.Row]:
    """The rows that the studies of a paper ask for, in their order. Raises InputError for an unknown study."""
    found = [row for row in _all_rows() if row.key == key]
    if study is not None and study not in {row.study for row in found}:
        known = dict.fromkeys(row.study for row in found)
        raise InputError(f"study {study!r} of {key} is unknown; allowed: {', '.join(known)}")
    return [row for row in found if study in (None, row.study)]


def summary(key: str, study: str, metric: str = "top1") -> pd.DataFrame:
    """A line a row of a study, in its order, also where nothing is trained yet.

    Columns: row, `mean` and `std` of the metric over the seeds (kept units; NaN where there are none), seeds, `wanted`
    seeds, `cost` in MACs, `minutes` of one CPU core that a missing run takes.
    """
    frame = trainings(key)
    lines = []
    for row in rows(key, study):
        found = frame[(frame.study == study) & (frame.row == row.name)]
        values = found[metric] if metric in found and len(found) else pd.Series(dtype=float)
        line = {"row": row.name, "mean": values.mean(), "std": values.std(), "seeds": len(values), "wanted": row.seeds}
        lines.append(line | {"cost": found.cost.mean() if len(found) else float("nan"), "minutes": row.minutes})
    return pd.DataFrame(lines)
