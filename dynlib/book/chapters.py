"""Chapters: notebooks whose parameters are checked before a kernel starts; executed whole or not at all."""

import ast
import importlib
import io
import json
import logging
import os
import tempfile
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlib import paths, settings
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.paths import check_writable, write_atomically

SMOKE = "smoke"  # the profile that has no file: the defaults in the notebook


class ChapterError(Exception):
    """A cell of a chapter failed; the message is one line, and the notebook is kept for reading."""


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell."""

    name: str
    default: Any
    kind: Any  # float, list[int], int | None: as annotated, else the default's; object where that is None
    help: str  # the comment behind it


def names() -> list[str]:
    """Every chapter, in the book's order: 02_octconv."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def of_method(key: str) -> str:
    """The chapter of a method, the first where it has several. Raises InputError where there is none."""
    found = [name for name in names() if _key(name) == key]
    if not found:
        raise settings.unknown("method with a chapter", key, dict.fromkeys(_key(name) for name in names()))
    return found[0]


def _key(name: str) -> str:
    return name.split("_")[1]  # of 02_octconv and of 02b_octconv_families: octconv


def _source(name: str) -> Path:
    if name not in names():
        raise settings.unknown("chapter", name, names())
    return paths.NOTEBOOKS / f"{name}.ipynb"


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a chapter by name. Raises InputError for an unknown chapter.

    The cell is parsed here: papermill.inspect_notebook knows neither `int | None` nor a list over two lines.
    """
    path = _source(name)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join(cell["source"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no notebook with one cell of parameters ({error})".replace("\n", " ")) from error
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.strip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        default = ast.literal_eval(node.value)
        if annotation := getattr(node, "annotation", None):
            kind = eval(ast.unparse(annotation))  # noqa: S307  our own notebook, about to be executed anyway
        else:
            kind = object if default is None else type(default)
        found[target.id] = Parameter(target.id, default, kind, comments.get(node.end_lineno, ""))
    return found


def profiles(name: str) -> list[str]:
    """The profiles a chapter can run at; smoke is its own defaults."""
    return [SMOKE, *sorted(path.parent.name for path in paths.PROFILES.glob(f"*/{name}.yml"))]


def profile_values(name: str, profile: str) -> dict[str, Any]:
    """What a profile sets in a chapter. Raises InputError for an unknown one."""
    if profile not in profiles(name):
        raise settings.unknown(f"profile of {name}", profile, profiles(name))
    return {} if profile == SMOKE else settings.read(paths.PROFILES / profile / f"{name}.yml") | {"profile": profile}


def settle(name: str, profile: str, given: Mapping[str, Any], data_root: Path | None = None) -> dict[str, Any]:
    """The parameters to run a chapter with: those of the profile, then those given; the others keep their defaults.

    Raises InputError for a name that the chapter lacks, and for a type or a value that it or its method refuses.
    """
    known = parameters(name)
    for option in ("profile", "data_root"):
        if option in given:
            raise InputError(f"parameter {option!r} has an option of its own: --{option.replace('_', '-')}")
    values = profile_values(name, profile) | given
    if data_root is not None:  # absolute: the kernel runs elsewhere
        values["data_root"] = str(data_root.resolve())
    for parameter in values:
        if parameter not in known:
            raise settings.unknown(f"parameter of {name}", parameter, known)
    values = {parameter: settings.fit(parameter, value, known[parameter].kind) for parameter, value in values.items()}
    for parameter, value in values.items():
        if value == [] and known[parameter].default:
            raise InputError(f"{parameter} is []; give at least one")
    if not 0 <= values.get("seed", 0) < 2**31:
        raise InputError(f"seed is {values['seed']}; it is a whole number from 0 to {2**31 - 1}")
    if values and _key(name) in METHODS:  # nothing given: the chapter's own defaults need no look, nor torch
        config = importlib.import_module(f"dynlib.papers.{_key(name)}").Config
        defaults = {parameter.name: parameter.default for parameter in known.values()}
        settings.build(config, settings.part_of(config, defaults | values))
        if {"arch", "dataset", "epochs"} <= known.keys():
            recipe = importlib.import_module("dynlib.book.recipes").Recipe
            settings.build(recipe, settings.part_of(recipe, defaults | values))
    return values


def execute(name: str, values: Mapping[str, Any], out: Path, *, progress: bool = False) -> None:
    """Run a chapter in a kernel of this interpreter, from the repository's root, and write the result to `out`.

    `out` is replaced when all cells ran, by one rename. When a cell fails, `out` stays what it was, and the notebook as
    far as it came lies beside it as NAME.failed.ipynb. `progress` shows a bar of cells on standard error.

    Raises:
        InputError: `out` cannot be written, or a cell raised one; then no failed notebook is kept.
        ChapterError: a cell failed otherwise.
    """
    failed = out.with_suffix(".failed.ipynb")
    _check_target(out)
    failed.unlink(missing_ok=True)  # of an earlier run

    # A second thread that spins while it waits makes tiny networks many times slower wherever a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    import papermill  # seconds of import: only where something runs
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="dynlib-") as folder:
        draft = Path(folder) / out.name
        try:
            papermill.execute_notebook(
                _source(name),
                draft,
                dict(values),
                kernel_name="python3",
                kernel_manager_class=_kernel_manager(),
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # no word about TCP or being interrupted
                progress_bar=progress,
                cwd=paths.ROOT,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename == InputError.__name__:
                raise InputError(error.evalue) from error
            reason = ": ".join(filter(None, (error.ename, (error.evalue.strip() or "\n").splitlines()[-1])))
            write_atomically(failed, _without_paths(draft))
            raise _failure(name, error.exec_count, error.source, reason, failed) from error
        except DeadKernelError as error:
            cells = [c for c in json.loads(draft.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
            begun = [c for c in cells if c["metadata"]["papermill"]["start_time"]]
            reason = "the kernel died, often for lack of memory"
            write_atomically(failed, _without_paths(draft))
            raise _failure(name, len(begun), "".join(begun[-1]["source"]), reason, failed) from error
        write_atomically(out, _without_paths(draft))


def _failure(name: str, count: int, source: str, reason: str, failed: Path) -> ChapterError:
    """One line: which cell, how it begins, why it failed, where to read on."""
    first = next((line.strip() for line in source.splitlines() if line.strip()), "")
    return ChapterError(f"{name}: cell [{count}] ({first}) failed: {reason}; what ran is in {failed}")


def _check_target(out: Path) -> None:
    """Fail now, not after an hour, where the result could not be written."""
    check_writable(out)
    if out.suffix != ".ipynb" or out.is_dir():
        raise InputError(f"cannot write {out}: give the name of an .ipynb file")
    if out.resolve().parent == paths.NOTEBOOKS.resolve():
        raise InputError(f"cannot write {out}: that folder holds the sources; give another one")


def _without_paths(draft: Path) -> str:
    """An executed notebook without papermill's note of where on this machine it lay."""
    notebook = json.loads(draft.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _kernel_manager() -> type:
    """Kernels of this very interpreter that find this very library, whatever kernels the user has installed."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class SameInterpreter(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _only_the_native_one(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

        async def start_kernel(self, **options: Any) -> None:
            found = os.environ.get("PYTHONPATH")
            path = os.pathsep.join([str(paths.ROOT), *([found] if found else [])])
            await super().start_kernel(env=os.environ | {"PYTHONPATH": path}, **options)

    return SameInterpreter
