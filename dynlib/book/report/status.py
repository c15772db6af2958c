"""What has become of every table and figure of the papers: `data/claims/tables.csv`, judged by tests and records."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dynlib.book.report.claims import read
from dynlib.book.report.compare import CONTRADICTED, NOT_TESTED, SUPPORTED, UNDECIDED, verdicts
from dynlib.book.report.frame import latencies
from dynlib.errors import InputError
from dynlib.paths import CLAIMS

COLUMNS = ["key", "table", "part", "verdict", "proof", "page"]
EXACTLY = "regenerated exactly"
VERDICTS = EXACTLY, SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED
WEIGHT = CONTRADICTED, NOT_TESTED, UNDECIDED, SUPPORTED  # of several orders, the first of these that occurs


def tables(folder: Path = CLAIMS) -> pd.DataFrame:
    """A line a part of a table or figure: key, table, part, verdict, proof, page (chapter#anchor), all text.

    `proof` is one of

        page: WORDS          words that a `report.expect` of the chapter keeps true; the verdict is written beside it
        test: FILE::NAME     a test that does so
        orders: ID|ID        lines of `orders.csv`, judged over seeds
        latency: QUERY       records, by a query of `latencies`: claimed is that the method is faster
        (empty)              nothing was tried

    Raises InputError for a line that is none of these.
    """
    frame = read(folder / "tables.csv", COLUMNS)
    for line in frame.itertuples(index=False):
        kind = line.proof.partition(": ")[0]
        written = kind in ("page", "test")
        if kind not in ("page", "test", "orders", "latency", "") or written != (line.verdict in VERDICTS):
            raise InputError(
                f"tables.csv: {line.key}, {line.table}, {line.part} has the verdict {line.verdict!r} and "
                f"the proof {line.proof!r}; allowed: a verdict with page: or test:, or none with orders: or latency:"
            )
    return frame


def status(key: str | None = None) -> pd.DataFrame:
    """`tables` with every verdict filled in, of one paper where it is given."""
    frame = tables()
    judged = dict(verdicts()[["id", "verdict"]].itertuples(index=False))
    frame["verdict"] = [line.verdict or _judged(line, judged) for line in frame.itertuples(index=False)]
    return frame if key is None else frame[frame.key == key].reset_index(drop=True)


def summarised() -> pd.DataFrame:
    """`data/results/summary.csv`: the orders, one a line, then the tables and figures in the same columns."""
    found = status()
    number = found.groupby(["key", "table"]).cumcount() + 1
    names = (
        found.key + "-" + found.table.str.lower().str.replace(r"[^a-z0-9]+", "-", regex=True) + "-" + number.map(str)
    )
    lines = pd.DataFrame({"id": names, "key": found.key, "claim": found.part, "source": found.table})
    return pd.concat([verdicts(), lines.assign(verdict=found.verdict)], ignore_index=True)


def _judged(line, judged: dict[str, str]) -> str:
    kind, _, proof = line.proof.partition(": ")
    if kind == "orders":
        found = {judged[name] for name in proof.split("|")}
        return next(verdict for verdict in WEIGHT if verdict in found)
    return faster(latencies(line.key).query(proof).speedup_iqr) if kind == "latency" else NOT_TESTED


def faster(quartiles: Sequence[tuple[float, float]]) -> str:
    """Whether a method is faster in every record: both quartiles of the paired speed-up above 1, or both below."""
    found = [SUPPORTED if low > 1 else CONTRADICTED if high < 1 else UNDECIDED for low, high in quartiles]
    return next((verdict for verdict in WEIGHT if verdict in found), NOT_TESTED)
