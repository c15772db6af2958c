"""A new paper from the template: its tests fail as it comes, and pass once it is filled in."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from dynlib.book import newchapter
from dynlib.errors import InputError
from dynlib.paths import ROOT

COPIED = ("dynlib", "template", "book", "notebooks", "tests", "data/claims", "data/studies", "pyproject.toml")
WRITTEN = 'raise NotImplementedError("convert of filled is to be written")'


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository's sources."""
    root = tmp_path_factory.mktemp("clone")
    ignore = shutil.ignore_patterns("__pycache__", "*.failed.ipynb", "toy")
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, ignore=ignore) if source.is_dir() else shutil.copy(source, target)
    return root


@pytest.fixture(scope="module")
def created(clone):
    return newchapter.create("toy", "A toy", clone)


def test_what_is_created_is_entered_in_the_methods_and_in_the_contents(clone, created):
    names = [path.relative_to(clone).as_posix() for path in created]
    (chapter,) = [name.removesuffix(".ipynb") for name in names if name.endswith(".ipynb")]
    assert re.fullmatch(r"notebooks/\d\d_toy", chapter)
    contents = yaml.safe_load((clone / "book" / "_toc.yml").read_text(encoding="utf-8"))["chapters"]
    assert {"file": chapter} in contents
    assert '    "toy": "A toy",\n' in (clone / "dynlib" / "papers" / "__init__.py").read_text(encoding="utf-8")
    assert not [name for name in names if "KEY" in (clone / name).read_text(encoding="utf-8")]


def test_its_tests_fail_until_it_is_filled_in(clone, created):
    newchapter.create("filled", "A filled one", clone)
    method, tests = clone / "dynlib" / "papers" / "filled" / "convert.py", clone / "tests" / "test_filled.py"
    assert WRITTEN in method.read_text(encoding="utf-8")
    method.write_text(method.read_text(encoding="utf-8").replace(WRITTEN, "return copy.deepcopy(model)"))
    tests.write_text(re.sub(r"pytest\.fail\(.*\)", "pass", tests.read_text(encoding="utf-8")))
    files = ["tests/test_toy.py", "tests/test_filled.py", "tests/test_notebooks.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "toy or filled", *files]
    told = subprocess.run(command, cwd=clone, capture_output=True, text=True).stdout
    assert re.search(r"5 failed, \d+ passed", told)
    assert re.findall(r"^FAILED (\S+)::", told, re.MULTILINE) == ["tests/test_toy.py"] * 5


@pytest.mark.parametrize(
    ("key", "title", "message"),
    [
        ("Toy", "A toy", "key is 'Toy'; allowed: 2 to 21 lower-case letters"),
        ("drnet", "A toy", "key is 'drnet', a chapter or a word of Python"),
        ("class", "A class", "key is 'class', a chapter or a word of Python"),
        ("comparison", "Another", "key is 'comparison', a chapter or a word of Python"),
        ("toy2", "A\ttoy", "title is .*; allowed: 1 to 80 letters"),
        ("toy2", 'A "toy"', "title is .*; allowed: 1 to 80 letters, without quotes"),
        ("toy", "A toy", "key is 'toy', a chapter or a word of Python"),
        ("papers", "A toy", "test_papers.py is there already; nothing was written"),
    ],
)
def test_a_key_that_is_none_or_taken_is_refused_and_nothing_written(clone, created, key, title, message):
    before = sorted(path for path in clone.rglob("*") if "__pycache__" not in path.parts)
    with pytest.raises(InputError, match=message):
        newchapter.create(key, title, clone)
    assert sorted(path for path in clone.rglob("*") if "__pycache__" not in path.parts) == before
