"""What the commands share: their options as people type them, and how results are printed."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dynlib import settings
from dynlib.errors import InputError

MOST_SEED = 2**31 - 1
Key = Annotated[str, typer.Argument(help="Method, such as octconv.")]
Params = Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A setting; repeatable.")]
Profile = Annotated[str, typer.Option(help="smoke, or a folder of notebooks/profiles.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data sets; default data/raw.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Arch = Annotated[str, typer.Option(help="A torchvision model or one of ours, such as cifar_resnet20.")]
Size = Annotated[str | None, typer.Option(metavar="S|HxW", help="Image in pixels; default 224, of cifar_ networks 32.")]

Classes = Annotated[
    int | None, typer.Option(min=1, max=10**6, help="Outputs of the classifier; default 1000, of cifar_ networks 10.")
]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed; stands in the record.")]
Out = Annotated[Path | None, typer.Option(help="Folder of records; default data/results.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler whose workers see these files.")]


def existing(data_root: Path | None) -> Path | None:
    """The folder of data sets, where it is given. Raises InputError where there is none."""
    if data_root is not None and not os.path.isdir(data_root):  # of a name that is too long, Path's raises
        raise InputError(
            f"no folder {data_root!s:.120}: --data-root is one that holds NAME/train.npz; "
            "`python -m dynlib data NAME --data-root DIR` downloads a set into it"
        )
    return data_root


def giga(number: int) -> str:
    """Three decimals of the unit that suits, aligned."""
    unit, name = (1e9, "G") if number >= 1e9 else (1e6, "M")
    return f"{number / unit:8.3f} {name}"


def words(config: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return ", ".join(f"{name}={settings.written(value)}" for name, value in config.items())


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object."""
    print(json.dumps(content, indent=1))


def print_table(title: str, rows: Any) -> None:
    """Aligned columns under a title: in colour on a terminal, plain and never wrapped in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for cells in rows:
        table.add_row(*(Text(cell, style) for cell, style in zip(cells, ("cyan", "", "dim", ""), strict=False)))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(Text(title, "bold"))
    console.print(table)
    console.print()
