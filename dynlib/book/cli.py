"""The command line: `python -m dynlib COMMAND`. Wrong input is one line on standard error and exit status 2.

Commands import what they need when they run, so that help and the list come at once, without torch.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from dynlib import paths, settings
from dynlib.book import chapters, records
from dynlib.catalogue import DATASETS
from dynlib.errors import InputError
from dynlib.papers import METHODS

app = typer.Typer(
    help="Less computation per image: run the book's chapters, cost, time and train its methods.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

MOST_SEED = 2**31 - 1
Key = Annotated[str, typer.Argument(help="Method, such as octconv.")]
Params = Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A setting; repeatable.")]
Profile = Annotated[str, typer.Option(help="smoke, or a folder of notebooks/profiles.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data sets; default data/raw.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Arch = Annotated[str, typer.Option(help="A torchvision model or one of ours, such as cifar_resnet20.")]
ENGINE = "onnxruntime"
Size = Annotated[str | None, typer.Option(metavar="S|HxW", help="Image in pixels; default 224, of cifar_ networks 32.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 a cell failed, 2 wrong input, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = app(arguments or ["--help"], prog_name="python -m dynlib", standalone_mode=False) or 0
    except (InputError, TyperException) as error:
        message, status = f"error: {error.format_message() if isinstance(error, TyperException) else error}", 2
    except chapters.ChapterError as error:
        message, status = f"error: {error}", 1
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        message, status = "error: there is too little memory for this; give a smaller size, batch or network", 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing it would fail once more
        return 2
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
        return _print_json({"chapters": content, "methods": METHODS, "datasets": datasets})
    for name, (profiles, parameters) in found.items():
        rows = [(p.name, settings.written(p.default), settings.word(p.kind), p.help) for p in parameters]
        _print_table(f"{name}  (profiles: {', '.join(profiles)})", rows)
    _print_table("methods", METHODS.items())
    _print_table("data sets", [(name, dataset.description) for name, dataset in DATASETS.items()])


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="Chapter, such as 02_octconv.")],
    param: Params = None,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Executed notebook; default book/notebooks/NAME.ipynb.")] = None,
) -> None:
    """Execute a chapter with the parameters of a profile and of -p."""
    values = chapters.settle(name, profile, settings.parse(param or ()), _existing(data_root))
    out = paths.EXECUTED / f"{name}.ipynb" if out is None else out
    chapters.execute(name, values, out, progress=sys.stderr.isatty())
    print(out)


@app.command()
def cost(
    key: Key,
    arch: Arch,
    size: Size = None,
    param: Params = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, max=10**6, help="Outputs of the classifier; default 1000, of cifar_ networks 10."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Multiply-accumulates and parameters of a method on a network, for one image."""
    from dynlib import papers
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config = settings.build(papers.method(key).Config, settings.parse(param or ()))
    size, classes = _usual_size(arch) if size is None else size, classes or (10 if arch.startswith("cifar_") else 1000)
    result = paperscale.cost_of(key, config, arch, parse_size(size), classes)
    if as_json:
        return _print_json(result)
    expected = ()
    if "macs_expected" in result:
        ratio = f"{result['ratio_expected']:8.3f}"
        expected = (("MACs, expected", _giga(result["macs_expected"])), ("ratio, as it was to expected", ratio))
    rows = [
        ("MACs", _giga(result["macs"])),
        *([("  as OctConv's authors count", _giga(result["authors_macs"]))] if key == "octconv" else []),
        ("  of the network as it was", _giga(result["macs_static"])),
        ("ratio, as it was to MACs", f"{result['ratio']:8.3f}"),
        *expected,
        ("parameters", _giga(result["params"])),
        *((f"MACs, choice {choice}", _giga(macs)) for choice, macs in result.get("macs_by_choice", {}).items()),
        ("not counted", ", ".join(result["uncounted"]) or "nothing"),
    ]
    _print_table(f"{key} on {arch}, {size} px, {classes} classes: {_words(result['config'])}", rows)


