"""The orders of a paper as its chapter shows them: what was claimed, the verdict, and the records behind it."""

import pandas as pd

from dynlib.book.report.claims import orders, parts
from dynlib.book.report.compare import verdicts
from dynlib.book.report.frame import rows, trainings
from dynlib.book.report.table import Linked, badge, interval
from dynlib.paths import RESULTS


def proofs_at(key: str) -> str:
    """The id of the table that `proofs` makes of a paper; the verdicts of `judged` lead there."""
    return f"tab-{key}-proofs"


def judged(key: str, page: str = "") -> pd.DataFrame:
    """A line an order of a paper: claim, source, verdict, points, 95 % interval, seeds; no column without a value.

    A verdict leads to its records, on the chapter's `page` where that is another one.
    """
    asked, lines = orders(key).set_index("id"), []
    known = {f"{row.study}/{row.name}": row.seeds for row in rows(key)}
    for of in verdicts(key).itertuples():
        wanted = min(known[name] for side in _sides(asked.loc[of.id]) for name in side)
        line = {"claim": of.claim, "source": of.source, "verdict": badge(of.verdict, f"{page}#{proofs_at(key)}")}
        line |= {"points": 100 * of.mean, "95 % interval": interval(of.low, of.high)}
        lines.append(line | {"seeds": f"{of.seeds} of {wanted}"})
    return pd.DataFrame(lines).dropna(axis=1, how="all")


def proofs(key: str) -> pd.DataFrame:
    """A line an order of a paper, with the records of both sides: each row of a study, and its seeds as links."""
    frame = trainings(key)
    at = {name: part.sort_values("seed") for name, part in frame.groupby(frame.study + "/" + frame.row)}

    def cell(names: list[str]) -> tuple[str | Linked, ...]:
        parts: list[str | Linked] = []
        for name in names:
            found = at.get(name, frame.head(0))
            parts.append(f"{name}:" if len(found) else f"{name}: none.")
            parts += [
                Linked(str(run.seed), f"../records/{run.path.relative_to(RESULTS)}") for run in found.itertuples()
            ]
        return tuple(parts)

    lines = []
    for order in orders(key).itertuples():
        above, below = _sides(order)
        lines.append({"claim": order.claim, "seeds of the one": cell(above), "seeds of the other": cell(below)})
    return pd.DataFrame(lines)


def _sides(order) -> list[list[str]]:
    """The rows of studies on both sides of an order, each once."""
    return [list(dict.fromkeys(part.row for part in parts(side))) for side in (order.above, order.below)]
