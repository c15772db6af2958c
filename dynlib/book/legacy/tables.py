"""Published and measured numbers side by side: pure functions from claims and records to frames ready to be read.

Values come in as they are kept (fractions, integer MACs and parameters, ms; claims as printed) and leave as text: the
one place where a number gets its display unit and digits. What nobody published or measured is an en dash. Sentences
that belong under a table travel in `frame.attrs["notes"]`; `show` prints them there.
"""

import csv
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from dynlib.book.records import Record
from dynlib.catalogue import DATASETS
from dynlib.errors import InputError
from dynlib.paths import CLAIMS

COLUMNS = ["table", "row", "metric", "value", "unit", "confidence", "source", "note"]
DASH = "–"
POWER = {  # unit of a claim: by which power of ten a kept value is multiplied to be shown in it
    **dict.fromkeys(["%", "points"], 2),
    **dict.fromkeys(["GMAC", "GFLOP"], -9),
    **dict.fromkeys(["MMAC", "MFLOP", "M"], -6),
    **dict.fromkeys(["MAC", "ms", "x", "px", "MB", "images/s", "layers", "operators"], 0),
    **dict.fromkeys(["epochs", "images", "1"], 0),  # 1: a plain number
}
NAMES = {"macs": "MACs", "flops": "FLOPs", "params": "parameters", "top1": "top-1", "top5": "top-5", "map": "mAP"}
NAMES |= {"miou": "mIoU", "map50": "mAP50", "cpu": "CPU", "gpu": "GPU", "tvm": "TVM", "mkldnn": "MKL-DNN", "arm": "ARM"}
OURS = ["static, ms", "ours, ms", "our speed-up", "quartiles", "MAC ratio", "efficiency"]
SCALES = ("counted", "public", "paper")  # what may stand beside a claim: no data needed, our scale, the paper's
DIGITS = re.compile(r"-?\d+(\.\d+)?")  # a value as claims print it
NUMBER = re.compile(r"|–|(n = |[+−<>])?\d.*")  # a cell that is set to the right


