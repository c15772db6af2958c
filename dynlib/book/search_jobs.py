"""Independent jobs on the cores of this machine or on the workers of a Dask cluster, by joblib.

A worker that dies costs its job another attempt, not the others and not the search.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from dynlib.errors import InputError

Given, Found = TypeVar("Given"), TypeVar("Found")
ATTEMPTS = 3  # times that workers may die under the jobs of one call on this machine


def spread(
    function: Callable[[Given], Found], given: Sequence[Given], *, workers: int = 1, scheduler: str | None = None
) -> list[Found]:
    """`function` of each, in order: in this process, in `workers` processes, or on the cluster at `scheduler`.

    `scheduler` is a Dask scheduler's address, such as tcp://10.0.0.1:8786; its workers need this package, and what the
    jobs read, where the jobs look for it. Dask itself gives a dead worker's jobs to another.

    Raises:
        InputError: there is no worker, or no scheduler at the address.
        TerminatedWorkerError: workers died in every one of `ATTEMPTS` attempts.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; at least 1")
    if scheduler is not None:
        return _on_cluster(function, given, scheduler)
    if workers == 1:
        return [function(item) for item in given]
    found: dict[int, Found] = {}
    for attempt in range(ATTEMPTS):
        missing = [(place, item) for place, item in enumerate(given) if place not in found]
        try:
            with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
                jobs = (joblib.delayed(_placed)(function, *job) for job in missing)
                for place, result in joblib.Parallel(return_as="generator_unordered", batch_size=1)(jobs):
                    found[place] = result
            break
        except TerminatedWorkerError:
            if attempt == ATTEMPTS - 1:
                raise
    return [found[place] for place in range(len(given))]


def _placed(function: Callable[[Given], Found], place: int, item: Given) -> tuple[int, Found]:
    return place, function(item)


def _on_cluster(function: Callable[[Given], Found], given: Sequence[Given], scheduler: str) -> list[Found]:
    from distributed import Client  # a second of import: only where there is a cluster

    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"scheduler is {scheduler!r}; no Dask scheduler answers there") from error
    with client, client.as_current(), joblib.parallel_config("dask"):
        return joblib.Parallel(batch_size=1)(joblib.delayed(function)(item) for item in given)
