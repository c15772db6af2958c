"""One package a paper; each offers Config, convert, cost and deploy, and none imports another.

`METHODS` are their names, `method` gives what a package offers, `Method` says what that may be. No torch is imported
until a method is asked for.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields

from dynlib import settings

METHODS = {  # dynlib/papers/<key>/: title
    "wae": "Wavelet-like auto-encoder",
    "octconv": "Octave convolution",
    "s2dnas": "S2DNAS",
    "sampling": "Stochastic sampling and interpolation",
    "drnet": "Dynamic resolution",
}


@dataclass(frozen=True)
class Method:
    """The names that generic code asks of a paper's package; those with a value here only where a method differs."""

    Config: type  # frozen dataclass; rejects nonsense with a message that names field, value and range
    convert: Callable  # (model, config) -> the trainable network
    cost: Callable  # (module, input_size) -> Cost, in closed form
    deploy: Callable  # (module, example) -> the form for inference on a CPU

    TASKS: tuple[str, ...] = ("classification",)  # names of the tasks that it trains for
    PIXELS: str = "normalised"  # by the training set; "unit": on the scale 0 .. 1
    # (config) -> its training schedule, `train.Phase`s; none: one with the task's own loss
    phases: Callable = lambda config: ()
    # (model, valid) -> figures for the record from test data, besides the task's own
    evaluate: Callable = lambda model, valid: {}
    # (model, held_out, valid) -> for recipes that hold images of the training split out: settle the trained model on
    # these, and return the figures from test data, the task's score included; None: as without such images
    choose: Callable | None = None
    # (model, size) -> MACs of one image for each choice that the network can take, in order; under "predictor" what
    # comes on top of every choice; None: it takes none
    macs_by_choice: Callable | None = None
    # (model, size) -> MACs of one image averaged over masks, or None where that is what `cost` says
    macs_expected: Callable = lambda model, size: None


def method(key: str) -> Method:
    """What a paper's package offers. Raises InputError for an unknown key."""
    if key not in METHODS:
        raise settings.unknown("method", key, METHODS)
    package = importlib.import_module(f"dynlib.papers.{key}")
    offered = [field.name for field in fields(Method) if hasattr(package, field.name)]
    return Method(**{name: getattr(package, name) for name in offered})
