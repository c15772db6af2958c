"""The campaign: every training that a study asks for and that has no record yet, by priority, wherever there is room.

`data/studies/<key>.yml` names the runs behind a chapter:

    STUDY:
      recipe: {arch: cifar_resnet20, dataset: cifar10, epochs: 15}   # fields of recipes.Recipe
      method: {}                # fields of the paper's Config that all rows share
      precision: bf16-mixed     # of the training
      seeds: 5                  # 0, 1, .. of each row
      priority: 1               # smallest first
      minutes: 25               # a run on one CPU core, until there is a record to tell it
      rows:
        ROW: {method: {alpha: 0.25}, recipe: {}, seeds: 3, priority: 2, minutes: 30}   # what differs; all optional

A run is found again by the hash of its record, so a campaign that was killed goes on where it was, at the last whole
epoch of each run.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from dynlib import papers, settings
from dynlib.book import records, runs
from dynlib.book.recipes import Recipe
from dynlib.book.records import Record
from dynlib.errors import InputError
from dynlib.paths import RESULTS, RUNS, STUDIES, check_writable
from dynlib.train import Hardware

PROFILE = "public"


@dataclass(frozen=True)
class Row:
    """One configuration of a study, trained with every seed below `seeds`."""

    key: str  # the paper
    study: str
    name: str
    config: object  # the paper's Config
    recipe: Recipe
    precision: str
    seeds: int
    priority: int
    minutes: float  # of one run

    @property
    def digest(self) -> str:
        """The hash that its records are found by."""
        return records.config_hash(runs.describe(self.config, self.recipe))


@dataclass(frozen=True)
class Job:
    """One run that is still to be made."""

    row: Row
    seed: int


def rows(folder: Path = STUDIES) -> list[Row]:
    """All rows of all studies. Raises InputError naming file, study and row where one is not what it must be."""
    found = []
    for path in sorted(folder.glob("*.yml")):
        for study, content in settings.read(path).items():
            found += _rows_of(path, study, content)
    return found


def _rows_of(path: Path, study: str, content: object) -> Iterator[Row]:
    shared = _checked(f"{path.name}: study {study}", content, ("rows", *_SHARED))
    for name, own in (shared.get("rows") or {}).items():
        where = f"{path.name}: study {study}, row {name}"
        own = _checked(where, own or {}, _SHARED)
        both = {field: {**(shared.get(field) or {}), **(own.get(field) or {})} for field in ("method", "recipe")}
        rest = {"precision": "32-true", "seeds": 3, "priority": 9, "minutes": 60.0}
        rest |= {field: part[field] for part in (shared, own) for field in rest if field in part}
        try:
            config = settings.build(papers.method(path.stem).Config, both["method"])
            yield Row(path.stem, study, str(name), config, settings.build(Recipe, both["recipe"]), **rest)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error


_SHARED = ("method", "recipe", "precision", "seeds", "priority", "minutes")


def _checked(where: str, content: object, allowed: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where} is {content!r}; write one `name: value` a line")
    for name in content:
        if name not in allowed:
            raise settings.unknown(f"{where}: field", str(name), allowed)
    return content


def missing(rows: Sequence[Row], folder: Path = RESULTS) -> list[Job]:
    """What has no record yet: by priority, then all rows at seed 0 before any at seed 1. Equal rows are one."""
    jobs: dict[tuple, Job] = {}
    for row in sorted(rows, key=lambda row: row.priority):
        for seed in range(row.seeds):
            if not records.place(row.key, "training", PROFILE, row.digest, seed, folder).exists():
                jobs.setdefault((row.key, row.digest, seed), Job(row, seed))
    return sorted(jobs.values(), key=lambda job: (job.row.priority, job.seed))


def measured_minutes(rows: Sequence[Row], folder: Path = RESULTS) -> list[Row]:
    """The rows with the minutes that their records took on a CPU, where there are any."""
    timed = []
    for row in rows:
        found = [records.load(p) for p in (folder / row.key).glob(f"training-{PROFILE}-{row.digest}-s*.json")]
        took = [record.wall_s / 60 for record in found if not _is_gpu(record.environment["device"])]
        timed.append(replace(row, minutes=round(median(took), 1)) if took else row)
    return timed


def _is_gpu(device: str) -> bool:
    return any(word in device for word in ("NVIDIA", "GeForce", "Tesla", "Apple M"))


# ------------------------------------------------------------------------------------------------------------------ run


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its record, or one line of why there is none."""

    job: Job
    record: Record | None
    error: str = ""


