"""Commands that train: one run, one search, or whatever the studies still lack."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dynlib import paths, settings
from dynlib.book import chapters, records
from dynlib.book.cli_options import (
    MOST_SEED,
    AsJson,
    DataRoot,
    Key,
    Out,
    Params,
    Precision,
    Profile,
    Scheduler,
    existing,
    print_json,
    print_table,
)


def _values(key: str, profile: str, param: list[str] | None, what: str, *kinds: type) -> dict[str, Any]:
    """The parameters of a method's chapter at a profile, and those given, which are fields of `kinds`."""
    given, allowed = settings.parse(param or ()), [name for kind in kinds for name in settings.names(kind)]
    for name in given:
        if name not in allowed:
            raise settings.unknown(what, name, allowed)
    chapter = chapters.of_method(key)
    defaults = {parameter.name: parameter.default for parameter in chapters.parameters(chapter).values()}
    return defaults | chapters.profile_values(chapter, profile) | given


def train(
    key: Key,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    param: Params = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of first weights, order and augmentation.")] = 0,
    out: Out = None,
    again: Annotated[bool, typer.Option("--again", help="Train even where the record exists.")] = False,
    precision: Precision = "32-true",
    as_json: AsJson = False,
) -> None:
    """Train once with the settings of the method's chapter at a profile; the result is a record.

    -p sets fields of the method's Config or of the recipe: arch, dataset, epochs, lr and so on. A run that was stopped
    goes on from its last whole epoch when asked for again.
    """
    root = existing(data_root)
    from dynlib import papers
    from dynlib.book import recipes, runs
    from dynlib.train import Hardware

    hardware = Hardware(precision=precision)
    kinds = (papers.method(key).Config, recipes.Recipe)
    values = _values(key, profile, param, f"setting of {key} and its recipe", *kinds)
    config, recipe = (settings.build(kind, settings.part_of(kind, values)) for kind in kinds)
    out = paths.RESULTS if out is None else out
    which = {"profile": profile, "seed": seed, "folder": out}
    found = None if again else runs.recorded(key, config, recipe, **which)
    how = {"root": root, "hardware": hardware, "checkpoints": paths.RUNS, "progress": sys.stderr.isatty()}
    record = found or runs.measure(key, config, recipe, **which, **how)
    path, metric = records.path_of(record, out), recipe.task.metric
    score = record.metrics[metric]
    if as_json:
        return print_json({"record": str(path), "trained": found is None, metric: score, "config": record.config})
    print(f"{metric} {score:.4f}, record {path}{'' if found is None else ' (it was there; --again trains anew)'}")


def search(
    key: Key,
    profile: Profile = chapters.SMOKE,
    data_root: DataRoot = None,
    param: Params = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of weights, draws and the controller.")] = 0,
    out: Out = None,
    precision: Precision = "32-true",
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure candidates.")] = 1,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Search an architecture with the settings of the method's chapter at a profile; the result is a record.

    -p sets fields of the method's Search. What was found is trained by `train`, with the settings that are printed.
    """
    root = existing(data_root)
    from dynlib.book import searches
    from dynlib.train import Hardware

    values = _values(key, profile, param, f"setting of the search of {key}", searches.settings_of(key))
    asked, out = searches.of_values(key, values), paths.RESULTS if out is None else out
    how = {"root": root, "hardware": Hardware(precision=precision), "workers": workers, "scheduler": scheduler}
    which = {"profile": profile, "seed": seed, "folder": out}
    record = searches.ensure(key, asked, **which, **how, progress=sys.stderr.isatty())
    if as_json:
        return print_json({"metrics": record.metrics, "config": record.config})
    found = {name: record.metrics["found"][name] for name in ("cuts", "reuse")}
    print(" ".join(f"-p '{name}={json.dumps(rows)}'" for name, rows in found.items()))


def campaign(
    study: Annotated[list[str] | None, typer.Argument(help="Methods or studies, such as octconv; default all.")] = None,
    data_root: DataRoot = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin nothing that would end later than this.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    scheduler: Scheduler = None,
    out: Out = None,
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
    root, rows = existing(data_root), campaign.rows()
    known = sorted({name for row in rows for name in (row.key, row.study)})
    for name in study or ():
        if name not in known:
            raise settings.unknown("study", name, known)
    asked = [row for row in rows if not study or {row.key, row.study} & set(study)]
    jobs = campaign.missing(campaign.measured_minutes(asked, out), out)
    if dry_run:
        shown = [(j.row.key, j.row.study, f"{j.row.name}, seed {j.seed}", f"{j.row.minutes:.0f} min") for j in jobs]
        return print_table(f"{len(jobs)} runs to make, {sum(j.row.minutes for j in jobs) / 60:.1f} hours", shown)
    how = {"workers": workers, "accelerator": accelerator, "scheduler": scheduler, "minutes": minutes}
    made = campaign.run(jobs, root=root, folder=out, archive=archive, progress=sys.stderr.isatty(), **how)
    failed = [outcome for outcome in made if outcome.error]
    for outcome in failed:
        row = outcome.job.row
        print(f"{row.key} {row.study}, {row.name}, seed {outcome.job.seed}: {outcome.error}", file=sys.stderr)
    print(f"{len(made) - len(failed)} new records in {out}, {len(jobs) - len(made)} runs left, {len(failed)} failed")
    return 1 if failed else 0
