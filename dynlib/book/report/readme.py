"""The two tables of README.md that follow from records, kept between comments that name them."""

import re

import pandas as pd

from dynlib.book.report.contenders import contenders
from dynlib.book.report.status import VERDICTS, status
from dynlib.errors import InputError

SMALL = ("CIFAR ResNet-56, 32 px", "CIFAR ResNet-20, 32 px")  # in the comparison only


def renewed(text: str) -> str:
    """The README with both tables as the records have them: `<!-- name -->` to `<!-- end -->`.

    Raises InputError where these comments do not stand in it once.
    """
    for name, frame in {"contenders": _contenders(), "status": _status()}.items():
        block = f"<!-- {name} -->\n{_markdown(frame)}\n<!-- end -->"
        place = rf"<!-- {name} -->.*?<!-- end -->"
        text, found = re.subn(place, lambda _, block=block: block, text, flags=re.DOTALL)
        if found != 1:
            raise InputError(f"README.md has {found} places from <!-- {name} --> to <!-- end -->; allowed: one")
    return text


def _contenders() -> pd.DataFrame:
    frame = contenders()
    lines = frame[~frame.network.isin(SMALL) & (frame.side != "fastest")].itertuples()
    return pd.DataFrame(
        {
            "one picture, one CPU thread": f"{line.name}; {line.network}",
            "MACs promise": f"{line.macs_ratio:.2f}",
            "measured": f"{line.speedup:.2f}",
            "accuracy": "the same" if line.side == "eager" else line.verdict,
        }
        for line in lines
    )


def _status() -> pd.DataFrame:
    count = status().verdict.value_counts().reindex(VERDICTS, fill_value=0)
    return pd.DataFrame([count.map(str).to_dict()])


def _markdown(frame: pd.DataFrame) -> str:
    rows = [list(frame), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
