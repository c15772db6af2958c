"""Settings as people write them, `name=value` or lines of a YAML file, checked before anything runs."""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from dynlib.errors import InputError

Kind = TypeVar("Kind")
NEAREST = 10  # names that an error lists
LATER = {"later": True}  # metadata of a field, see `described`


class _Loader(yaml.SafeLoader):
    """YAML, whose version 1.1 takes 1e-4 for a word; here it is the number that everybody means."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """{"alpha": 0.25} from ["alpha=0.25"]; the values are YAML. Raises InputError for anything else."""
    values = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise InputError(f"parameter {text!r}: write name=value, such as alpha=0.25 or test_sizes_px=[32,64]")
        values[name] = _yaml(value, f"parameter {text!r}")
    return values


def numbers(what: str, text: str) -> list[float]:
    """[0.5, 0.25] from "0.5,0.25". Raises InputError for anything else."""
    found = fit(what, _yaml(f"[{text}]", what), list[float])
    if not all(map(math.isfinite, found)):
        raise InputError(f"{what} is {text!r}; allowed: finite numbers")
    return found


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError where they are not names with values."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    values = _yaml(text, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path}: write one `name: value` a line")
    return values


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a kind of yaml.SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InputError(f"{what:.60} is not YAML: it is nested too deeply") from error


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names, the closest first."""
    return sorted(known, key=lambda other: -SequenceMatcher(None, name, other).ratio())


def unknown(what: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name that does not exist; those that do are listed, the closest first."""
    ranked = nearest(name, allowed)
    rest = f" and {len(ranked) - NEAREST} more" if len(ranked) > NEAREST else ""
    return InputError(f"{what} {name!r:.60} is unknown; allowed: {', '.join(ranked[:NEAREST])}{rest}")


def fit(name: str, value: Any, kind: Any) -> Any:
    """The value as the type `kind` has it: where that asks for them, whole numbers become floats and lists tuples.

    Raises InputError naming the setting, its value and the type where it is neither.
    """
    try:
        return _fitted(value, kind)
    except TypeError:
        raise InputError(f"{name} is {value!r}; allowed: {word(kind)}{_such_as(kind)}") from None


def _fitted(value: Any, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for option in sorted(inner, key=lambda option: option is not type(value)):  # as it is, rather than converted
            try:
                return _fitted(value, option)
            except TypeError:
                continue
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(_fitted(item, inner[0]) for item in value)
    elif kind is object or type(value) is kind:  # not isinstance: true is no number
        return value
    elif kind is float and type(value) is int:
        return float(value)
    raise TypeError


def _such_as(kind: Any) -> str:
    """How a list is written; nothing for what is none."""
    if get_origin(kind) in (Union, UnionType):
        return next(filter(None, map(_such_as, get_args(kind))), "")
    depth = 0
    while get_origin(kind) in (list, tuple):
        kind, depth = get_args(kind)[0], depth + 1
    return f", such as {'[' * depth}1, 2{']' * depth}" if depth and kind in (int, float) else ""


def word(kind: Any) -> str:
    """A type as one writes it: float, list[int], int | None."""
    if kind is object:
        return "anything"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def written(value: Any) -> str:
    """A value as it is given to -p."""
    return value if isinstance(value, str) else json.dumps(value)


def build(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """A dataclass of settings from plain values. Raises InputError for a name, a type or a value that it refuses."""
    kinds = get_type_hints(kind)
    for name in values:
        if name not in kinds:
            raise unknown("setting", name, kinds)
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise InputError(f"setting {missing[0]} has no value; give {missing[0]}=...")
    return kind(**{name: fit(name, value, kinds[name]) for name, value in values.items()})


def check_choice(owner: object, name: str, allowed: Iterable[Any]) -> None:
    """Raise InputError where a field has none of the values allowed; true is no 1."""
    value = getattr(owner, name)
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(map(written, allowed))}")


def check_number(
    owner: object,
    name: str,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    whole: bool = False,
    optional: bool = False,
) -> None:
    """Raise InputError where a field is no finite number, or none from `low` to `high`.

    `above` and `below` leave out the ends, `optional` lets None pass. What need not be `whole` becomes a float, in
    frozen classes too: 1 and 1.0 are one setting and have one hash.
    """
    value = getattr(owner, name)
    if optional and value is None:
        return
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    fits = is_number and math.isfinite(value) and low <= value <= high
    if not fits or (above and value == low) or (below and value == high):
        first = f" {'above' if above else 'from'} {low}" if low > -math.inf else ""
        last = f" {'to below' if below else 'to'} {high}" if high < math.inf else ""
        raise InputError(f"{name} is {value!r}; it is a {'whole' if whole else 'finite'} number{first}{last}")
    if not whole:
        object.__setattr__(owner, name, float(value))


def part_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of the dataclass."""
    return {name: value for name, value in values.items() if name in names(kind)}


def names(kind: type) -> list[str]:
    """The fields of a dataclass of settings."""
    return [field.name for field in dataclasses.fields(kind)]


def described(value: Any) -> dict[str, Any]:
    """A dataclass of settings as plain values, as records are found by them.

    A field that came later says so, `field(default=..., metadata=LATER)`, and is left out at its default: records from
    before there was such a field keep their hash.
    """
    later = {
        f.name for f in dataclasses.fields(value) if f.metadata.get("later") and getattr(value, f.name) == f.default
    }
    return plain({name: item for name, item in dataclasses.asdict(value).items() if name not in later})


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as JSON would give it back: tuples become lists."""
    return {
        key: plain(item) if isinstance(item, Mapping) else list(item) if isinstance(item, tuple) else item
        for key, item in value.items()
    }