@app.command()
def latency(
    key: Key,
    arch: Arch,
    size: Size = None,
    param: Params = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(help="Rounds; the result is their median.")] = 20,
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,..", help="Share of each choice of a dynamic method, the first first.")
    ] = None,
    engine: Annotated[str, typer.Option(help="onnxruntime, or openvino where installed: that of the method.")] = ENGINE,
    dtype: Annotated[str, typer.Option(help="float32, or int8 for both sides.")] = "float32",
    record: Annotated[bool, typer.Option("--record", help="Save the measurement in data/results/KEY.")] = False,
    as_json: AsJson = False,
) -> None:
    """Milliseconds on this CPU against the fastest static variant of the same network."""
    from dynlib import papers
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config = settings.build(papers.method(key).Config, settings.parse(param or ()))
    mixture = None if shares is None else tuple(settings.numbers("shares", shares))
    if record:
        paths.check_writable(paths.RESULTS / key)
    size = _usual_size(arch) if size is None else size
    how = {"batch": batch, "threads": threads, "repeats": repeats, "shares": mixture, "engine": engine, "dtype": dtype}
    measured = paperscale.time_latency(key, config, arch, parse_size(size), **how)
    path = records.save(measured, paths.RESULTS) if record else None
    metrics, told = measured.metrics, measured.config
    if as_json:
        about = {"arch": arch, "size": told["size"], "config": told["method"], "environment": measured.environment}
        about |= {} if mixture is None else {"shares": told["shares"]}
        return _print_json({"key": key, **metrics, **about})
    lower, upper = metrics["speedup_iqr"]
    others = ", ".join(f"{name} {time_ms:.2f}" for name, time_ms in metrics["variants_ms"].items())
    rows = [
        ("static", f"{metrics['static_ms']:.2f} ms", f"{metrics['static_variant']}, the fastest of {others}"),
        *(("left out", name, why) for name, why in metrics["left_out"].items()),
        ("method", f"{metrics['method_ms']:.2f} ms", metrics["engine"] or ""),
        ("speed-up", f"{metrics['speedup']:.3f}", f"quartiles {lower:.3f} to {upper:.3f}"),
        ("MAC ratio", f"{metrics['macs_ratio']:.3f}", ""),
        ("efficiency", f"{metrics['efficiency']:.3f}", "speed-up by MAC ratio"),
    ]
    on = f"batch {batch}, threads {threads}{f', shares {shares}' if shares else ''}, {measured.environment['device']}"
    _print_table(f"{key} on {arch}, {size} px, {on}: {_words(told['method'])}", rows)
    if path:
        print(f"record: {path}")


