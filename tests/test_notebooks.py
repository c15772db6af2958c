"""The shape of a chapter's source, which neither papermill nor Jupyter would enforce."""

import ast
import dataclasses
import importlib
import importlib.util
import re

import nbformat
import pytest
import yaml

from dynlib.book.recipes import Recipe
from dynlib.book.searches import Search
from dynlib.paths import NOTEBOOKS, PROFILES

CHAPTERS = sorted(NOTEBOOKS.glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)

# What a chapter may ask for besides its method's Config; the same word means the same thing in every chapter.
SHARED = {field.name: "of the training recipe" for field in dataclasses.fields(Recipe)} | {
    "profile": "smoke, public or paper: names the banner and the records",
    "seed": "data order, augmentation, first weights",
    "accelerator": "where to train: cpu, cuda",
    "data_root": "folder of the packed data sets",
    "archs": "the networks that are trained, where a chapter trains several",
    "lams": "wae: the weights of the energy term that are tried, where `lam` is the one looked at",
    "variants": "wae: the networks that are trained",
    **{field.name: "s2dnas: of the search" for field in dataclasses.fields(Search)},
    "alphas": "the values of `alpha` that are trained, where that is the one looked at",
}


def code_cells(path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def source(cell) -> str:
    """The cell's Python, without lines of IPython magic."""
    return "\n".join(line for line in cell.source.splitlines() if not re.match(r"\s*[%!]", line))


def parameters(path) -> list[str]:
    (cell,) = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    names = []
    for node in ast.parse(source(cell)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assert all(isinstance(target, ast.Name) for target in targets), "the parameters cell holds assignments only"
        ast.literal_eval(node.value)  # plain scalars and lists: anything else raises
        names += [target.id for target in targets]
    return names


def config_fields(path) -> set[str]:
    """Fields of the chapter's method; empty for a chapter without one, such as a comparison."""
    module = f"dynlib.papers.{path.stem.split('_')[1]}"
    if importlib.util.find_spec(module) is None:
        return set()
    return {field.name for field in dataclasses.fields(importlib.import_module(module).Config)}


@each_chapter
def test_a_chapter_has_one_parameters_cell_of_plain_values(path):
    assert parameters(path)


@each_chapter
def test_a_parameter_is_a_field_of_the_method_or_a_shared_name(path):
    assert sorted(set(parameters(path)) - config_fields(path) - SHARED.keys()) == []


@each_chapter
def test_every_chapter_can_be_told_its_profile_and_seed(path):
    assert {"profile", "seed"} <= set(parameters(path))


@each_chapter
def test_profile_files_set_only_parameters(path):
    known = set(parameters(path))
    for profile in PROFILES.glob(f"*/{path.stem}.yml"):
        assert sorted(set(yaml.safe_load(profile.read_text(encoding="utf-8"))) - known) == [], profile


@each_chapter
def test_outputs_are_stored_only_where_nbval_compares_them(path):
    stored = [i for i, cell in enumerate(code_cells(path)) if cell.outputs and "keep_output" not in tags(cell)]
    assert stored == []
    kept = [cell for cell in code_cells(path) if "keep_output" in tags(cell)]
    assert all(cell.outputs and "nbval-check-output" in tags(cell) for cell in kept)


@each_chapter
def test_the_last_code_cell_is_the_stamp(path):
    assert "stamp" in tags(code_cells(path)[-1])


@each_chapter
def test_a_chapter_tells_and_calls_but_does_not_implement(path):
    trees = [ast.parse(source(cell)) for cell in code_cells(path)]
    functions = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 8] == []


def test_profile_files_belong_to_chapters():
    chapters = {path.stem for path in CHAPTERS}
    assert [path for path in PROFILES.glob("*/*.yml") if path.stem not in chapters] == []


@each_chapter
def test_a_downloaded_chapter_says_first_how_to_install_the_library(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert "dynlib" in first.source and "pip install" in first.source
    assert "remove-cell" in tags(first), "the page does not repeat it"


@each_chapter
def test_every_fold_says_what_it_holds(path):
    folded = [cell for cell in code_cells(path) if any(tag.startswith("hide-") for tag in tags(cell))]
    assert [cell.id for cell in folded if "code_prompt_show" not in cell.metadata.get("mystnb", {})] == []
