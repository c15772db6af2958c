"""One module a paper; each offers Config, convert, cost and deploy, and none imports another.

What generic code asks of a module besides, where the method has it:

    TASKS                           names of the tasks that it trains for; absent: classification alone
    phases(config)                  its training schedule, `train.Phase`s; absent: one with the task's own loss
    evaluate(model, valid)          figures for the record from held-out data, besides the task's own
    macs_by_choice(model, size)     MACs of one image for each choice that the network can take, in order; under
                                    "predictor" what comes on top of every choice
    PIXELS = "unit"                 it takes images on the scale 0 .. 1; absent: normalised by the training set
"""

import importlib
from types import ModuleType

from dynlib import settings
from dynlib.catalogue import METHODS


def method(key: str) -> ModuleType:
    """The module of a paper: Config, convert, cost, deploy. Raises InputError for an unknown key."""
    if key not in METHODS:
        raise settings.unknown("method", key, METHODS)
    return importlib.import_module(f"dynlib.papers.{key}")
