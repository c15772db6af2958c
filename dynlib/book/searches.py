"""One search makes one record, found again by the hash of its settings, as one training does in `runs`."""

import importlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dynlib import settings
from dynlib.book import records
from dynlib.book.records import Record
from dynlib.paths import RESULTS, check_writable
from dynlib.train import Hardware

SEARCHES = {"s2dnas": "dynlib.book.search_study"}  # method -> the module of its search: Search, search


def searcher(key: str) -> ModuleType:
    """The module of a method's search. Raises InputError where it has none."""
    if key not in SEARCHES:
        raise settings.unknown("method with a search", key, SEARCHES)
    return importlib.import_module(SEARCHES[key])


def of_values(key: str, values: Mapping[str, Any]) -> object:
    """The settings of a search from plain values, of which others than its own are passed over."""
    kind = searcher(key).Search
    return settings.build(kind, settings.part_of(kind, values))


def recorded(key: str, asked: object, *, profile: str, seed: int, folder: Path = RESULTS) -> Record | None:
    """The committed record of a search, or None where it is still to be made."""
    return records.lookup(key, "search", profile, settings.plain(asdict(asked)), seed, folder)


def run(
    key: str,
    asked: object,
    *,
    profile: str,
    seed: int,
    root: Path | None = None,
    hardware: Hardware | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> Record:
    """Search once and return the record, unsaved."""
    began, hardware = time.perf_counter(), hardware or Hardware()
    described = settings.plain(asdict(asked))
    with tempfile.TemporaryDirectory(prefix="dynlib-") as folder:
        metrics, curve, dataset = searcher(key).search(
            asked,
            seed=seed,
            weights=Path(folder) / "shared.safetensors",
            root=None if root is None else str(root),
            workers=workers,
            scheduler=scheduler,
            accelerator=hardware.accelerator,
            precision=hardware.precision,
            progress=progress,
        )
    where = {"threads": torch.get_num_threads(), "precision": hardware.precision}
    told = {"seed": seed, "dataset": dataset, "metrics": metrics, "curve": curve}
    return records.made(key, "search", profile, described, wall_s=time.perf_counter() - began, **told, **where)


def ensure(key: str, asked: object, *, profile: str, seed: int, folder: Path = RESULTS, **options) -> Record:
    """The record of a search: read where it exists, else made and, outside the smoke profile, saved."""
    found = None if profile == "smoke" else recorded(key, asked, profile=profile, seed=seed, folder=folder)
    if found is not None:
        return found
    if profile != "smoke":
        check_writable(folder / key)
    record = run(key, asked, profile=profile, seed=seed, **options)
    if profile != "smoke":
        records.save(record, folder)
    return record
