"""The floors of dynlib (the map is in dynlib/__init__.py), proved from the imports."""

import ast
from pathlib import Path

import pytest

from dynlib.paths import ROOT

PACKAGE = ROOT / "dynlib"
FLOORS = (  # a name is a file, or a folder with all that lies in it; the book's own folder is named part by part
    ("errors",),
    ("paths", "settings", "catalogue", "engines"),
    ("ops", "deployed", "networks"),
    ("decisions",),
    ("runtime",),
    ("cost", "data", "quantise", "tracing"),
    ("roles",),
    ("graphs", "export"),
    ("backbones", "variants", "checkpoints"),
    ("train", "latency"),
    ("tasks",),
    ("papers",),
    ("book.records", "book.jobs", "book.zoo", "book"),
    ("book.recipes", "book.search_trials", "book.demos", "book.explore"),
    ("book.runs", "book.paperscale", "book.site"),
    ("book.searches", "book.campaign"),
    ("book.chapters", "book.pages", "book.pdf", "book.report", "book.api", "book.newchapter"),
    ("book.cli_options",),
    ("book.cli_networks", "book.cli_training"),
    ("book.cli",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
WITHOUT_TORCH = {"book.report.claims", "book.report.table", "book.report.figure", "book.explore", "book.site"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, as dotted names; a submodule by its own name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: name modules in full, no relative import"
            for alias in node.names:
                target = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = target.with_suffix(".py").exists() or (target / "__init__.py").exists()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return found


def room(module: str) -> str | None:
    """The longest name with a floor that the module is, or lies in: papers of papers.octconv.ops."""
    parts = module.split(".")
    inside = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in inside if name in FLOOR and (name != "book" or module == "book")), None)


def allowed(importer: str, imported: str) -> bool:
    """Whether `importer` may import `imported`; both dotted, below dynlib ("papers.octconv.ops", "errors")."""
    here, there = room(importer), room(imported)
    if here == there == "papers":  # papers never meet
        return imported == "papers" or imported.split(".")[1] == importer.split(".")[1]
    return here == there or FLOOR[there] < FLOOR[here]


def name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_only_from_floors_below_its_own(path):
    here = name(path)
    assert room(here), f"{here} has no floor: enter it here and in dynlib/__init__.py"
    ours = {module.removeprefix("dynlib.") for module in imports(path) if module.startswith("dynlib.")}
    assert [module for module in sorted(ours) if not allowed(here, module)] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_library_knows_no_notebook_and_tables_no_torch(path):
    here, used = name(path), {module.split(".")[0] for module in imports(path)}
    assert not used & {"IPython", "ipykernel", "notebooks"}
    if here != "book.chapters":
        assert "papermill" not in used, "only chapters.py runs notebooks"
    if here in WITHOUT_TORCH:
        assert not used & {"torch", "torchvision", "lightning"}


@pytest.mark.parametrize(
    ("importer", "imported", "verdict"),
    [
        ("cost", "errors", True),
        ("cost", "latency", False),  # its own floor
        ("data.scenes", "data.packed", True),  # within one part
        ("train", "papers.octconv", False),
        ("papers.octconv", "papers.octconv.convert", True),
        ("papers.drnet.convert", "papers.octconv.layers", False),
        ("papers", "settings", True),
        ("book.cli", "papers.octconv", True),
        ("book.chapters", "book.cli", False),
        ("book.zoo", "book.recipes", False),  # of the book's parts each has its floor
    ],
)
def test_the_rule_itself_tells_up_from_down(importer, imported, verdict):
    assert allowed(importer, imported) is verdict
