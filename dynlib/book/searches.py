"""A search from end to end, as a record found again by its settings: shared weights, the controller, the retraining.

`Search` are its settings. `run` trains the shared weights, lets the controller search once for each omega, takes as
many draws of a controller that never learns and as many even ones, ranks every architecture where they are few enough,
and retrains the best by themselves: how well the short ranking agrees with the longer one is part of the result, and so
is the time that all of it took. Without shared weights every candidate is trained by itself, as in the paper.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau

from dynlib import settings
from dynlib.book import records
from dynlib.book.jobs import spread
from dynlib.book.records import Record
from dynlib.book.search_trials import Search, SharedWeights, Trial
from dynlib.papers.s2dnas import Config, convert
from dynlib.papers.s2dnas.search import (
    Candidate,
    Judge,
    Measured,
    best,
    exhaustive,
    policy_search,
    random_search,
)
from dynlib.paths import RESULTS, check_writable
from dynlib.train import Hardware

SEARCHES = {"s2dnas": Search}  # method -> the settings of its search


def settings_of(key: str) -> type:
    """The class of the settings of a method's search. Raises InputError where it has none."""
    if key not in SEARCHES:
        raise settings.unknown("method with a search", key, SEARCHES)
    return SEARCHES[key]


def of_values(key: str, values: Mapping[str, Any]) -> Search:
    """The settings of a search from plain values, of which others than its own are passed over."""
    kind = settings_of(key)
    return settings.build(kind, settings.part_of(kind, values))


def recorded(key: str, asked: Search, *, profile: str, seed: int, folder: Path = RESULTS) -> Record | None:
    """The committed record of a search, or None where it is still to be made."""
    return records.lookup(key, "search", profile, settings.plain(asdict(asked)), seed, folder)


