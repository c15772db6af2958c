"""What a paper published: its numbers, `data/claims/<key>.csv`, and the orders it claims, `data/claims/orders.csv`."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dynlib.errors import InputError
from dynlib.paths import CLAIMS

COLUMNS = ["table", "row", "metric", "value", "unit", "confidence", "source", "note"]
ORDERS = ["id", "key", "claim", "source", "metric", "above", "below", "cost"]
POWER = {  # unit of a claim: by which power of ten a kept value is multiplied to be shown in it
    **dict.fromkeys(["%", "points"], 2),
    **dict.fromkeys(["GMAC", "GFLOP"], -9),
    **dict.fromkeys(["MMAC", "MFLOP", "M"], -6),
    **dict.fromkeys(["MAC", "ms", "x", "px", "MB", "images/s", "layers", "operators"], 0),
    **dict.fromkeys(["epochs", "images", "1"], 0),  # 1: a plain number
}
DIGITS = re.compile(r"-?\d+(\.\d+)?")  # a value as claims print it


def claims(key: str, table: str | None = None, folder: Path = CLAIMS) -> pd.DataFrame:
    """The published numbers of one paper, every column as text, `value` as printed; of one table where it is given.

    Raises InputError for an unknown key or table, for a file that is not a list of claims, and where one quantity of
    one row is claimed with two values.
    """
    path = folder / f"{key}.csv"
    if not path.exists():
        known = sorted(p.stem for p in folder.glob("*.csv") if p.stem not in ("orders", "tables"))
        raise InputError(f"claims {key!r} are unknown; allowed: {', '.join(known)}")
    frame = read(path, COLUMNS)
    for line in frame.itertuples(index=False):
        if line.unit not in POWER or not (DIGITS.fullmatch(line.value) or printed(line.note, line.value)):
            raise InputError(
                f"{path}: {','.join(line)!r} is not a claim; it needs a number or a note that begins "
                f'printed "...", and a unit of {", ".join(POWER)}'
            )
    names = ["table", "row", "metric"]
    if len(bad := frame.drop_duplicates([*names, "value"])[lambda f: f.duplicated(names)]):
        first = bad.iloc[0]
        raise InputError(f"{path}: {first.table}, {first.row}, {first.metric} is claimed with two values")
    if table is not None and table not in set(frame.table):
        raise InputError(f"table {table!r} is unknown in {key}; allowed: {', '.join(frame.table.unique())}")
    return frame if table is None else frame[frame.table == table].reset_index(drop=True)


def orders(key: str | None = None) -> pd.DataFrame:
    """The orders that papers claim, one a line; of one paper where it is given.

    `above` and `below` name rows of studies, `study/row`, several joined by `|` for a curve; `row:name` takes another
    quantity of the same records, `row@front` the operating points of a network with exits. `metric` is compared, at
    equal `cost` where that is `macs`. Raises InputError for a file that is none.
    """
    frame = read(CLAIMS / "orders.csv", ORDERS)
    return frame if key is None else frame[frame.key == key].reset_index(drop=True)


class Part(NamedTuple):
    """What one part of a side of an order names."""

    row: str  # study/row
    metric: str  # of the same records, where that is another than the order's; else empty
    front: str  # of a network with exits: the rule whose operating points are meant; else empty


def parts(side: str) -> list[Part]:
    """What a side of an order names, see `orders`."""
    found = [re.fullmatch(r"([^:@]*)(?:@([^:]*))?(?::(.*))?", part) for part in side.split("|")]
    return [Part(part[1], part[3] or "", part[2] or "") for part in found]


def printed(note: str, value: str = "") -> str:
    """What is printed where print has no number (`>32480`); empty where the note does not quote it."""
    found = re.match(r'printed "([^"]+)"', note)
    return found[1] if found and not value else ""


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A file of text in these columns. Raises InputError for one that is not."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as claims: {error}") from error
    if header != columns:
        raise InputError(f"{path} has the columns {', '.join(header)}; it needs {', '.join(columns)}")
    if short := [line for line in lines if len(line) != len(columns)]:
        raise InputError(f"{path}: {','.join(short[0])!r} has {len(short[0])} fields; it needs {len(columns)}")
    return pd.DataFrame(lines, columns=columns, dtype=str)
