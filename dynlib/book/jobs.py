"""Independent jobs, drawn one by one as workers are free: processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from dynlib.errors import InputError

Found = TypeVar("Found")
ATTEMPTS = 3  # times that workers may die in a row without a job done


def each(
    function: Callable[..., Found], given: Iterable[tuple], *, workers: int = 1, scheduler: str | None = None
) -> Iterator[Found]:
    """`function(*item)` of each item, as they are done. An item is drawn when a worker is free to take it.

    With one worker, in this process. A worker that dies costs its job another attempt, not the others. `scheduler` is a
    Dask scheduler's address, such as tcp://10.0.0.1:8786; Dask itself gives a dead worker's jobs to another.

    Raises:
        InputError: there is no worker, or no scheduler at the address.
        TerminatedWorkerError: workers died in every one of `ATTEMPTS` attempts in a row.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; at least 1")
    if scheduler is not None:
        yield from _on_cluster(function, given, scheduler)
    elif workers == 1:
        yield from (function(*item) for item in given)
    else:
        yield from _in_processes(function, iter(given), workers)


def spread(function: Callable[[Any], Found], given: Iterable[Any], **where) -> list[Found]:
    """`function` of each, in order, wherever there is room: options and errors are those of `each`."""
    numbered = enumerate((item,) for item in given)
    found = dict(each(partial(_numbered, function), numbered, **where))
    return [found[number] for number in sorted(found)]


def _in_processes(function: Callable[..., Found], given: Iterator[tuple], workers: int) -> Iterator[Found]:
    running: dict[int, tuple] = {}
    attempts, again = 0, []

    def drawn() -> Iterator[Any]:
        for number, item in enumerate(chain(again, given)):
            running[number] = item
            yield joblib.delayed(_numbered)(function, number, item)

    while True:
        try:
            with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
                pool = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
                for number, found in pool(drawn()):
                    del running[number]
                    attempts = 0
                    yield found
            return
        except TerminatedWorkerError:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
            again = list(running.values())
            running.clear()


def _numbered(function: Callable[..., Found], number: int, item: tuple) -> tuple[int, Found]:
    return number, function(*item)


def _on_cluster(function: Callable[..., Found], given: Iterable[tuple], scheduler: str) -> Iterator[Found]:
    from distributed import Client, as_completed  # a second of import: only where there is a cluster

    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"scheduler is {scheduler!r}; no Dask scheduler answers there") from error
    with client, client.as_current():
        futures = [client.submit(function, *item, pure=False) for item in given]
        for future in as_completed(futures):
            yield future.result()