def run(
    key: str,
    asked: Search,
    *,
    profile: str,
    seed: int,
    root: Path | None = None,
    hardware: Hardware | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> Record:
    """Search once and return the record, unsaved.

    Candidates are measured, and retrained, in `workers` processes or on the Dask cluster at `scheduler`.
    """
    began, hardware = time.perf_counter(), hardware or Hardware()
    where = {"root": None if root is None else str(root), "accelerator": hardware.accelerator}
    trial = Trial(asked, asked.proxy_epochs, seed, **where, precision=hardware.precision)
    with tempfile.TemporaryDirectory(prefix="dynlib-") as folder:
        weights = Path(folder) / "shared.safetensors"
        metrics, curve = _found(trial, weights, progress, workers=workers, scheduler=scheduler)
    batches, held = trial.data()
    dataset = {"name": asked.dataset, "train_images": len(batches.samples), "held_out_images": len(held.samples)}
    dataset |= {"train_sha256": batches.samples.checksum, "held_out_sha256": held.samples.checksum}
    told = {"seed": seed, "dataset": dataset, "metrics": settings.plain(metrics), "curve": curve}
    told |= {"threads": torch.get_num_threads(), "precision": hardware.precision}
    described, wall_s = settings.plain(asdict(asked)), time.perf_counter() - began
    return records.made(key, "search", profile, described, wall_s=wall_s, **told)


def ensure(key: str, asked: Search, *, profile: str, seed: int, folder: Path = RESULTS, **options) -> Record:
    """The record of a search: read where it exists, else made and, outside the smoke profile, saved."""
    if profile == "smoke":
        return run(key, asked, profile=profile, seed=seed, **options)
    record = recorded(key, asked, profile=profile, seed=seed, folder=folder)
    if record is None:
        check_writable(folder / key / "record.json")
        record = run(key, asked, profile=profile, seed=seed, **options)
        records.save(record, folder)
    return record


def _found(trial: Trial, weights: Path, progress: bool, **spreading) -> tuple[dict, list[dict]]:
    """The figures of a search and the curve of the shared weights, which are kept in `weights` meanwhile."""
    asked = trial.asked
    sizes = convert(trial.network(), Config(cuts=((0, 1),))).meta["groups"]  # of maps, of the proxy's network
    here = spreading == {"workers": 1, "scheduler": None}
    now = time.process_time if here else time.perf_counter  # a busy machine does not lengthen the first
    space, clock, spent = asked.space(sizes), now(), {}
    proxy = SharedWeights(trial, space, str(weights)) if asked.shared_weights else trial
    curve = proxy.train(progress) if asked.shared_weights else []
    spent["weights_s"], clock = now() - clock, now()

    def measure(configs: Sequence[Config]) -> list[Measured]:
        return spread(proxy, configs, **spreading)

    judges = {omega: Judge(measure, omega) for omega in dict.fromkeys((asked.omega, *asked.omegas))}
    shared = judges[asked.omega].measured
    found = {}
    for omega, judge in judges.items():
        judge.measured = shared  # measured once, whatever omega
        found[omega] = {
            "policy": policy_search(space, judge, asked.candidates, seed=trial.seed),
            "untrained": policy_search(space, judge, asked.candidates, seed=trial.seed + 2, lr=0.0),
            "random": random_search(space, judge, min(asked.candidates, len(space)), seed=trial.seed + 1),
        }
        if len(space) <= asked.ranked:
            found[omega]["every"] = exhaustive(space, judge)
    spent["candidates_s"], clock = now() - clock, now()

    main = found[asked.omega]
    chosen = best(main["policy"], asked.retrained)
    control = [one for one in main["random"] if one.config not in {c.config for c in chosen}][: asked.retrained]
    alone = replace(trial, epochs=asked.retrain_epochs)
    jobs = [candidate.config for candidate in (*chosen, *control)]
    judge = Judge(lambda configs: spread(alone, configs, **spreading), asked.omega)
    retrained = list(zip([*chosen, *control], judge(jobs), strict=True))
    spent["retraining_s"] = now() - clock
    winner = max(retrained[: len(chosen)], key=lambda pair: pair[1].reward)[1]
    static = next(iter(shared.values())).macs_static
    metrics = {
        "space": {"sizes": sizes, "per_size": space.per_size, "architectures": len(space)},
        "macs_static": static,
        "clock": "processor" if here else "wall",
        "measured": len(shared),
        "seconds_a_candidate": statistics.median(of.seconds for of in shared.values()),
        **{name: round(seconds, 1) for name, seconds in spent.items()},
        "searches": [_told(omega, of) for omega, of in found.items()],
        "retrained": [
            _values(short) | {"by": "policy" if place < len(chosen) else "random", "alone": _worth(alone)}
            for place, (short, alone) in enumerate(retrained)
        ],
        "kendall_tau": _tau(retrained),
        "found": _values(winner),
    }
    return metrics, curve


def _tau(pairs: Sequence[tuple[Candidate, Candidate]]) -> float | None:
    """Kendall's tau-b of the rewards under shared weights and after training alone; None where all of one are equal."""
    short, alone = ([candidate.reward for candidate in side] for side in zip(*pairs, strict=True))
    return None if min(len(set(short)), len(set(alone))) < 2 else float(kendalltau(short, alone).statistic)


def _told(omega: float, of: dict[str, list[Candidate]]) -> dict:
    """One omega: the rewards of each search in the order of its draws, and its best candidate."""
    rewards = {name: [round(candidate.reward, 5) for candidate in history] for name, history in of.items()}
    return {"omega": omega, "rewards": rewards, "best": {name: _values(best(h, 1)[0]) for name, h in of.items()}}


def _values(candidate: Candidate) -> dict:
    config = candidate.config
    return {"cuts": [list(row) for row in config.cuts], "reuse": [list(row) for row in config.reuse]} | _worth(
        candidate
    )


def _worth(candidate: Candidate) -> dict:
    outcome = candidate.outcome
    figures = {"reward": candidate.reward, "top1": outcome.top1, "macs": round(outcome.macs)}
    return figures | {"threshold": outcome.thresholds[0], "shares": list(outcome.shares)}