@app.command()
def deploy(
    key: Key,
    arch: Arch,
    out: Annotated[Path, typer.Option(help="Folder for the ONNX files and deployed.json.")],
    size: Size = None,
    param: Params = None,
    classes: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Classes; default 1000, of cifar_ networks 10.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors or .pt file; without it they are random.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a network and write it as ONNX files, which run without torch: dynlib.runtime.load(DIR)."""
    from dynlib import papers
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config = settings.build(papers.method(key).Config, settings.parse(param or ()))
    paths.check_writable(out / "deployed.json")
    classes = classes or (10 if arch.startswith("cifar_") else 1000)
    size = _usual_size(arch) if size is None else size
    deployed = paperscale.deploy(key, config, arch, parse_size(size), classes, weights)
    deployed.save(out)
    if as_json:
        return _print_json({"folder": str(out), **deployed.about, "parts": list(deployed.parts)})
    print(f"{out}: {', '.join(f'{name}.onnx' for name in deployed.parts)}, {deployed.bytes / 1e6:.1f} MB")


@app.command()
def train(
    key: Key,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    param: Params = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of first weights, order and augmentation.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of records; default data/results.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train even where the record exists.")] = False,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed; stands in the record.")] = "32-true",
    as_json: AsJson = False,
) -> None:
    """Train once with the settings of the method's chapter at a profile; the result is a record.

    -p sets fields of the method's Config or of the recipe: arch, dataset, epochs, lr and so on. A run that was stopped
    goes on from its last whole epoch when asked for again.
    """
    root = _existing(data_root)
    from dynlib import papers
    from dynlib.book import recipes, runs
    from dynlib.train import Hardware

    hardware = Hardware(precision=precision)
    kinds = (papers.method(key).Config, recipes.Recipe)
    given = settings.parse(param or ())
    allowed = [name for kind in kinds for name in settings.names(kind)]
    for name in given:
        if name not in allowed:
            raise settings.unknown(f"setting of {key} and its recipe", name, allowed)
    values = _chapter_values(key, profile) | given
    config, recipe = (settings.build(kind, settings.part_of(kind, values)) for kind in kinds)
    out = paths.RESULTS if out is None else out
    which = {"profile": profile, "seed": seed, "folder": out}
    found = None if again else runs.recorded(key, config, recipe, **which)
    how = {"root": root, "hardware": hardware, "checkpoints": paths.RUNS, "progress": sys.stderr.isatty()}
    record = found or runs.measure(key, config, recipe, **which, **how)
    path, metric = records.path_of(record, out), recipe.task.metric
    score = record.metrics[metric]
    if as_json:
        return _print_json({"record": str(path), "trained": found is None, metric: score, "config": record.config})
    print(f"{metric} {score:.4f}, record {path}{'' if found is None else ' (it was there; --again trains anew)'}")


@app.command()
def search(
    key: Key,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    param: Params = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of weights, draws and the controller.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of records; default data/results.")] = None,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed; stands in the record.")] = "32-true",
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure candidates.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler whose workers see these files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search an architecture with the settings of the method's chapter at a profile; the result is a record.

    -p sets fields of the method's Search. What was found is trained by `train`, with the settings that are printed.
    """
    root = _existing(data_root)
    from dynlib.book import searches
    from dynlib.train import Hardware

    kind, given = searches.searcher(key).Search, settings.parse(param or ())
    for name in given:
        if name not in (allowed := settings.names(kind)):
            raise settings.unknown(f"setting of the search of {key}", name, allowed)
    values = _chapter_values(key, profile) | given
    asked, out = searches.of_values(key, values), paths.RESULTS if out is None else out
    how = {"root": root, "hardware": Hardware(precision=precision), "workers": workers, "scheduler": scheduler}
    which = {"profile": profile, "seed": seed, "folder": out}
    record = searches.ensure(key, asked, **which, **how, progress=sys.stderr.isatty())
    if as_json:
        return _print_json({"metrics": record.metrics, "config": record.config})
    found = {name: record.metrics["found"][name] for name in ("cuts", "reuse")}
    print(" ".join(f"-p '{name}={json.dumps(rows)}'" for name, rows in found.items()))


@app.command()
def campaign(
    study: Annotated[list[str] | None, typer.Argument(help="Methods or studies, such as octconv; default all.")] = None,
    data_root: DataRoot = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin nothing that would end later than this.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler whose workers see these files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of records; default data/results.")] = None,
    archive: Annotated[Path | None, typer.Option(help="A file that gets every new record, too.")] = None,
    import_: Annotated[Path | None, typer.Option("--import", help="Bring the records of such a file in.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is missing; train nothing.")] = False,
) -> int:
    """Train whatever the studies in data/studies ask for and no record has yet, by priority; resumes after a kill."""
    from dynlib.book import campaign

    out = paths.RESULTS if out is None else out
    if import_ is not None:
        print(f"{len(campaign.bring_in(import_, out))} new records in {out}")
        return 0
    root, rows = _existing(data_root), campaign.rows()
    known = sorted({name for row in rows for name in (row.key, row.study)})
    for name in study or ():
        if name not in known:
            raise settings.unknown("study", name, known)
    asked = [row for row in rows if not study or {row.key, row.study} & set(study)]
    jobs = campaign.missing(campaign.measured_minutes(asked, out), out)
    if dry_run:
        shown = [(j.row.key, j.row.study, f"{j.row.name}, seed {j.seed}", f"{j.row.minutes:.0f} min") for j in jobs]
        return _print_table(f"{len(jobs)} runs to make, {sum(j.row.minutes for j in jobs) / 60:.1f} hours", shown)
    how = {"workers": workers, "accelerator": accelerator, "scheduler": scheduler, "minutes": minutes}
    made = campaign.run(jobs, root=root, folder=out, archive=archive, progress=sys.stderr.isatty(), **how)
    failed = [outcome for outcome in made if outcome.error]
    for outcome in failed:
        row = outcome.job.row
        print(f"{row.key} {row.study}, {row.name}, seed {outcome.job.seed}: {outcome.error}", file=sys.stderr)
    print(f"{len(made) - len(failed)} new records in {out}, {len(jobs) - len(made)} runs left, {len(failed)} failed")
    return 1 if failed else 0


@app.command()
def verdicts(
    key: Annotated[str | None, typer.Argument(help="Method, such as octconv; default all.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Renew data/results/summary.csv, too.")] = False,
) -> None:
    """Which orders that the papers claim our trainings support, contradict, leave undecided or do not test yet."""
    from dynlib import papers
    from dynlib.book import report

    if key is not None:
        papers.method(key)
    found = report.verdicts(key)
    rows = [
        (v.verdict, f"{v.seeds} seeds", f"{100 * v.mean:+.2f} points" if v.seeds else "", v.claim)
        for v in found.itertuples()
    ]
    _print_table("claims of the papers, or our own, and what the records say", rows)
    if write:
        paths.write_atomically(
            paths.RESULTS / "summary.csv", report.verdicts().to_csv(index=False, float_format="%.6f")
        )


@app.command()
def pages() -> None:
    """Build the pages from the executed chapters; they are replaced whole, or stay as they were."""
    from dynlib.book import pages

    pages.build()


@app.command()
def data(name: Annotated[str, typer.Argument(help="Data set, such as cifar10.")], data_root: DataRoot = None) -> None:
    """Download a data set by torchvision, verify it and pack it into DATA_ROOT/NAME."""
    from dynlib.data import pack

    print(pack(name, paths.RAW if data_root is None else data_root))


def _chapter_values(key: str, profile: str) -> dict[str, Any]:
    """The parameters of a method's chapter at a profile."""
    chapter = chapters.of_method(key)
    defaults = {parameter.name: parameter.default for parameter in chapters.parameters(chapter).values()}
    return defaults | chapters.profile_values(chapter, profile)


def _existing(data_root: Path | None) -> Path | None:
    if data_root is not None and not data_root.is_dir():
        raise InputError(
            f"no folder {data_root}: --data-root is one that holds NAME/train.npz; "
            f"`python -m dynlib data NAME --data-root {data_root}` downloads a set into it"
        )
    return data_root


def _usual_size(arch: str) -> str:
    """The side of the images that a network was made for, in pixels."""
    return "32" if arch.startswith("cifar_") else "224"


def _giga(number: int) -> str:
    """Three decimals of the unit that suits, aligned."""
    unit, name = (1e9, "G") if number >= 1e9 else (1e6, "M")
    return f"{number / unit:8.3f} {name}"


def _words(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={settings.written(value)}" for name, value in config.items())


def _print_json(content: Mapping[str, Any]) -> None:
    print(json.dumps(content, indent=1))


def _print_table(title: str, rows: Any) -> None:
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
