"""A frame as a page shows it, and the paper's numbers beside ours."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from html import escape

import pandas as pd

from dynlib.book.report.claims import POWER, claims, printed
from dynlib.errors import InputError

DASH = "–"
MINUS = "\N{MINUS SIGN}"
NUMERIC = re.compile(r"|–|[+−<>]?\d.*")  # a cell that is set to the right


@dataclass(frozen=True)
class Linked:
    """A cell that leads somewhere; `kind` is a class of `book.css`, such as verdict."""

    text: str
    href: str  # as seen from the page
    kind: str = ""

    def __str__(self) -> str:
        """The words alone."""
        return self.text


@dataclass(frozen=True)
class Table:
    """A frame with a caption, an id to link to and a note; a notebook renders it, `print` gives plain text."""

    frame: pd.DataFrame
    caption: str
    label: str
    note: str

    def __repr__(self) -> str:
        """Plain text: caption, rows, note."""
        return "\n".join(filter(None, [self.caption, self.frame.to_string(index=False), self.note]))

    def _repr_html_(self) -> str:
        """A table that a keyboard can scroll and a screen reader walk, in the colours of the page, light or dark."""
        right = [
            c != self.frame.columns[0] and all(map(NUMERIC.fullmatch, map(str, self.frame[c]))) for c in self.frame
        ]
        kinds = ["number" if r else "text" for r in right]
        head = "".join(f'<th scope="col" class="{k}">{escape(c)}</th>' for c, k in zip(self.frame, kinds, strict=True))
        body = ""
        for first, *rest in self.frame.itertuples(index=False):
            cells = "".join(f'<td class="{k}">{_cell(v)}</td>' for v, k in zip(rest, kinds[1:], strict=True))
            body += f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>'
        note = f'<p class="note">{_code(self.note)}</p>' if self.note else ""
        place = f' id="{escape(self.label)}"' if self.label else ""
        return (
            f'<div class="results" tabindex="0" role="region" aria-label="{escape(self.caption)}"{place}>'
            f'<table class="dataframe"><caption>{_code(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
        )


def badge(verdict: str, href: str) -> Linked:
    """A verdict as a coloured word that links to its proof."""
    return Linked(verdict, href, f"verdict {verdict.replace(' ', '-')}")


def show(frame: pd.DataFrame, caption: str, label: str = "", note: str = "", **formats: str) -> Table:
    """A frame for display. `formats` are those of numeric columns, in Python's words: `mean=".1%"`, `cost=",.0f"`.

    Numbers without a format have as many digits as they need; what is missing is an en dash; a Linked cell stays one,
    and a tuple is a cell of several parts.
    """
    columns = {}
    for name in frame:
        form = formats.get(str(name), "")
        columns[str(name)] = [_text(value, form) for value in frame[name]]
    return Table(pd.DataFrame(columns), caption, label, note)


def interval(low: float, high: float) -> str | None:
    """The ends of an interval of fractions, in points; None where it has none."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}".replace("-", MINUS) if math.isfinite(high - low) else None


def beside(key: str, table: str, ours: Mapping[str, Mapping[str, float]], metrics: Mapping[str, str]) -> pd.DataFrame:
    """A table of the paper with ours beside it, a line a row: for each metric as claimed, and ours in the same digits.

    `ours` is {row as the claims spell it: {metric: value in kept units}}, `metrics` {metric: words for its columns}.
    Raises InputError for a row or metric that has no claim.
    """
    frame = claims(key, table)
    for row, of in ours.items():
        for metric in of:
            if not ((frame.row == row) & (frame.metric == metric)).any():
                raise InputError(f"{metric} of {row!r} has no claim in {table} of {key}")
    lines = []
    for row in frame.row.unique():
        line = {"row": row}
        for metric, words in metrics.items():
            found = frame[(frame.row == row) & (frame.metric == metric)]
            claim = found.iloc[0] if len(found) else None
            mine = ours.get(row, {}).get(metric)
            line[f"{words}, claimed"] = _claimed(claim)
            line[f"{words}, ours"] = DASH if mine is None else rounded(mine, claim.unit, claim.value)
        lines.append(line)
    return pd.DataFrame(lines)


def rounded(value: float, unit: str, like: str) -> str:
    """A kept value in a claim's unit, with as many decimals as `like` has, half up."""
    decimals = max(0, -Decimal(like).as_tuple().exponent)
    step = Decimal(1).scaleb(-decimals)
    return f"{Decimal(repr(float(value))).scaleb(POWER[unit]).quantize(step, ROUND_HALF_UP) + 0:f}".replace("-", MINUS)


def _claimed(claim: pd.Series | None) -> str:
    if claim is None:
        return DASH
    slip = "†" if "slip of the paper" in claim.note else ""
    return (claim.value.replace("-", MINUS) or printed(claim.note)) + slip


def _cell(value: str | Linked | tuple[str | Linked, ...]) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_cell, value))
    if not isinstance(value, Linked):
        return escape(value)
    kind = f' class="{escape(value.kind)}"' if value.kind else ""
    return f'<a{kind} href="{escape(value.href)}">{escape(value.text)}</a>'


def _text(value: object, form: str) -> str | Linked | tuple:
    if isinstance(value, Linked | tuple):
        return value
    if value is None or (isinstance(value, float) and value != value):
        return DASH
    return format(value, form).replace("-", MINUS) if form else str(value)


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
