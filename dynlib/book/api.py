"""The page of the library's public names, written from their own docstrings so that it cannot fall behind them."""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path

from dynlib import papers, paths

SHARED = {  # module: the names that a user of the library needs from it
    "dynlib.train": ("Schedule", "Hardware", "Phase", "fit", "predict", "evaluate"),
    "dynlib.data": ("Loader",),
    "dynlib.runtime": ("load", "Deployed", "Deployed.__call__", "Deployed.save"),
    "dynlib.cost": ("count", "closed_form", "example"),
}
OF_A_METHOD = ("Config", "convert", "cost", "deploy", "phases", "evaluate", "choose", "macs_by_choice", "macs_expected")
WIDTH = 84  # columns of code that fit the page
HEAD = """(api)=
# The library

Written from the docstrings. A method is a package, `dynlib.papers.<key>`, with the same four names: `Config`,
`convert`, `cost` and `deploy`. How they work together: {doc}`ship it <ship>`.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for key, title in papers.METHODS.items():
        module = importlib.import_module(f"dynlib.papers.{key}")
        names = [name for name in OF_A_METHOD if hasattr(module, name)]
        parts += [f"## {title}: `dynlib.papers.{key}`", *(entry(module, name) for name in names)]
    for name, wanted in SHARED.items():
        parts += [f"## `{name}`", *(entry(importlib.import_module(name), part) for part in wanted)]
    return "\n\n".join(parts) + "\n"


def entry(module: object, name: str) -> str:
    """One name of a module, folded: its first line; then signature or fields, and the rest of its docstring."""
    thing = module
    for part in name.split("."):
        thing = getattr(thing, part)
    shown = fields(thing) if dataclasses.is_dataclass(thing) else signature(name.rpartition(".")[2], thing)
    first, _, rest = prose(inspect.getdoc(thing) or "").partition("\n")
    return f":::{{dropdown}} `{name}`: {first}\n```python\n{shown}\n```\n\n{rest.strip()}\n:::"


def fields(kind: type) -> str:
    """The fields of a dataclass as they are written, comments and all."""
    source = re.sub(r'""".*?"""', "", inspect.getsource(kind), count=1, flags=re.DOTALL)
    kept = [line for line in source.splitlines() if re.match(r"    (\w+: |#)", line)]
    return "\n".join(part for line in kept for part in _above(line.strip()))


def _above(line: str) -> list[str]:
    """A field whose line is too wide for the page has its comment above it."""
    if len(line) <= WIDTH:
        return [line]
    field, _, comment = ("", "", line[2:]) if line.startswith("# ") else line.partition("  # ")
    return [f"# {part}" for part in textwrap.wrap(comment, WIDTH - 2)] + [field] * bool(field)


def signature(name: str, thing: object) -> str:
    """As it is written, one line a parameter where all do not fit into one line."""
    target = thing.__init__ if isinstance(thing, type) else inspect.unwrap(thing)
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(target))).body
    parts = [re.sub(r"(?<=[\w\]])=(?=\S)", " = ", part) for part in _split(ast.unparse(node.args)) if part != "self"]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"{name}({', '.join(parts)}){returned}"
    return (
        short if len(short) <= WIDTH else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returned}"])
    )


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def prose(docstring: str) -> str:
    """A docstring as Markdown: sections of Google's style are bold, their entries a list."""
    lines, inside = [], False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Yields):", line):
            lines += [f"**{line}**", ""]
            inside = True
        elif inside and (found := re.match(r"    (\*{0,2}\w[\w.]*): (.*)", line)):
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(line.strip() if inside else line)
    return "\n".join(lines).replace("|", r"\|")


def write(path: Path = paths.BOOK / "api.md") -> Path:
    """The page, where the book looks for it."""
    return paths.write_atomically(path, page())
