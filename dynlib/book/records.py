"""Measured facts: one JSON file each, written whole or not at all, found again by the hash of their configuration."""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from dynlib.engines import installed_engines
from dynlib.errors import InputError
from dynlib.paths import RESULTS, ROOT, write_atomically

VERSIONED = ("torch", "torchvision", "numpy", "lightning-fabric")  # and the engines that are installed
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve")
SCORES = ("top1", "miou", "map50")  # fractions; a training has one


@dataclass(frozen=True)
class Record:
    """One measurement with everything needed to repeat it; the file on disk has exactly these fields."""

    key: str  # the paper: wae, octconv, s2dnas, sampling, drnet
    kind: str  # what was measured: training, search, latency, reference (a level to compare with), split (wae)
    profile: str  # smoke, public, paper
    config: dict  # everything that decides the result, the seed excepted
    config_hash: str
    dataset: dict  # name, splits, sizes, checksums; empty where no data was read
    seed: int
    metrics: dict  # the results; units end the names
    curve: list  # one dict an epoch; empty where nothing was trained
    environment: dict
    wall_s: float


def config_hash(config: Mapping) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the configuration as canonical JSON."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def made(
    key: str,
    kind: str,
    profile: str,
    config: dict,
    *,
    metrics: dict,
    wall_s: float,
    threads: int,
    seed: int = 0,
    dataset: Mapping = MappingProxyType({}),
    curve: Iterable[dict] = (),
    device: str | None = None,
    precision: str = "32-true",
) -> Record:
    """The record of what was just measured on this machine, unsaved; `device` as `environment` has it."""
    where = environment(device, threads, None if precision == "32-true" else precision)
    found = (dict(dataset), seed, metrics, list(curve), where, round(wall_s, 1))
    return Record(key, kind, profile, config, config_hash(config), *found)


def place(key: str, kind: str, profile: str, digest: str, seed: int, folder: Path = RESULTS) -> Path:
    """Where a record of these fields lies, the hash of its configuration among them."""
    return folder / key / f"{kind}-{profile}-{digest}-s{seed}.json"


def path_of(record: Record, folder: Path = RESULTS) -> Path:
    """Where a record lies."""
    return place(record.key, record.kind, record.profile, record.config_hash, record.seed, folder)


def save(record: Record, folder: Path = RESULTS) -> Path:
    """Write a record and return its path. A metric that is not finite is refused with an InputError."""
    for name, value in record.metrics.items():
        if not _is_finite(value):
            raise InputError(f"record {record.key}/{record.kind}: {name} is {value!r}, not a finite number")
    return write_atomically(path_of(record, folder), json.dumps(asdict(record), indent=1) + "\n")


def _is_finite(value: object) -> bool:
    """Whether all numbers in plain values are finite."""
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, float) or math.isfinite(value)


def load(path: Path) -> Record:
    """Read one record and check it, see `checked`, and that its file has the name of this very record.

    Raises InputError naming the file and the first fault.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a record: {error}") from error
    record = checked(content, str(path))
    if (path.parent.name, path.name) != (record.key, path_of(record).name):
        raise InputError(f"{path} holds the record that belongs to {record.key}/{path_of(record).name}; rename it")
    return record


def checked(content: object, where: str) -> Record:
    """A record from plain values: all fields, their types, finite results, and the hash of its configuration.

    Raises InputError naming `where` they are from and the first fault.
    """
    kinds = {field.name: field.type for field in fields(Record)}
    if not isinstance(content, dict) or set(content) != set(kinds):
        raise InputError(f"{where} is not a record: it needs exactly the fields {', '.join(sorted(kinds))}")
    for name, kind in kinds.items():
        allowed = (int, float) if kind is float else kind
        if not isinstance(content[name], allowed) or isinstance(content[name], bool):
            raise InputError(f"{where}: {name} is {content[name]!r:.60}; it is of type {kind.__name__}")
        if not _is_finite(content[name]):
            raise InputError(f"{where}: {name} holds a number that is not finite; measure it again")
    for name in ("key", "kind", "profile"):  # of which paths are made
        if not re.fullmatch(r"[a-z0-9_-]+", content[name]):
            raise InputError(f"{where}: {name} is {content[name]!r:.60}; it is a word of small letters and digits")
    scores = {name: value for name, value in content["metrics"].items() if name in SCORES}
    for name, value in scores.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{where}: {name} is {value!r:.60}; it is a fraction from 0 to 1")
    if content["kind"] == "training" and not scores:
        raise InputError(f"{where}: its metrics have none of {', '.join(SCORES)}; measure it again")
    record = Record(**content)
    if record.config_hash != config_hash(record.config):
        raise InputError(f"{where}: config_hash {record.config_hash} does not fit its config; measure it again")
    return record


def _not_finite(word: str) -> None:
    raise ValueError(f"it holds {word}, which is no finite number")


def find(key: str, kind: str, profile: str | None = None, folder: Path = RESULTS) -> Iterator[Record]:
    """All records of one paper and kind, in a fixed order; of one profile where it is given."""
    for path in sorted((folder / key).glob(f"{kind}-{profile or '*'}-*.json")):
        yield load(path)


def lookup(key: str, kind: str, profile: str, config: Mapping, seed: int, folder: Path = RESULTS) -> Record | None:
    """The record of exactly this configuration and seed, or None where nobody measured it yet."""
    path = place(key, kind, profile, config_hash(config), seed, folder)
    return load(path) if path.exists() else None


def cpu() -> tuple[str, list[str]]:
    """The processor's name, and which of `INSTRUCTIONS` it has: what decides how fast an engine can multiply."""
    info = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    models = [value.strip() for name, _, value in lines if name.startswith("model name")]
    flags = {flag for name, _, value in lines if name.startswith(("flags", "Features")) for flag in value.split()}
    model = models[0] if models else platform.processor() or platform.machine()
    return model, [name for name in INSTRUCTIONS if name in flags]


def commit() -> str:
    """The checkout's commit, with `+` where tracked library files differ from it, or `unknown` outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        status = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dynlib"], cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        return "unknown"
    return head.stdout.strip() + "+" * status.returncode if head.returncode == 0 else "unknown"


def environment(device: str | None = None, threads: int | None = None, precision: str | None = None) -> dict:
    """Where a measurement was taken: processor or GPU, threads, versions, commit and date (UTC).

    `device` is the accelerator's name where one was used; the caller knows it, this module does not import torch.
    `precision` is that of a training, where it was not float32 throughout.
    """
    model, instructions = cpu()
    return {
        "device": device or model,
        **({} if device else {"instructions": instructions}),
        "cores": os.cpu_count(),
        "threads": threads,
        **({} if precision is None else {"precision": precision}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in (*VERSIONED, *installed_engines())},
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