def run(
    jobs: Sequence[Job],
    *,
    root: Path | None,
    workers: int = 1,
    accelerator: str = "auto",
    scheduler: str | None = None,
    minutes: float | None = None,
    folder: Path = RESULTS,
    checkpoints: Path = RUNS,
    archive: Path | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Train the jobs in order and save their records in `folder`, each as soon as it is there.

    One process a run: here, in `workers` processes, or on the Dask cluster at `scheduler`, whose workers see these
    files. No run is begun that would end later than `minutes` from now, as far as is known. With `archive`, each record
    is also appended to that file, for a machine from which few files come back. A job that fails costs the others
    nothing. Raises InputError for what cannot be had before anything is trained.
    """
    from dynlib.book.jobs import each  # joblib: only where something runs

    for key in {job.row.key for job in jobs}:
        check_writable(folder / key / "record.json")
    if archive is not None:
        check_writable(archive)
    if scheduler is None:  # whose workers may have what this machine has not
        Hardware(accelerator=accelerator)
    began, outcomes = time.monotonic(), []
    where = {"root": root, "folder": folder, "checkpoints": checkpoints}

    def begun() -> Iterator[tuple]:
        waiting = list(jobs)
        while waiting:
            left = None if minutes is None else minutes - (time.monotonic() - began) / 60
            job = waiting.pop(_next(waiting, busy, checkpoints))
            if left is None or job.row.minutes <= left:
                busy.append(job)
                yield job, accelerator, where

    busy: list[Job] = []
    with tqdm(total=len(jobs), disable=not progress, unit="run") as bar:
        for outcome in each(_trained, begun(), workers=workers, scheduler=scheduler):
            busy.remove(outcome.job)
            outcomes.append(outcome)
            if archive is not None and outcome.record is not None:
                with archive.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome.record), separators=(",", ":")) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            bar.set_postfix_str(f"{outcome.job.row.key} {outcome.job.row.name} s{outcome.job.seed} {outcome.error}")
            bar.update()
    return outcomes


def _next(waiting: Sequence[Job], busy: Sequence[Job], checkpoints: Path) -> int:
    """The first job whose first phase is not being trained by another one: it would train it once more."""

    def first(job: Job) -> tuple[Path, bool]:
        return runs.first_phase(job.row.key, job.row.config, job.row.recipe, PROFILE, job.seed, checkpoints)

    learning = {path for path, is_done in map(first, busy) if not is_done}
    return next((place for place, job in enumerate(waiting) if first(job)[0] not in learning), 0)


def _trained(job: Job, accelerator: str, where: Mapping[str, Path | None]) -> Outcome:
    row = job.row
    try:
        hardware = Hardware(accelerator=accelerator, precision=row.precision)
        which = {"profile": PROFILE, "seed": job.seed}
        return Outcome(job, runs.measure(row.key, row.config, row.recipe, **which, **where, hardware=hardware))
    except InputError as error:
        return Outcome(job, None, str(error))


def bring_in(archive: Path, folder: Path = RESULTS) -> list[Path]:
    """Save the records of an archive in `folder`; the paths of those that are new.

    A last line that a kill cut off is passed over. Raises InputError, and saves nothing, where another is no record or
    there is none.
    """
    try:
        lines = archive.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{archive} is not an archive of records: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) > 1:
                break
            raise InputError(f"{archive}, line {number}, is not a record: {error}") from error
        found.append(records.checked(content, f"{archive}, line {number}"))
    return [records.save(record, folder) for record in found if not records.path_of(record, folder).exists()]