def claims(key: str, table: str | None = None, folder: Path = CLAIMS) -> pd.DataFrame:
    """The published numbers of one paper, every column as text, `value` as printed; of one table where it is given.

    Raises InputError for an unknown key or table, and for a file that is not a list of claims.
    """
    path = folder / f"{key}.csv"
    if not path.exists():
        raise InputError(
            f"claims {key!r} are unknown; allowed: {', '.join(sorted(p.stem for p in folder.glob('*.csv')))}"
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as claims: {error}") from error
    if header != COLUMNS:
        raise InputError(f"{path} has the columns {', '.join(header)}; claims need {', '.join(COLUMNS)}")
    for line in lines:
        claim = dict(zip(COLUMNS, line, strict=False))
        whole = len(line) == len(COLUMNS) and claim["unit"] in POWER
        if not whole or not (DIGITS.fullmatch(claim["value"]) or _quote(claim)):
            raise InputError(
                f"{path}: {','.join(line)!r} is not a claim; it needs {len(COLUMNS)} fields, a number or a note that "
                f'begins printed "...", and a unit of {", ".join(POWER)}'
            )
    frame = pd.DataFrame(lines, columns=COLUMNS, dtype=str)
    if table is not None and table not in set(frame.table):
        raise InputError(f"table {table!r} is unknown in {key}; allowed: {', '.join(frame.table.unique())}")
    return frame if table is None else frame[frame.table == table].reset_index(drop=True)


def measured(
    values: Mapping[str, Mapping[str, float | Sequence[float]]], scale: str, source: str | None = None
) -> pd.DataFrame:
    """Our numbers as `compare` and `points` take them: {row: {metric: value, or one value a seed}}.

    `scale` is `counted` for what needs no data, else the profile; `source` is what the table says of their origin.
    Raises InputError for smoke results: they are no evidence and never stand beside a claim.
    """
    if scale not in SCALES:
        raise InputError(f"scale {scale!r} cannot stand beside a claim; allowed: {', '.join(SCALES)}")
    kept = [(row, metric, np.atleast_1d(value).tolist()) for row, of in values.items() for metric, value in of.items()]
    return pd.DataFrame(
        [(*k, scale, source or scale) for k in kept], columns=["row", "metric", "value", "scale", "source"]
    )


def compare(
    claimed: pd.DataFrame, ours: pd.DataFrame, *, command: str | None = None, baseline: str | None = None
) -> pd.DataFrame:
    """The paper's table with ours beside it: row, quantity, claimed, measured, difference, source; all text.

    Ours is rounded to the digits that the paper printed, and the difference is that of the two shown numbers. It is
    given only at the same scale: never for times, never between public data and the paper's. With `baseline`, a row,
    two more columns hold each side's gain over that row of its own. `command` makes what is missing and is told once;
    where a claim's note says why it does not follow "from the architecture: ...", the source says that in its place.
    Raises InputError for a metric without a claim, an unknown baseline, a number given twice, and two profiles.
    """
    _one_profile(set(ours["scale"]) - {"counted"})
    if (twice := ours.duplicated(["row", "metric"])).any():
        raise InputError(f"row {ours.row[twice].iloc[0]!r} has {ours.metric[twice].iloc[0]} twice; give it once")
    theirs = {(claim.row, claim.metric): claim for claim in claimed.itertuples()}
    mine = {(own.row, own.metric): own for own in ours.itertuples()}
    form = {claim.metric: claim for claim in reversed(list(claimed.itertuples())) if claim.value}
    if strange := [metric for metric in ours.metric if metric not in form]:
        raise InputError(f"metric {strange[0]!r} has no claim in this table; allowed: {', '.join(reversed(form))}")
    rows = dict.fromkeys(row for row, _ in theirs | mine)
    if baseline is not None and baseline not in rows:
        raise InputError(f"baseline {baseline!r} is no row of this table; allowed: {'; '.join(rows)}")
    lines, notes = [], {}
    for row, metric in theirs | mine:
        claim, own = theirs.get((row, metric)), mine.get((row, metric))
        like = claim if claim and claim.value else form.get(metric, claim)
        number, text = _own(own, like)
        unit = re.sub("MAC|FLOP", "", like.unit)
        line = {"row": row, "quantity": f"{_words(metric)}, {unit}".removesuffix(", ")}
        line |= {"claimed": _published(claim, notes), "measured": text}
        same = own is not None and like.unit != "ms" and own.scale != "public"
        line["difference"] = _signed(number, Decimal(claim.value)) if same and claim and claim.value else DASH
        if own is not None and claim and claim.value and not same:
            notes["A difference is given only where both sides were taken at the same scale."] = None
        if baseline is not None:
            base, own_base = theirs.get((baseline, metric)), mine.get((baseline, metric))
            both = claim and claim.value and base and base.value
            line["claimed gain"] = _signed(Decimal(claim.value), Decimal(base.value)) if both else DASH
            line["measured gain"] = _signed(number, _own(own_base, like)[0]) if own and own_base else DASH
        reasons = [own.source if own else "", _reason(claim) if claim else ""]
        lines.append(line | {"source": "; ".join(filter(None, reasons)) or DASH})
    if baseline is not None:
        notes[f"Gains are over {baseline}, on each side its own."] = None
    if any(not _reason(theirs[key]) for key in theirs.keys() - mine.keys()):
        notes[_missing(command)] = None
    return _noted(pd.DataFrame(lines), notes)


def training_table(
    runs: Iterable[Record], by: Callable[[Record], str], metrics: Sequence[str] = ("top1",)
) -> pd.DataFrame:
    """Trained accuracy, one row a configuration named by `by`: mean and sample deviation over its seeds.

    Raises InputError for two profiles in one table, a row that would average different configurations, and a metric
    that a record lacks.
    """
    runs = list(runs)
    _one_profile({run.profile for run in runs})
    if lacking := [(m, run) for m in metrics for run in runs if m not in run.metrics]:
        metric, run = lacking[0]
        raise InputError(f"metric {metric!r} is not in {by(run)!r}; allowed: {', '.join(run.metrics)}")
    unit, power, digits = ("G", -9, 3) if max((r.metrics["macs"] for r in runs), default=0) >= 1e9 else ("M", -6, 1)
    lines, groups = [], _grouped(runs, by)
    for row, group in groups.items():
        if len({(run.config_hash, str(run.dataset)) for run in group}) > 1:
            raise InputError(f"row {row!r} holds different configurations or data; let `by` tell them apart")
        first = group[0]
        line = {"row": row} | {f"{_words(m)}, %": _mean([run.metrics[m] for run in group], 2, 2)[1] for m in metrics}
        line |= {"seeds": f"n = {len(group)}", "data set": first.dataset["name"]}
        line |= {"epochs": str(first.config["recipe"]["epochs"])}
        line |= {f"MACs, {unit}": _mean([first.metrics["macs"]], power, digits)[1]}
        line |= {"parameters, M": _mean([first.metrics["params"]], -6, 3)[1]}
        lines.append(line | {"hardware": ", ".join(dict.fromkeys(run.environment["device"] for run in group))})
    notes = ["± is the sample standard deviation over n seeds."] if any(len(g) > 1 for g in groups.values()) else []
    if any(name in DATASETS and DATASETS[name].task == "detection" for name in {run.dataset["name"] for run in runs}):
        notes.append("MACs and parameters of a detector are those of its backbone and feature pyramid.")
    return _noted(pd.DataFrame(lines), notes)


def latency_table(
    runs: Iterable[Record],
    claimed: pd.DataFrame,
    by: Callable,
    *,
    metric: str,
    vanilla: str,
    command: str | None = None,
) -> pd.DataFrame:
    """Claimed ms and their ratio to the row `vanilla`; then ours: both ms, speed-up, quartiles, MAC ratio, efficiency.

    `by` gives the row of a record as the claims spell it, `metric` the claimed time. The vanilla row has no times of
    ours: each of our rows carries the static time taken in the same run. Raises InputError for two records of one row,
    and where the vanilla row has no such claim.
    """
    claimed = claimed[(claimed.metric == metric) & (claimed.value != "")]
    times = {claim.row: claim for claim in claimed.itertuples()}
    if vanilla not in times:
        raise InputError(
            f"row {vanilla!r} has no claimed {metric}; allowed: {'; '.join(times) or 'none of this table'}"
        )
    groups = _grouped(runs, by)
    if doubled := [row for row, group in groups.items() if len(group) > 1]:
        raise InputError(f"row {doubled[0]!r} has {len(groups[doubled[0]])} latency records; give one a row")
    lines, notes = [], {}
    for row in times | groups:
        ratio = f"{Decimal(times[vanilla].value) / Decimal(times[row].value):.2f}" if row in times else DASH
        line = {"row": row, "claimed, ms": _published(times.get(row), notes), "claimed speed-up": ratio}
        lines.append(line | _timed(groups[row][0] if row in groups else None, "" if row == vanilla else DASH))
    notes |= {f"Claimed: {note}.": None for note in dict.fromkeys(claimed.note) if note}
    if groups:
        notes[f"Ours: {provenance(run for group in groups.values() for run in group)}."] = None
    if times.keys() - groups.keys() - {vanilla}:
        notes[_missing(command)] = None
    return _noted(pd.DataFrame(lines), notes)


def timings(rows: Mapping[str, Record | None], command: str) -> pd.DataFrame:
    """Our latency alone, where print has no times: a row each, dashes and `command` where there is no record."""
    notes = [f"Ours: {provenance(found)}."] if (found := [run for run in rows.values() if run]) else []
    notes += [_missing(command)] if len(found) < len(rows) else []
    return _noted(pd.DataFrame([{"row": row} | _timed(run) for row, run in rows.items()]), notes)


def wide(compared: pd.DataFrame) -> pd.DataFrame:
    """A table from `compare` with one line a row of the paper: every quantity as claimed and, beside it, ours."""
    lines: dict[str, dict[str, str]] = {}
    heads = [f"{quantity}: {side}" for quantity in compared.quantity.unique() for side in ("claimed", "ours")]
    for cell in compared.itertuples():
        line = lines.setdefault(cell.row, {"row": cell.row} | dict.fromkeys(heads, DASH))
        line |= {f"{cell.quantity}: claimed": cell.claimed, f"{cell.quantity}: ours": cell.measured}
    told = [note for note in compared.attrs["notes"] if not note.startswith("A difference")]
    return _noted(pd.DataFrame(lines.values()), told)


def spread(values: Sequence[float], unit: str, digits: int = 2, signed: bool = False) -> str:
    """Kept values in a unit of claims as text: their mean, and ± the sample deviation of several; a dash of none."""
    if not values:
        return DASH
    number, text = _mean(values, POWER[unit], digits)
    return "+" * (signed and number > 0) + text


def points(numbers: pd.DataFrame, x: str = "macs", y: str = "top1") -> pd.DataFrame:
    """The rows of claims, or of `measured`, that have both quantities, for a figure: row, series, knob, x and y.

    Kept units on both sides (fractions, MACs). `ResNet-50, alpha 0.5` is knob `alpha 0.5` of the series `ResNet-50`.
    """
    if "unit" in numbers:
        numbers = numbers[numbers.value != ""]
        power = numbers.unit.map(POWER)
        kept = [float(Decimal(v).scaleb(-p)) for v, p in zip(numbers.value, power, strict=True)]
    else:
        kept = [statistics.mean(value) for value in numbers.value]
    wide: dict[str, dict[str, float]] = {}
    for row, metric, value in zip(numbers.row, numbers.metric, kept, strict=True):
        wide.setdefault(row, {})[metric] = value
    lines = [(r, *r.partition(", ")[::2], of[x], of[y]) for r, of in wide.items() if x in of and y in of]
    return pd.DataFrame(lines, columns=["row", "series", "knob", x, y])


def provenance(runs: Iterable[Record]) -> str:
    """One line on where records come from: data, epochs, seeds, machine, threads, commit, days."""
    runs = list(runs)
    if not runs:
        return "no record"
    sets = [run.dataset for run in runs if run.dataset]
    parts = [f"{d['name']}, {d['train_images']:,} training and {_others(d)} images" for d in sets]
    parts += [f"{run.config['recipe']['epochs']} epochs" for run in runs if "recipe" in run.config]
    parts += [f"batch {run.config['batch']}, {run.metrics['dtype']}" for run in runs if "batch" in run.config]
    parts = list(dict.fromkeys(parts))
    if any(run.kind in ("training", "search") for run in runs):
        parts.append(_list("seed", sorted({run.seed for run in runs})))
    parts += dict.fromkeys(run.environment["device"] for run in runs)
    threads = sorted({run.environment["threads"] for run in runs} - {None})
    parts += [f"{_list('', threads)} thread{'s' * (threads != [1])}".strip()] if threads else []
    parts += sorted({run.environment["precision"] for run in runs if "precision" in run.environment})
    parts.append(_list("commit", sorted({run.environment["commit"] for run in runs})))
    days = sorted({run.environment["date"][:10] for run in runs})
    return "; ".join([*parts, days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"])


def _others(dataset: Mapping) -> str:
    """The images that a record was taken on, besides those that trained: test images, or of a search held-out ones."""
    kind = "test" if "test_images" in dataset else "held_out"
    return f"{dataset[f'{kind}_images']:,} {kind.replace('_', '-')}"


@dataclass(frozen=True)
class Table:
    """A frame of text with a caption and the sentences under it; a notebook renders it, `print` gives plain text."""

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """Plain text: caption, rows, notes."""
        return "\n".join([self.caption, self.frame.to_string(index=False), *self.notes])

    def _repr_html_(self) -> str:
        """A table that screen readers can walk and that takes its colours from the page, light or dark."""
        numeric = [c != self.frame.columns[0] and all(map(NUMBER.fullmatch, self.frame[c])) for c in self.frame]
        style = [f"padding: .3em .5em; text-align: {'right' if n else 'left'}" for n in numeric]
        head = "".join(f'<th scope="col" style="{s}">{escape(c)}</th>' for c, s in zip(self.frame, style, strict=True))
        style = [s + "; white-space: nowrap" * n for s, n in zip(style, numeric, strict=True)]
        body = ""
        for first, *rest in self.frame.itertuples(index=False):
            body += f'<tr><th scope="row" style="{style[0]}; min-width: 11em; font-weight: normal">{escape(first)}</th>'
            body += "".join(f'<td style="{s}">{escape(v)}</td>' for v, s in zip(rest, style[1:], strict=True)) + "</tr>"
        notes = f"<p><small>{'<br>'.join(map(_code, self.notes))}</small></p>" if self.notes else ""
        return f"""<div style="overflow-x: auto">
<table class="dataframe" style="width: 100%; font-variant-numeric: tabular-nums">
<caption style="text-align: left">{_code(self.caption)}</caption>
<thead style="border-bottom: 1px solid"><tr>{head}</tr></thead>
<tbody>{body}</tbody>
</table></div>
{notes}"""


def show(frame: pd.DataFrame, caption: str, *notes: str) -> Table:
    """The frame for display: caption, no index, numbers right-aligned, its own notes and then `notes` under it."""
    return Table(frame, caption, (*frame.attrs.get("notes", ()), *notes))


def _published(claim, notes: dict) -> str:
    """What a claim's cell shows, with its footnote mark; the footnotes themselves are added to `notes`."""
    if claim is None:
        notes[f"{DASH} as claimed: not published."] = None
        return DASH
    mark = ""
    if "slip of the paper" in claim.note:
        mark += "†"
        notes[f"† {claim.row}, {_words(claim.metric)}: {claim.note[claim.note.index('slip of the paper') :]}."] = None
    if claim.confidence == "recalled":
        mark += "‡"
        notes["‡ From memory, not read in the source."] = None
    return (claim.value.replace("-", "−") or _quote(claim._asdict())) + mark


def _reason(claim) -> str:
    """Why nobody can count a claimed cost, as its note has it."""
    found = re.search(r"not from the architecture: ([^;]+)", claim.note)
    return found[1] if found else ""


def _own(own, like) -> tuple[Decimal | None, str]:
    """Our value in the unit and digits of the claim `like`: the number shown, and its text with the spread."""
    if own is None:
        return None, DASH
    return _mean(own.value, POWER[like.unit], max(0, -Decimal(like.value).as_tuple().exponent))


def _mean(values: Sequence[float], power: int, digits: int) -> tuple[Decimal, str]:
    """The mean at a power of ten, rounded half up, and its text; with the sample deviation where there are several."""
    mean = _rounded(statistics.mean(values), power, digits)
    text = f"{mean:f}".replace("-", "−")
    return mean, text + (f" ± {_rounded(statistics.stdev(values), power, digits):f}" if len(values) > 1 else "")


def _rounded(value: float, power: int, digits: int) -> Decimal:
    return Decimal(repr(float(value))).scaleb(power).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0  # no -0


def _signed(ours: Decimal, theirs: Decimal) -> str:
    gap = ours - theirs
    return f"{gap:+f}".replace("-", "−") if gap else f"{abs(gap):f}"


def _timed(run: Record | None, missing: str = DASH) -> dict[str, str]:
    """The cells of one latency record."""
    if run is None:
        return dict.fromkeys(OURS, missing)
    found = run.metrics
    texts = [f"{found['static_ms']:.1f}", f"{found['method_ms']:.1f}", f"{found['speedup']:.2f}"]
    texts += ["{:.2f} to {:.2f}".format(*found["speedup_iqr"])]
    return dict(zip(OURS, [*texts, f"{found['macs_ratio']:.2f}", f"{found['efficiency']:.2f}"], strict=True))


def _grouped(runs: Iterable[Record], by: Callable[[Record], str]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for run in runs:
        groups.setdefault(by(run), []).append(run)
    return groups


def _one_profile(profiles: set[str]) -> None:
    if len(profiles) > 1:
        raise InputError(f"profiles {', '.join(sorted(profiles))} are in one table; give one profile a table")


def _missing(command: str | None) -> str:
    return f"{DASH} as ours: not measured" + (f"; `{command}` makes it." if command else ".")


def _noted(frame: pd.DataFrame, notes: Iterable[str]) -> pd.DataFrame:
    frame.attrs["notes"] = tuple(notes)
    return frame


def _quote(claim: Mapping) -> str:
    """What is printed where print has no number (`>32480`); empty where the note does not quote it."""
    found = re.match(r'printed "([^"]+)"', claim["note"])
    return found[1] if found and not claim["value"] else ""


def _words(metric: str) -> str:
    return " ".join(NAMES.get(word, word) for word in metric.split("_"))


def _list(what: str, values: Sequence) -> str:
    return f"{what}{'s' * bool(what and len(values) > 1)} {', '.join(map(str, values))}"


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
