"""What one could run: the plain network in several forms, the controls one would try first, and the methods.

`data/surveys/contenders.csv` names them. Each stands on the network that it was timed on, one picture at a time on one
thread, and against the fastest float32 form of that same network. One without a record is left out until it is there.
"""

from pathlib import Path

import pandas as pd

from dynlib import backbones, cost
from dynlib.book.report.claims import orders, read
from dynlib.book.report.compare import CONTRADICTED, NOT_TESTED, SUPPORTED, compare
from dynlib.book.report.frame import latencies
from dynlib.errors import InputError
from dynlib.paths import CONTENDERS, RESULTS

COLUMNS = ["name", "network", "key", "query", "dtype", "side", "order", "page"]
SIDES = ("eager", "fastest", "smaller", "thinner", "quantised", "method")


def contenders(path: Path = CONTENDERS) -> pd.DataFrame:
    """A line a contender that has a record: its name, network, key, side and dtype, and for one picture what follows.

    `ms`; `speedup` over the fastest float32 form of the network, with its quartiles `low` and `high` where both were
    timed in turns (else NaN); `macs_ratio`; `verdict` on its accuracy beside its fair control, from the line of
    `orders.csv` that `order` names (`-` before it: the order claims the opposite), and the `page` where that stands;
    `path` of the record.

    The `side` of a record is what the contender is: the network `eager`, `fastest` or `quantised`, the `method` or what
    it makes for a `thinner` network, or the network on a `smaller` picture, whose time is compared with the fastest
    form's in another record.
    Raises InputError for an unknown side, and where more than one record answers a query.
    """
    lines = []
    for line in read(path, COLUMNS).itertuples(index=False):
        if line.side not in SIDES:
            raise InputError(f"{path.name}: {line.name} has the side {line.side!r}; allowed: {', '.join(SIDES)}")
        found = _asked(line)
        if len(found) > 1:
            raise InputError(f"{path.name}: {line.name} on {line.network} has {len(found)} records; ask for one")
        for run in found.itertuples():
            lines.append({"name": line.name, "network": line.network, "key": line.key, "side": line.side})
            lines[-1] |= {"dtype": line.dtype, **_timed(line, run), "order": line.order, "page": line.page}
            lines[-1] |= {"verdict": _verdict(line.order), "path": run.path.relative_to(RESULTS).as_posix()}
    return pd.DataFrame(lines)


def _asked(line) -> pd.DataFrame:
    frame = latencies(line.key, dtype=line.dtype)
    return frame if frame.empty else frame.query(f"({line.query}) and batch == 1 and threads == 1")


def _timed(line, run) -> dict[str, float]:
    """Time, speed-up and MAC ratio of what `side` means of a record."""
    plain = min(ms for name, ms in run.variants_ms.items() if not name.endswith("_int8"))
    nan = {"low": float("nan"), "high": float("nan")}
    if line.side in ("thinner", "method"):
        # against int8 the record's own ratio is not the one asked for: that of the medians is
        apart = {"speedup": plain / run.method_ms} | nan
        own = {"speedup": run.speedup, "low": run.speedup_iqr[0], "high": run.speedup_iqr[1]}
        return {"ms": run.method_ms, "macs_ratio": run.macs_ratio} | (own if plain == run.static_ms else apart)
    if line.side == "smaller":
        whole = latencies(line.key).query(f"arch == '{run.arch}' and batch == 1 and threads == 1 and shares.isna()")
        largest = whole.loc[whole["size"].idxmax()]
        ratio = _macs(run.arch, int(largest["size"])) / _macs(run.arch, int(run.size))
        return {"ms": run.static_ms, "speedup": largest.static_ms / run.static_ms, "macs_ratio": ratio} | nan
    quantised = [ms for name, ms in run.variants_ms.items() if name.endswith("_int8")]
    ms = {"eager": run.variants_ms["eager"], "fastest": plain, "quantised": min(quantised, default=plain)}[line.side]
    return {"ms": ms, "speedup": plain / ms, "macs_ratio": 1.0} | nan


def _macs(arch: str, size_px: int) -> int:
    return cost.closed_form(backbones.build(arch), size_px).macs


def _verdict(order: str) -> str:
    if not order:
        return NOT_TESTED
    name = order.removeprefix("-")
    (line,) = orders().query("id == @name").itertuples()
    found = compare(line.key, line.above, line.below, line.metric, line.cost).verdict
    return found if name == order else {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}.get(found, found)
