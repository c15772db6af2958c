"""One source of truth for what is installed, and nothing in the repository that only one machine knows."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

from dynlib import __version__
from dynlib.paths import BOOK, NOTEBOOKS, ROOT

REGISTRY = re.compile(r"pythonhoste[d]|pyp[i]\.|https?://[^\s\"']*(?:/simple\b|/registry)|--(?:extra-)?index-url")
MACHINE = re.compile(r"(?<![\w.~}])/(?:work|root|tmp|farm|home|Users)/[A-Za-z.]")


def tracked_texts() -> list[tuple[str, str]]:
    """Name and text of each tracked text file."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    texts = []
    for name in filter(None, listing.stdout.split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in data:
            texts.append((name, data.decode("utf-8")))
    return texts


def canonical(requirement: str) -> str:
    """The bare project name of a requirement line."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def lines(path: Path) -> list[str]:
    stripped = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if line]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_requirements_in_and_pyproject_name_the_same_direct_dependencies():
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    named = [canonical(requirement) for group in groups for requirement in group]
    assert set(named) == {canonical(line) for line in lines(ROOT / "requirements.in")}


def test_the_lock_pins_every_direct_dependency_exactly():
    locked = lines(ROOT / "requirements.txt")
    assert [line for line in locked if not re.match(r"\S+==\S+", line)] == []
    assert {canonical(line) for line in lines(ROOT / "requirements.in")} <= {canonical(line) for line in locked}


def test_a_pin_in_requirements_in_is_the_pin_in_the_lock():
    locked = {line.split(" ;")[0].strip() for line in lines(ROOT / "requirements.txt")}
    assert {line for line in lines(ROOT / "requirements.in") if "==" in line} <= locked


def test_conda_and_binder_install_the_lock_and_nothing_beside_it():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, nested = environment["dependencies"]
    assert pip == "pip" and nested == {"pip": ["-r requirements.txt", "-e ."]}
    assert python.removeprefix("python=") == project()["requires-python"].removeprefix(">=")


def test_every_folder_of_the_library_is_packaged():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("dynlib/**/*.py")}
    assert {folder.replace("/", ".") for folder in folders} == set(find_packages(str(ROOT), include=["dynlib*"]))


def test_no_tracked_file_names_a_package_registry():
    assert [(name, hit[0]) for name, text in tracked_texts() if (hit := REGISTRY.search(text))] == []


def test_no_tracked_file_holds_a_path_of_one_machine():
    assert [(name, hit[0]) for name, text in tracked_texts() if (hit := MACHINE.search(text))] == []


def test_the_address_of_the_repository_stands_in_one_place():
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert not address or [name for name, text in tracked_texts() if address in text] == ["_config.yml"]


def test_every_chapter_is_in_the_table_of_contents_and_on_the_cover():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    entries = {entry["file"] for entry in toc["chapters"]}
    cover = (NOTEBOOKS / "00_cover.ipynb").read_text(encoding="utf-8")
    chapters = [f"notebooks/{path.stem}" for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    chapters.remove(toc["root"])
    linked = [name for name in chapters if f"<{name.removeprefix('notebooks/')}>" in cover]
    assert set(chapters) <= entries and linked == chapters


def test_the_citation_and_the_change_log_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert citation["version"] == newest == __version__
