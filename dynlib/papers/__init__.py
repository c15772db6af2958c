"""One module a paper; each offers Config, convert, cost and deploy, and none imports another.

What generic code asks of a module besides, where the method has it:

    TASKS                           names of the tasks that it trains for; absent: classification alone
    phases(config)                  its training schedule, `train.Phase`s; absent: one with the task's own loss
    evaluate(model, valid)          figures for the record from test data, besides the task's own
    choose(model, held_out, valid)  instead, of recipes that hold images of the training split out: settle the trained
                                    model on these, and return the figures from test data, the task's score included
    macs_by_choice(model, size)     MACs of one image for each choice that the network can take, in order; under
                                    "predictor" what comes on top of every choice
    PIXELS = "unit"                 it takes images on the scale 0 .. 1; absent: normalised by the training set
"""

import importlib
import importlib.util
from types import ModuleType

from dynlib import settings
from dynlib.catalogue import METHODS


def method(key: str) -> ModuleType:
    """The module of a paper: Config, convert, cost, deploy. Raises InputError for an unknown key."""
    if key not in METHODS:
        raise settings.unknown("method", key, METHODS)
    return importlib.import_module(f"dynlib.papers.{key}")


def searcher(key: str) -> ModuleType:
    """The module of a paper's search: Search, search. Raises InputError where the paper has none."""
    able = [name for name in METHODS if importlib.util.find_spec(f"dynlib.papers.{name}_study")]
    if key not in able:
        raise settings.unknown("method with a search", key, able)
    return importlib.import_module(f"dynlib.papers.{key}_study")
