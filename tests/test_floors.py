"""The floors of dynlib (the map is in dynlib/__init__.py), proved from the imports."""

import ast
from pathlib import Path

import pytest

from dynlib.paths import ROOT

PACKAGE = ROOT / "dynlib"
FLOORS = (
    ("errors", "paths", "catalogue"),
    ("records", "settings", "authors_count", "runtime"),
    ("ops", "cost", "data", "student", "quantise"),
    ("graphs", "export"),
    ("backbones", "latency"),
    ("train",),
    ("tasks",),
    ("papers", "recipes"),
    ("runs", "searches", "paperscale"),
    ("chapters",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
WING = {"tables", "plots", "tables_choices", "plots_choices"}  # the book's: floors 0 and 1 only, no torch
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


def allowed(importer: str, imported: str) -> bool:
    """Whether `importer` may import `imported`; both dotted, below dynlib ("papers.octconv", "errors")."""
    here, there = importer.split(".")[0], imported.split(".")[0]
    if here == there == "papers":  # papers never meet; a paper may have helpers of its own
        return imported == "papers" or _key(imported) == _key(importer)
    if here == there:  # the parts of one package
        return True
    if here in WING:
        return FLOOR.get(there, 9) <= FLOOR["records"] or here.startswith(f"{there}_")  # a part of its own
    if there in WING:
        return FLOOR[here] >= FLOOR["chapters"]
    if "_" in imported.removeprefix("papers.") and there == "papers":  # a paper's helper, seen from outside
        return False
    return FLOOR[there] < FLOOR[here]


def _key(module: str) -> str:
    """The paper that a module below papers belongs to: papers.octconv_ops is octconv's."""
    return module.removeprefix("papers.").split("_")[0]


def name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_only_from_floors_below_its_own(path):
    here = name(path)
    assert here.split(".")[0] in FLOOR.keys() | WING, f"{here} has no floor: enter it here and in dynlib/__init__.py"
    ours = {module.removeprefix("dynlib.") for module in imports(path) if module.startswith("dynlib.")}
    assert [module for module in sorted(ours) if not allowed(here, module)] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_library_knows_no_notebook_and_the_wing_no_torch(path):
    here, used = name(path), {module.split(".")[0] for module in imports(path)}
    assert not used & {"IPython", "ipykernel", "notebooks"}
    if here.split(".")[0] != "chapters":
        assert "papermill" not in used, "only chapters.py runs notebooks"
    if here in WING:
        assert not used & {"torch", "torchvision", "lightning"}


@pytest.mark.parametrize(
    ("importer", "imported", "verdict"),
    [
        ("cost", "errors", True),
        ("cost", "ops", False),  # its own floor
        ("data.scenes", "data.packed", True),
        ("train", "papers.octconv", False),
        ("papers.octconv", "graphs", True),
        ("papers.octconv", "papers.octconv_layers", True),
        ("papers.octconv", "papers.drnet", False),
        ("papers.drnet", "papers.octconv_layers", False),
        ("cli", "papers.octconv_layers", False),
        ("cli", "papers.octconv", True),
        ("cli", "chapters", True),
        ("chapters", "cli", False),
        ("tables", "records", True),
        ("plots", "tables", False),
        ("plots_choices", "plots", True),
        ("plots_choices", "tables", False),
        ("papers.octconv", "tables", False),
    ],
)
def test_the_rule_itself_tells_up_from_down(importer, imported, verdict):
    assert allowed(importer, imported) is verdict
